/** Housekeeping of the running program, asked for on the command line and visible as workflows. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { readRunFile } from "../../src/embedded/run-file.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { TemporalConnection } from "../../src/temporal/connection.ts";
import { workflowIds } from "../../src/temporal/ids.ts";
import { randomContent } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { startSlipway } from "../support/slipway.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { mustRun } from "../support/tools.ts";
import { adminClient, embeddedEnv, until } from "./support.ts";

const CLI = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));

function cli(slipway: RunningSlipway, ...args: string[]): Promise<string> {
  return mustRun(process.execPath, [CLI, ...args], { env: slipway.env });
}

test("collection by command line: a dry run counts, a run removes what is unlinked, linked content stays; expiry removes abandoned uploads", async (t) => {
  const s = scope(t);
  const slipway = await startSlipway(s, { env: { ...embeddedEnv(), SLIPWAY_UPLOAD_EXPIRY_HOURS: "1" } });
  const client = adminClient(slipway);
  const image = await client.pushImage("library/kept", "v1");
  const loose = randomContent(50_000);
  await client.pushBlob("library/kept", loose);
  const where = `/v2/library/kept/blobs/${loose.digest}`;
  assert.equal((await client.request(where, { method: "DELETE" })).status, 202);
  const abandoned = await client.location("library/kept");
  assert.equal((await client.patch(abandoned, Buffer.from("left behind"))).status, 202);
  await delay(1_100);

  const run = readRunFile(slipway.dataDir);
  assert.ok(run?.databaseUrl && run.temporalAddress);
  const database = new pg.Client({ connectionString: run.databaseUrl });
  await database.connect();
  s.after(() => database.end());
  const isStored = async (): Promise<boolean> =>
    (await database.query("SELECT 1 FROM blobs WHERE digest = $1 AND stored", [loose.digest])).rowCount === 1;

  const dry = await cli(slipway, "gc", "run", "--dry-run", "--grace", "1s");
  assert.match(dry, /ended: Success/);
  assert.match(dry, /\b1 items, 50000 bytes/);
  assert.equal(await isStored(), true, "a dry run removes nothing");
  const real = await cli(slipway, "gc", "run", "--grace", "1s");
  assert.match(real, /ended: Success/);
  assert.equal(await isStored(), false);
  assert.equal((await client.request("/v2/library/kept/manifests/v1")).headers.get("docker-content-digest"), image.digest);
  assert.match(await cli(slipway, "gc", "status"), /manual dry run: Success[\s\S]*manual collection: Success/);

  const temporal = new TemporalConnection({ address: run.temporalAddress, namespace: "default" });
  s.after(() => temporal.close());
  // The execution is settled by the run's last activity, a moment before the run itself closes.
  const described = await until("the collection's run is closed", async () => {
    const found = await temporal.call((service) => service.workflow.getHandle(workflowIds.garbageCollection).describe());
    return found.status.name === "RUNNING" ? undefined : found;
  });
  assert.equal(described.status.name, "COMPLETED");
  assert.equal(described.type, "garbageCollect");
  const relay = await temporal.call((service) => service.workflow.getHandle(workflowIds.outboxRelay).describe());
  assert.equal(relay.status.name, "RUNNING");

  await database.query("UPDATE uploads SET touched_at = now() - interval '2 hours'");
  await createMaintenanceStarters(temporal).startUploadExpiry({ trigger: "manual" });
  await until("the abandoned upload is gone", async () => ((await client.request(abandoned)).status === 404 ? true : undefined));

  assert.match(await cli(slipway, "user", "add", "robert"), /added user robert/);
});
