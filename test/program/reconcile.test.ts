/** The database is lost, storage is not: a fresh instance over the same storage serves what was there, with its upstream away. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import pg from "pg";
import { readRunFile } from "../../src/embedded/run-file.ts";
import { FakeRegistry } from "../support/fake-registry.ts";
import { bytesOf } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { startSlipway } from "../support/slipway.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { mustRun } from "../support/tools.ts";
import { adminClient, embeddedEnv, until } from "./support.ts";

const CLI = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));

async function isRelayed(slipway: RunningSlipway): Promise<boolean> {
  const client = new pg.Client({ connectionString: readRunFile(slipway.dataDir)?.databaseUrl ?? "" });
  await client.connect();
  try {
    return (await client.query("SELECT 1 FROM outbox LIMIT 1")).rowCount === 0;
  } finally {
    await client.end();
  }
}

test("a fresh instance on the storage of a lost one serves pushed and cached content again, and keeps private what was private", async (t) => {
  const s = scope(t);
  const upstream = await new FakeRegistry().start();
  s.after(() => upstream.stop());
  const pulled = upstream.putImage("library/alpine", "3.20");
  const first = await startSlipway(s, { env: embeddedEnv() });
  const client = adminClient(first);
  const json = { "content-type": "application/json" };
  const post = async (path: string, body: object): Promise<void> => {
    const answer = await client.request(path, { method: "POST", headers: json, body: JSON.stringify(body) });
    assert.equal(answer.status, 201, await answer.text());
  };
  await post("/api/v2.0/projects", { project_name: "secret", metadata: { public: "false" } });
  await post("/api/v2.0/registries", { name: "hub", type: "docker-registry", url: upstream.url });
  const [registry] = (await (await client.request("/api/v2.0/registries?name=hub")).json()) as { id: number }[];
  await post("/api/v2.0/projects", { project_name: "hub", registry_id: registry?.id, metadata: { public: "true" } });
  const open = await client.pushImage("library/app", "v1");
  const closed = await client.pushImage("secret/app", "v1");
  const cached = await bytesOf(await client.request("/v2/hub/library/alpine/manifests/3.20"));
  const { layers } = JSON.parse(cached.toString()) as { layers: { digest: string }[] };
  const layer = layers[0]?.digest ?? "";
  const layerBytes = await bytesOf(await client.request(`/v2/hub/library/alpine/blobs/${layer}`));
  await until("the records are in storage", async () => ((await isRelayed(first)) ? true : undefined));
  await first.stop();
  await upstream.stop();

  const second = await startSlipway(s, { env: { ...embeddedEnv(), SLIPWAY_STORAGE_PATH: join(first.dataDir, "storage") } });
  const again = adminClient(second);
  const anonymous = (path: string): Promise<Response> => fetch(`${second.url}${path}`);
  const hub = await until(
    "the rows are back",
    async () => {
      const answer = await again.request("/v2/hub/library/alpine/manifests/3.20");
      const local = await again.request("/v2/secret/app/manifests/v1");
      return answer.status === 200 && local.status === 200 ? answer : undefined;
    },
    60_000,
  );
  assert.deepEqual(await bytesOf(hub), cached);
  assert.equal(hub.headers.get("docker-content-digest"), pulled);
  assert.deepEqual(await bytesOf(await again.request(`/v2/hub/library/alpine/blobs/${layer}`)), layerBytes);
  assert.equal((await again.request("/v2/library/app/manifests/v1")).headers.get("docker-content-digest"), open.digest);
  assert.equal((await again.request("/v2/secret/app/manifests/v1")).headers.get("docker-content-digest"), closed.digest);
  assert.equal((await anonymous("/v2/secret/app/manifests/v1")).status, 401);
  const status = await until("the run has ended", async () => {
    const text = await mustRun(process.execPath, [CLI, "reconcile", "status"], { env: second.env });
    return /: Success/.test(text) ? text : undefined;
  });
  assert.match(status, /event reconciliation: Success/);
});
