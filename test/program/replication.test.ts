/** The whole road: a policy by REST, a run, and what arrived in the target registry, looked at by crane and byte for byte. */
import { createHash } from "node:crypto";
import { test } from "node:test";
import assert from "node:assert/strict";
import { startDockerRegistry } from "../support/docker-registry.ts";
import { Database } from "../../src/db/pool.ts";
import { buildImage, buildIndex, writeLayout } from "../support/image.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { missingTool, mustRun } from "../support/tools.ts";
import { eventually } from "../support/maintenance.ts";

interface ExecutionView {
  readonly status: string;
  readonly status_text: string;
  readonly start_time: string;
  readonly end_time: string;
  readonly failed: number;
  readonly succeed: number;
  readonly kind: string;
}

const skip = missingTool("docker-registry") || missingTool("crane") || missingTool("skopeo");

test("a policy copies from one registry to another, exactly, and finds nothing to do afterwards", { skip }, async (t) => {
  const source = await startDockerRegistry(t);
  const target = await startDockerRegistry(t);
  const folder = await tempDir(t);
  const image = buildImage({ layers: 3, layerBytes: 40_000 });
  const index = buildIndex([buildImage(), buildImage({ architecture: "arm64" })]);
  await writeLayout(`${folder}/image`, image, "v1");
  await writeLayout(`${folder}/index`, index, "v2");
  await mustRun("skopeo", ["copy", "--all", "--dest-tls-verify=false", `oci:${folder}/image:v1`, `docker://${source.host}/team/app:v1`]);
  await mustRun("skopeo", ["copy", "--all", "--dest-tls-verify=false", `oci:${folder}/index:v2`, `docker://${source.host}/team/app:v2`]);

  const env = await sharedServices(t);
  const slipway = await startSlipway(t, {
    env,
    args: ["--role", "api", "--role", "replication"],
  });
  const call = async (method: string, path: string, body?: unknown): Promise<Response> => {
    const authorization = `Basic ${Buffer.from(`admin:${slipway.password}`).toString("base64")}`;
    const headers = { authorization, "content-type": "application/json" };
    const answer = await fetch(`${slipway.url}/api/v2.0${path}`, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${answer.ok ? "" : await answer.text()}`);
    return answer;
  };
  const made = async (path: string, body: unknown): Promise<number> =>
    Number(((await call("POST", path, body)).headers.get("location") ?? "").split("/").at(-1));
  const from = await made("/registries", { name: "from", type: "docker-registry", url: source.url });
  const to = await made("/registries", { name: "to", type: "docker-registry", url: target.url });
  const policy = await made("/replication/policies", {
    name: "app",
    src_registry: { id: from },
    dest_registry: { id: to },
    dest_namespace: "mirror",
    dest_namespace_replace_count: 1,
    filters: [{ type: "name", value: "team/**" }],
    enabled: true,
    override: true,
    single_active_replication: true,
  });
  const run = async (options: { readonly audit?: boolean } = {}): Promise<ExecutionView> => {
    const id = await made("/replication/executions", { policy_id: policy, ...options });
    return await eventually(
      "the run ends",
      async () => {
        const view = (await (await call("GET", `/replication/executions/${id}`)).json()) as ExecutionView;
        return view.status === "InProgress" ? null : view;
      },
      60_000,
    );
  };

  const copied = await run();
  assert.deepEqual([copied.status, copied.failed], ["Succeed", 0], copied.status_text);
  for (const [tag, digest] of [
    ["v1", image.manifest.digest],
    ["v2", index.index.digest],
  ] as const) {
    assert.equal((await mustRun("crane", ["digest", "--insecure", `${target.host}/mirror/app:${tag}`])).trim(), digest);
    await mustRun("crane", ["validate", "--insecure", "--remote", `${target.host}/mirror/app:${tag}`]);
  }
  for (const [digest, bytes] of [image, ...index.images].flatMap(({ blobs }) => [...blobs])) {
    const answer = await fetch(`${target.url}/v2/mirror/app/blobs/${digest}`);
    assert.deepEqual(Buffer.from(await answer.arrayBuffer()), bytes);
  }
  const nothing = await run();
  assert.deepEqual([nothing.status, nothing.status_text], ["Succeed", "no resources need to be replicated"]);
  const at = async (tag: string): Promise<string> =>
    (await mustRun("crane", ["digest", "--insecure", `${target.host}/mirror/app:${tag}`])).trim();
  await mustRun("crane", ["delete", "--insecure", `${target.host}/mirror/app@${image.manifest.digest}`]);
  assert.equal((await run()).status, "Succeed");
  assert.equal(await at("v1"), image.manifest.digest, "what was deleted behind our back is missed in the list of tags");
  await mustRun("crane", ["tag", "--insecure", `${target.host}/mirror/app:v2`, "v1"]);
  const database = new Database({ url: env["SLIPWAY_DATABASE_URL"] ?? "", poolSize: 1 });
  await database.query("UPDATE replication_known SET verified_at = now() - interval '25 hours'");
  await database.close();
  assert.equal((await run()).status, "Succeed");
  assert.equal(await at("v1"), image.manifest.digest, "what was changed there is seen when a day has passed");
  const audited = await run({ audit: true });
  assert.deepEqual([audited.status, audited.kind, audited.succeed], ["Succeed", "audit", 1]);
  t.diagnostic(`no-op run: ${Date.parse(nothing.end_time) - Date.parse(nothing.start_time)} ms from its start to its end`);
});

test("what is pushed here is carried to the target of an event policy, and what is deleted here is deleted there", { skip }, async (t) => {
  const target = await startDockerRegistry(t);
  const folder = await tempDir(t);
  const image = buildImage();
  await writeLayout(folder, image, "v1");
  const slipway = await startSlipway(t, {
    env: { ...(await sharedServices(t)), SLIPWAY_REPLICATION_EVENT_DELAY_MS: "200" },
    args: ["proxy", "api", "replication", "maintenance"].flatMap((role) => ["--role", role]),
  });
  const authorization = `Basic ${Buffer.from(`admin:${slipway.password}`).toString("base64")}`;
  const call = async (method: string, path: string, body?: unknown, type = "application/json"): Promise<Response> => {
    const headers = { authorization, "content-type": type };
    const answer = await fetch(`${slipway.url}${path}`, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${answer.ok ? "" : await answer.text()}`);
    return answer;
  };
  await call("POST", "/api/v2.0/projects", { project_name: "team", public: true });
  const registry = await call("POST", "/api/v2.0/registries", { name: "to", type: "docker-registry", url: target.url });
  await call("POST", "/api/v2.0/replication/policies", {
    name: "push",
    dest_registry: { id: Number((registry.headers.get("location") ?? "").split("/").at(-1)) },
    trigger: { type: "event_based" },
    filters: [
      { type: "name", value: "team/**" },
      { type: "tag", value: "v*" },
    ],
    enabled: true,
    deletion: true,
  });
  const credential = ["--dest-creds", `admin:${slipway.password}`, "--dest-tls-verify=false"];
  await mustRun("skopeo", ["copy", ...credential, `oci:${folder}:v1`, `docker://${slipway.host}/team/app:v1`]);
  const there = async (): Promise<number> => {
    const headers = { accept: image.manifest.mediaType };
    return (await fetch(`${target.url}/v2/team/app/manifests/v1`, { method: "HEAD", headers })).status;
  };
  await eventually("the image arrives", async () => (await there()) === 200, 60_000);
  assert.equal((await mustRun("crane", ["digest", "--insecure", `${target.host}/team/app:v1`])).trim(), image.manifest.digest);
  const signed = await sign(call, image);
  const follows = async (): Promise<boolean> => {
    const headers = { accept: image.manifest.mediaType };
    return (await fetch(`${target.url}/v2/team/app/manifests/${signed}`, { method: "HEAD", headers })).status === 200;
  };
  await eventually("a signature that comes later follows", follows, 60_000);
  await call("DELETE", `/v2/team/app/manifests/${image.manifest.digest}`);
  await eventually("it is deleted there", async () => (await there()) === 404, 60_000);
});

/** Puts a manifest without a tag that refers to the image; its digest. */
async function sign(
  call: (method: string, path: string, body: unknown, type: string) => Promise<Response>,
  { blobs, manifest }: ReturnType<typeof buildImage>,
): Promise<string> {
  const [digest = "", bytes] = blobs.entries().next().value ?? [];
  const { mediaType } = manifest;
  const config = { mediaType: "application/vnd.oci.empty.v1+json", digest, size: bytes?.length };
  const subject = { mediaType, digest: manifest.digest, size: manifest.size };
  const body = { schemaVersion: 2, mediaType, artifactType: "application/vnd.example.signature", config, layers: [], subject };
  const signed = `sha256:${createHash("sha256").update(JSON.stringify(body)).digest("hex")}`;
  await call("PUT", `/v2/team/app/manifests/${signed}`, body, mediaType);
  return signed;
}
