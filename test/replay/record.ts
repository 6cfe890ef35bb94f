/**
 * Records histories of the workflows of maintenance from real runs (those of replication: record-replication.ts), for the replay test. Run it after a workflow was added or changed under `patched`, and commit
 * the new files beside the old ones: `node test/replay/record.ts <version>` with SLIPWAY_TEST_DATABASE_URL and
 * SLIPWAY_TEST_TEMPORAL_ADDRESS set.
 */
import type { Client } from "@temporalio/client";
import { SlipwayError } from "../../src/core/errors.ts";
import type { Housekeeper } from "../../activities/services.ts";
import { scheduleIds, workflowIds } from "../../src/temporal/ids.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { maintenanceSchedules } from "../../src/temporal/schedules.ts";
import { createTrash, eventually, noKv, startMaintenance, tableCollection } from "../support/maintenance.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";
import { saveHistory } from "./save-history.ts";

const version = process.argv[2];
if (version === undefined || !/^v\d+$/.test(version)) throw new Error("name the version of the histories, such as v2");

const steps: (() => Promise<void> | void)[] = [];
const end = { after: (step: () => Promise<void> | void): void => void steps.push(step) };
const { database } = await testDatabase(end);
const { temporal } = await testNamespace(end);
const starters = createMaintenanceStarters(temporal);
await createTrash(database, { count: 450, state: "linked" });
await createTrash(database, { count: 250, state: "upload" });

const plain = tableCollection(database, 0);
let mode: "plain" | "slow" | "broken" = "plain";
const collection: Housekeeper = {
  ...plain,
  unlinkUnreferenced: (options) => (mode === "slow" ? tableCollection(database, 2_000) : plain).unlinkUnreferenced(options),
  markGarbage: (options) => (mode === "broken" ? Promise.reject(new SlipwayError("DENIED")) : plain.markGarbage(options)),
};
const start = async (): Promise<ReturnType<typeof startMaintenance>> =>
  startMaintenance({ database, temporal, dataDir: await tempDir(end), collection, kv: noKv, schedules: maintenanceSchedules({}) });
let group = await start();

async function finish(client: Client, workflowId: string): Promise<void> {
  await client.workflow
    .getHandle(workflowId)
    .result()
    .catch(() => undefined);
}

async function save(name: string, workflowId: string, runId?: string): Promise<void> {
  await saveHistory(temporal, `${name}-${version}`, { workflowId, ...(runId === undefined ? {} : { runId }) });
}

async function collect(name: string, dryRun = false): Promise<void> {
  const { workflowId } = await starters.startGarbageCollection({ trigger: "manual", dryRun });
  if (mode === "slow") {
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await starters.stopGarbageCollection();
  }
  await temporal.call((client) => finish(client, workflowId), { timeoutMs: 30_000 });
  await save(name, workflowId);
}

await collect("garbage-collect-dry-run", true);
mode = "slow";
await collect("garbage-collect-stopped");
mode = "broken";
await collect("garbage-collect-failed");
mode = "plain";
await collect("garbage-collect");
await starters.startUploadExpiry({ trigger: "manual" });
await temporal.call((client) => finish(client, workflowIds.uploadExpiry), { timeoutMs: 30_000 });
await save("upload-expiry", workflowIds.uploadExpiry);
await starters.startExecutionRetention({ trigger: "manual" });
await temporal.call((client) => finish(client, workflowIds.executionRetention), { timeoutMs: 30_000 });
await save("execution-retention", workflowIds.executionRetention);
for (const [name, begin] of [
  ["evict-cache", starters.startCacheEviction],
  ["keep-cache", starters.startCacheKeeping],
  ["warm-up-cache", starters.startWarmUp],
  ["reconcile-content", starters.startReconcile],
] as const) {
  const { workflowId } = await begin({ trigger: "manual" });
  await temporal.call((client) => finish(client, workflowId), { timeoutMs: 30_000 });
  await save(name, workflowId);
}
await temporal.call((client) => client.schedule.getHandle(scheduleIds.executionRetention).trigger());
const tick = await eventually("the tick's run", async () => {
  const described = await temporal.call((client) => client.schedule.getHandle(scheduleIds.executionRetention).describe());
  return described.info.recentActions[0]?.action.workflow.workflowId;
});
await temporal.call((client) => finish(client, tick), { timeoutMs: 30_000 });
await save("maintenance-tick", tick);

// A relay that hands over: its worker goes, the next one continues.
const relay = await temporal.call((client) => client.workflow.getHandle(workflowIds.outboxRelay).describe());
await group.close();
group = await start();
await eventually("the relay was replaced", async () => {
  const now = await temporal.call((client) => client.workflow.getHandle(workflowIds.outboxRelay).describe());
  return now.runId !== relay.runId;
});
await save("outbox-relay", workflowIds.outboxRelay, relay.runId);

await group.close();
for (let step = steps.pop(); step; step = steps.pop()) await step();
