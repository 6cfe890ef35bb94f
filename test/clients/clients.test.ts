/** Real clients against the real program: push, pull, copy, list, delete, byte for byte. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { buildImage, buildIndex, writeLayout } from "../support/image.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { missingTool, mustRun, runTool } from "../support/tools.ts";

const cleanups: (() => Promise<void> | void)[] = [];
const scope = { after: (fn: () => Promise<void> | void): void => void cleanups.unshift(fn) };
let slipway: RunningSlipway;
let folder: string;
const image = buildImage({ layers: 3, layerBytes: 100_000 });
const index = buildIndex([image, buildImage({ architecture: "arm64" })]);

before(async () => {
  folder = await tempDir(scope);
  await writeLayout(join(folder, "image"), image);
  await writeLayout(join(folder, "index"), index);
  slipway = await startSlipway(scope, { env: await sharedServices(scope), args: ["--role", "proxy", "--role", "api"] });
});

test.after(async () => {
  for (const cleanup of cleanups) await cleanup();
});

async function manifestBytes(repository: string, reference: string): Promise<Buffer> {
  const response = await fetch(`${slipway.url}/v2/${repository}/manifests/${reference}`, {
    headers: { authorization: `Basic ${Buffer.from(`admin:${slipway.password}`).toString("base64")}` },
  });
  assert.equal(response.status, 200);
  return Buffer.from(await response.arrayBuffer());
}

test("skopeo pushes an index by layout, lists, inspects, copies and deletes", { skip: missingTool("skopeo") }, async () => {
  const creds = `admin:${slipway.password}`;
  const target = `docker://${slipway.host}/library/skopeo`;
  await mustRun("skopeo", [
    "copy",
    "--all",
    "--dest-tls-verify=false",
    "--dest-creds",
    creds,
    `oci:${folder}/index:latest`,
    `${target}:v1`,
  ]);
  assert.deepEqual(await manifestBytes("library/skopeo", "v1"), index.indexBytes);
  const tags = JSON.parse(await mustRun("skopeo", ["list-tags", "--tls-verify=false", target])) as { Tags: string[] };
  assert.deepEqual(tags.Tags, ["v1"]);
  const raw = await mustRun("skopeo", ["inspect", "--raw", "--tls-verify=false", `${target}:v1`]);
  assert.equal(raw, index.indexBytes.toString());
  await mustRun("skopeo", ["copy", "--all", "--src-tls-verify=false", `${target}:v1`, `oci:${folder}/back:latest`]);
  for (const layer of image.layers) {
    assert.deepEqual(await readFile(join(folder, "back", "blobs", "sha256", layer.digest.slice(7))), image.blobs.get(layer.digest));
  }
  await mustRun("skopeo", [
    "copy",
    "--all",
    "--src-tls-verify=false",
    "--dest-tls-verify=false",
    "--dest-creds",
    creds,
    `${target}:v1`,
    `docker://${slipway.host}/library/copied:v2`,
  ]);
  assert.deepEqual(await manifestBytes("library/copied", "v2"), index.indexBytes);
  await mustRun("skopeo", ["delete", "--tls-verify=false", "--creds", creds, `${target}:v1`]);
  const gone = await runTool("skopeo", ["inspect", "--raw", "--tls-verify=false", `${target}:v1`]);
  assert.notEqual(gone.code, 0);
});

test("crane logs in, pushes, lists, validates, copies, tags and deletes", { skip: missingTool("crane") }, async () => {
  const env = { DOCKER_CONFIG: join(folder, "crane") };
  await mustRun("crane", ["auth", "login", slipway.host, "-u", "admin", "-p", slipway.password], { env });
  const name = `${slipway.host}/library/crane`;
  await mustRun("crane", ["push", "--insecure", join(folder, "image"), `${name}:v1`], { env });
  assert.equal((await mustRun("crane", ["digest", "--insecure", `${name}:v1`], { env })).trim(), image.manifest.digest);
  await mustRun("crane", ["validate", "--insecure", "--remote", `${name}:v1`], { env });
  await mustRun("crane", ["copy", "--insecure", `${name}:v1`, `${slipway.host}/library/crane-copy:v1`], { env });
  await mustRun("crane", ["tag", "--insecure", `${name}:v1`, "v2"], { env });
  assert.deepEqual((await mustRun("crane", ["ls", "--insecure", name], { env })).trim().split("\n"), ["v1", "v2"]);
  const catalog = (await mustRun("crane", ["catalog", "--insecure", slipway.host], { env })).trim().split("\n");
  assert.ok(catalog.includes("library/crane") && catalog.includes("library/crane-copy"));
  assert.deepEqual(await manifestBytes("library/crane-copy", "v1"), image.manifestBytes);
  await mustRun("crane", ["delete", "--insecure", `${name}@${image.manifest.digest}`], { env });
  assert.notEqual((await runTool("crane", ["digest", "--insecure", `${name}:v1`], { env })).code, 0);
});

test("regctl copies with referrers, attaches an artifact, lists and deletes", { skip: missingTool("regctl") }, async () => {
  const env = { REGCTL_CONFIG: join(folder, "regctl.json") };
  await mustRun("regctl", ["registry", "set", "--tls", "disabled", "--skip-check", slipway.host], { env });
  await mustRun("regctl", ["registry", "login", slipway.host, "-u", "admin", "-p", slipway.password], { env });
  const name = `${slipway.host}/library/regctl`;
  await mustRun("regctl", ["image", "copy", `ocidir://${folder}/index:latest`, `${name}:v1`], { env });
  assert.equal((await mustRun("regctl", ["image", "digest", `${name}:v1`], { env })).trim(), index.index.digest);
  await mustRun("regctl", ["artifact", "put", "--subject", `${name}:v1`, "--artifact-type", "application/vnd.example.sbom"], {
    env,
    input: "sbom",
  });
  const referrers = await mustRun("regctl", ["artifact", "list", `${name}:v1`, "--format", "raw-body"], { env });
  assert.match(referrers, /application\/vnd\.example\.sbom/);
  await mustRun("regctl", ["image", "copy", "--referrers", `${name}:v1`, `${slipway.host}/library/regctl-copy:v1`], { env });
  const copied = await mustRun("regctl", ["artifact", "list", `${slipway.host}/library/regctl-copy:v1`, "--format", "raw-body"], { env });
  assert.match(copied, /application\/vnd\.example\.sbom/);
  assert.match(await mustRun("regctl", ["tag", "ls", name], { env }), /^v1$/m);
  await mustRun("regctl", ["tag", "delete", `${name}:v1`], { env });
  assert.doesNotMatch(await mustRun("regctl", ["tag", "ls", name], { env }), /^v1$/m);
  assert.deepEqual(await manifestBytes("library/regctl", index.index.digest), index.indexBytes);
});

test("podman logs in, pushes and pulls", { skip: missingTool("podman") }, async () => {
  const auth = join(folder, "podman-auth.json");
  const storage = ["--root", join(folder, "podman-root"), "--runroot", join(folder, "podman-run"), "--storage-driver", "vfs"];
  const podman = (...args: string[]): Promise<string> =>
    mustRun("podman", [...storage, ...args], { env: { REGISTRY_AUTH_FILE: auth }, cwd: folder, timeoutMs: 90_000 });
  await writeFile(auth, "{}");
  await podman("login", "--tls-verify=false", "-u", "admin", "-p", slipway.password, slipway.host);
  const id = (await podman("pull", "-q", "oci:image:latest")).trim();
  await podman("push", "--tls-verify=false", id, `${slipway.host}/library/podman:v1`);
  await podman("rmi", "--force", id);
  const pulled = (await podman("pull", "-q", "--tls-verify=false", `${slipway.host}/library/podman:v1`)).trim();
  assert.equal(pulled, image.config.digest.slice(7));
});
