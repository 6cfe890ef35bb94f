/** Real clients pull through the proxy from a real registry, and push through it. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startDockerRegistry } from "../support/docker-registry.ts";
import type { DockerRegistry } from "../support/docker-registry.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { buildImage, buildIndex, writeLayout } from "../support/image.ts";
import { ask, createProxyProject, eventually } from "../support/proxy-server.ts";
import { startRegistry } from "../support/registry-server.ts";
import type { RegistryServer } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";
import { tempDir } from "../support/temp.ts";
import { missingTool, mustRun } from "../support/tools.ts";

const files = scope({ after });
const missing = missingTool("docker-registry") || missingTool("skopeo");
let upstream: DockerRegistry;
let network: FaultProxy;
let server: RegistryServer;
let folder: string;
const image = buildImage({ layers: 3, layerBytes: 400_000 });
const index = buildIndex([image, buildImage({ architecture: "arm64" })]);

before(async () => {
  if (missing) return;
  folder = await tempDir(files);
  upstream = await startDockerRegistry(files);
  network = await new FaultProxy({ port: upstream.port }).start();
  files.after(() => network.stop());
  server = await startRegistry(files);
  await createProxyProject(server.app, { name: "hub", url: network.url, registry: { type: "docker-hub", hosts: ["docker.io"] } });
  await createProxyProject(server.app, { name: "through", url: upstream.url, metadata: { proxy_push_through: "true" } });
  await writeLayout(join(folder, "image"), image);
  await writeLayout(join(folder, "index"), index);
  for (const name of ["library/alpine", "team/app"]) {
    await mustRun("skopeo", [
      "copy",
      "--all",
      "--dest-tls-verify=false",
      `oci:${folder}/index:latest`,
      `docker://${upstream.host}/${name}:1`,
    ]);
  }
});

test("skopeo copies an index with every platform through the proxy, byte for byte", { skip: missing }, async () => {
  const source = `docker://${server.host}/hub/team/app:1`;
  assert.equal(await mustRun("skopeo", ["inspect", "--raw", "--tls-verify=false", source]), index.indexBytes.toString());
  await mustRun("skopeo", ["copy", "--all", "--src-tls-verify=false", source, `oci:${folder}/back:latest`]);
  for (const each of index.images) {
    for (const [digest, bytes] of each.blobs)
      assert.deepEqual(await readFile(join(folder, "back", "blobs", "sha256", digest.slice(7))), bytes);
  }
});

test("crane pulls by the implied library name, validates every layer, lists tags", { skip: missing || missingTool("crane") }, async () => {
  const name = `${server.host}/hub/alpine`;
  assert.equal((await mustRun("crane", ["digest", "--insecure", `${name}:1`])).trim(), index.index.digest);
  await mustRun("crane", ["validate", "--insecure", "--remote", `${name}:1`]);
  await mustRun("crane", ["pull", "--insecure", "--platform", "linux/arm64", `${name}:1`, join(folder, "arm.tar")]);
  assert.deepEqual((await mustRun("crane", ["ls", "--insecure", name])).trim(), "1");
});

test("podman pulls through the proxy, also while upstream is away", { skip: missing || missingTool("podman") }, async () => {
  const auth = join(folder, "podman-auth.json");
  await writeFile(auth, "{}");
  const pull = async (round: number): Promise<string> => {
    const storage = ["--root", join(folder, `root-${round}`), "--runroot", join(folder, `run-${round}`), "--storage-driver", "vfs"];
    const args = [...storage, "pull", "-q", "--tls-verify=false", `${server.host}/docker.io/library/alpine:1`];
    return (await mustRun("podman", args, { env: { REGISTRY_AUTH_FILE: auth }, timeoutMs: 90_000 })).trim();
  };
  const platform = image.config.digest.slice(7);
  assert.equal(await pull(1), platform);
  await eventually("all is stored", () => server.app.proxy.fills.active === 0);
  network.set({ refuse: true });
  network.dropConnections();
  assert.equal(await pull(2), platform);
  network.heal();
});

test("containerd's requests with ?ns= are answered with OCI-Namespace, ranges included", { skip: missing }, async () => {
  const ns = "?ns=docker.io";
  const head = await ask(`${server.url}/v2/library/alpine/manifests/1${ns}`, {
    method: "HEAD",
    headers: { "accept-encoding": "zstd;q=1.0, gzip;q=0.8" },
  });
  assert.deepEqual([head.status, head.digest, head.headers.get("oci-namespace")], [200, index.index.digest, "docker.io"]);
  assert.equal(head.headers.get("content-encoding"), null);
  const manifest = await ask(`${server.url}/v2/library/alpine/manifests/${image.manifest.digest}${ns}`);
  assert.deepEqual(manifest.bytes, image.manifestBytes);
  const layer = image.layers[0]!;
  const part = await ask(`${server.url}/v2/library/alpine/blobs/${layer.digest}${ns}`, { headers: { range: "bytes=0-" } });
  assert.equal(part.status, 206);
  assert.deepEqual([part.bytes, part.headers.get("oci-namespace")], [image.blobs.get(layer.digest), "docker.io"]);
  assert.equal((await ask(`${server.url}/v2/library/alpine/manifests/1?ns=elsewhere.example`)).status, 404);
});

test("skopeo pushes through to a real registry", { skip: missing }, async () => {
  await mustRun("skopeo", [
    "copy",
    "--all",
    "--dest-tls-verify=false",
    `oci:${folder}/index:latest`,
    `docker://${server.host}/through/new/app:2`,
  ]);
  const there = await ask(`${upstream.url}/v2/new/app/manifests/2`, { headers: { accept: index.index.mediaType } });
  assert.deepEqual(there.bytes, index.indexBytes);
  const layer = image.layers[2]!;
  assert.deepEqual((await ask(`${upstream.url}/v2/new/app/blobs/${layer.digest}`)).bytes, image.blobs.get(layer.digest));
});
