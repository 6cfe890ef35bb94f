/** Records histories of the workflows of replication, as record.ts does: `node test/replay/record-replication.ts <version>`. */
import type { Execution } from "../../src/execution/execution-store.ts";
import { workflowIds } from "../../src/temporal/ids.ts";
import { eventually } from "../support/maintenance.ts";
import { createPolicy, createScriptTables, deeds, startReplicationWorkers, writeScript } from "../support/replication-runs.ts";
import type { Script } from "../support/replication-runs.ts";
import { testDatabase } from "../support/services.ts";
import { testNamespace } from "../support/temporal.ts";
import { saveHistory } from "./save-history.ts";

const version = process.argv[2];
if (version === undefined || !/^v\d+$/.test(version)) throw new Error("name the version of the histories, such as v2");

const steps: (() => Promise<void> | void)[] = [];
const end = { after: (step: () => Promise<void> | void): void => void steps.push(step) };
const { database } = await testDatabase(end);
const { temporal } = await testNamespace(end);
await createScriptTables(database);
const { replication, group } = startReplicationWorkers({ database, temporal });
const { control, executions, workflows } = replication;

/** Starts a run, does something to it, and saves its history once it has closed. */
async function record(
  name: string,
  script: Partial<Script>,
  act: (executionId: number) => Promise<void> = async () => undefined,
): Promise<void> {
  const policyId = await createPolicy(database);
  await writeScript(database, policyId, script);
  const { executionId } = await control.start({ policyId, trigger: "manual" });
  await act(executionId);
  const execution = await eventually<Execution>(
    `${name} ends`,
    async () => {
      const found = await executions.find(executionId);
      return found !== null && found.endedAt !== null && found;
    },
    120_000,
  );
  const workflowId = execution.workflowId ?? "";
  await temporal.call((client) => client.workflow.getHandle(workflowId).result(), { timeoutMs: 60_000 }).catch(() => undefined);
  // Of a run that continued as new the last one, which begins with what it was given.
  await saveHistory(temporal, `${name}-${version}`, { workflowId });
}

const copies = (executionId: number): Promise<unknown> =>
  eventually("copying begins", async () => (await deeds(database, "copy", executionId)).length > 0);

await record("replicate", { steps: 3, batchesPerStep: 4, againTimes: 1, againMs: 700 });
await record("replicate-nothing", {});
await record("replicate-refused", { steps: 2, batchesPerStep: 2, planError: "two sources have one destination" });
await record("replicate-stopped", { steps: 1, batchesPerStep: 3, copyMs: 60_000 }, async (id) => {
  await copies(id);
  await control.stop(id, "admin");
});
await record("replicate-paused", { steps: 2, batchesPerStep: 2, copyMs: 1_500 }, async (id) => {
  await copies(id);
  await control.pause(id);
  await eventually("the copies let go", async () => (await deeds(database, "cancelled", id)).length > 0);
  await control.resume(id);
});
await record("replicate-continued", { steps: 95, batchesPerStep: 3 });
const policyId = await createPolicy(database);
await workflows?.triggerWaiting(policyId);
const trigger = workflowIds.replicationQueue(policyId);
await temporal.call((client) => client.workflow.getHandle(trigger).result(), { timeoutMs: 30_000 });
await saveHistory(temporal, `replication-trigger-${version}`, { workflowId: trigger });
await temporal.call((client) => client.workflow.getHandle(workflowIds.replicationReconcile).result(), { timeoutMs: 30_000 });
await saveHistory(temporal, `replication-reconcile-${version}`, { workflowId: workflowIds.replicationReconcile });

await group.close();
for (let step = steps.pop(); step; step = steps.pop()) await step();
