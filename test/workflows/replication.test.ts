/** Runs of replication on a real Temporal and a real Postgres: how they go on, wait, pause, stop and end. Planner and copier follow a script. */
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import type { WorkflowHandle } from "@temporalio/client";
import type { Database } from "../../src/db/pool.ts";
import type { Execution } from "../../src/execution/execution-store.ts";
import { eventually } from "../support/maintenance.ts";
import type { RunningRuns, Script } from "../support/replication-runs.ts";
import { createPolicy, createScriptTables, deeds, startReplicationWorkers, writeScript } from "../support/replication-runs.ts";
import type { PolicyOptions } from "../support/replication-runs.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";
import { testNamespace } from "../support/temporal.ts";
import type { TemporalConnection } from "../../src/temporal/connection.ts";

interface Fixture extends RunningRuns {
  readonly database: Database;
  readonly temporal: TemporalConnection;
  policy(script: Partial<Script>, options?: PolicyOptions): Promise<number>;
  start(policyId: number): Promise<number>;
  ended(executionId: number): Promise<Execution>;
}

const end = scope({ after });
let f: Fixture;

before(async () => {
  f = await fixture();
});

async function fixture(): Promise<Fixture> {
  const { database } = await testDatabase(end);
  const { temporal } = await testNamespace(end);
  await createScriptTables(database);
  const running = startReplicationWorkers({ database, temporal });
  end.after(() => running.group.close());
  const { executions, control } = running.replication;
  return {
    ...running,
    database,
    temporal,
    async policy(script, policyOptions) {
      const id = await createPolicy(database, policyOptions);
      await writeScript(database, id, script);
      return id;
    },
    async start(policyId) {
      return (await control.start({ policyId, trigger: "manual" })).executionId;
    },
    ended: (executionId) =>
      eventually(
        `execution ${executionId} ends`,
        async () => {
          const found = await executions.find(executionId);
          return found !== null && found.endedAt !== null && found;
        },
        90_000,
      ),
  };
}

test("a run plans, copies beside it, and ends as its tasks say", async () => {
  const id = await f.start(await f.policy({ steps: 3, batchesPerStep: 5 }));
  const execution = await f.ended(id);
  assert.equal(execution.status, "Success");
  assert.deepEqual([execution.tasks.total, execution.tasks.succeeded], [15, 15]);
  assert.equal((await deeds(f.database, "copied", id)).length, 15);
  const handle = await f.temporal.call(async (client) => client.workflow.getHandle(execution.workflowId ?? ""));
  const result = await f.temporal.call(() => handle.result(), { timeoutMs: 10_000 });
  assert.deepEqual(result, { status: "Success", message: "", succeeded: 15, failed: 0 });
});

test("a run that finds nothing ends in its first step, with one activity", async (t) => {
  const policyId = await f.policy({});
  await f.ended(await f.start(policyId));
  const id = await f.start(policyId);
  const execution = await f.ended(id);
  assert.deepEqual([execution.status, execution.statusMessage], ["Success", "no resources need to be replicated"]);
  const history = await f.temporal.call((client) => client.workflow.getHandle(execution.workflowId ?? "").fetchHistory());
  assert.equal(history.events?.filter((event) => event.activityTaskScheduledEventAttributes).length, 1);
  t.diagnostic(`from the row to its end: ${(execution.endedAt?.getTime() ?? 0) - execution.createdAt.getTime()} ms`);
});

test("what is to be repeated waits in a timer, and later attempts have later revisions", async () => {
  const id = await f.start(await f.policy({ batchesPerStep: 3, againTimes: 2, againMs: 600 }));
  await eventually("a task waits", async () => ((await f.replication.executions.find(id))?.tasks.waiting ?? 0) > 0);
  assert.equal((await f.replication.executions.find(id))?.status, "Running", "a task that waits is no failure");
  const execution = await f.ended(id);
  assert.deepEqual([execution.status, execution.tasks.succeeded], ["Success", 3]);
  assert.deepEqual([...new Set((await deeds(f.database, "copy", id)).map(({ round }) => round))], [1, 2, 3]);
});

test("planning that fails lets what was planned end, and tells its reason", async () => {
  const id = await f.start(await f.policy({ steps: 2, batchesPerStep: 2, copyMs: 300, planError: "two sources have one destination" }));
  const execution = await f.ended(id);
  assert.deepEqual([execution.status, execution.statusMessage], ["Error", "two sources have one destination"]);
  assert.equal(execution.tasks.succeeded, 2);
});

test("a batch that cannot be copied fails its tasks, and the run ends", async () => {
  const id = await f.start(await f.policy({ batchesPerStep: 2, copyError: "DENIED" }));
  const execution = await f.ended(id);
  assert.deepEqual([execution.status, execution.tasks.failed], ["Error", 2]);
  const { items } = await f.replication.items.page({ executionId: id, limit: 10, offset: 0 });
  assert.deepEqual(new Set(items.map(({ status, reason }) => `${status} ${reason}`)), new Set(["Error failed"]));
});

test("stop ends a run at once and reaches its copies within seconds", async () => {
  const id = await f.start(await f.policy({ steps: 2, batchesPerStep: 4, copyMs: 60_000 }));
  await eventually("copies go on", async () => (await deeds(f.database, "copy", id)).length >= 4);
  await f.replication.control.stop(id, "admin");
  const execution = await f.replication.executions.find(id);
  assert.deepEqual([execution?.status, execution?.statusMessage], ["Stopped", "stopped by admin"]);
  const { items } = await f.replication.items.page({ executionId: id, statuses: ["Stopped"], limit: 50, offset: 0 });
  assert.ok(items.length >= 4);
  const workflowId = execution?.workflowId ?? "";
  const closed = await f.temporal
    .call((client) => client.workflow.getHandle(workflowId).result(), { timeoutMs: 10_000 })
    .catch((error: unknown) => error);
  assert.ok(closed instanceof Error);
  const ended = await f.replication.executions.find(id);
  assert.equal(ended?.tasks.stopped, ended?.tasks.total, "also what was planned in the same moment");
  const begun = (await deeds(f.database, "copy", id)).length;
  assert.equal((await deeds(f.database, "cancelled", id)).length, begun, "every copy was let go");
  await f.replication.control.stop(id);
  assert.equal((await f.replication.executions.find(id))?.statusMessage, "stopped by admin");
  const { rows } = await f.database.query<{ cancelling: boolean }>("SELECT cancelling FROM replication_runs WHERE execution_id = $1", [id]);
  assert.equal(rows[0]?.cancelling, false);
});

test("a workflow that is cancelled in the service ends its execution as stopped", async () => {
  const id = await f.start(await f.policy({ batchesPerStep: 2, copyMs: 60_000 }));
  await eventually("copies go on", async () => (await deeds(f.database, "copy", id)).length === 2);
  const workflowId = (await f.replication.executions.find(id))?.workflowId ?? "";
  await f.temporal.call((client) => client.workflow.getHandle(workflowId).cancel());
  assert.equal((await f.ended(id)).status, "Stopped");
  await eventually("its tasks are counted", async () => (await f.replication.executions.find(id))?.tasks.stopped === 2);
});

test("a pause lets copies go and keeps the run, a resume goes on with the same tasks", async () => {
  const { control, executions } = f.replication;
  const id = await f.start(await f.policy({ steps: 3, batchesPerStep: 3, copyMs: 1_500, stepMs: 300 }));
  await eventually("copies go on", async () => (await deeds(f.database, "copy", id)).length >= 3);
  await control.pause(id);
  await eventually("they were let go", async () => (await deeds(f.database, "cancelled", id)).length >= 3);
  assert.equal((await executions.find(id))?.status, "Paused");
  const before = (await deeds(f.database, "copy", id)).length;
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  assert.equal((await deeds(f.database, "copy", id)).length, before, "nothing begins while it is paused");
  await control.pause(id);
  await control.resume(id);
  const execution = await f.ended(id);
  assert.deepEqual([execution.status, execution.tasks.total, execution.tasks.succeeded], ["Success", 9, 9]);
  assert.equal((await deeds(f.database, "copied", id)).length, 9, "each task was carried out once");
  await assert.rejects(control.pause(id), { code: "PRECONDITION_FAILED" });
});

test("a paused run can be stopped", async () => {
  const id = await f.start(await f.policy({ batchesPerStep: 2, copyMs: 60_000 }));
  await eventually("copies go on", async () => (await deeds(f.database, "copy", id)).length === 2);
  await f.replication.control.pause(id);
  await f.replication.control.stop(id);
  assert.equal((await f.replication.executions.find(id))?.status, "Stopped");
  const next = await f.start((await f.replication.runs.find(id))?.policyId ?? 0);
  assert.notEqual((await f.replication.executions.find(next))?.status, "Skipped", "its lock is free");
  await f.replication.control.stop(next);
});

test("a long run goes on as a new one and stays one execution", async () => {
  const id = await f.start(await f.policy({ steps: 100, batchesPerStep: 3 }));
  const execution = await f.ended(id);
  assert.deepEqual([execution.status, execution.tasks.succeeded], ["Success", 300]);
  assert.equal((await deeds(f.database, "copied", id)).length, 300);
  const workflowId = execution.workflowId ?? "";
  await f.temporal.call((client) => client.workflow.getHandle(workflowId).result(), { timeoutMs: 20_000 });
  const last = await f.temporal.call((client) => client.workflow.getHandle(workflowId).describe());
  assert.notEqual(last.runId, execution.runId, "it continued as new");
  assert.equal(last.raw.workflowExecutionInfo?.firstRunId, execution.runId);
  const first = await f.temporal.call((client) => client.workflow.getHandle(workflowId, execution.runId ?? "").fetchHistory());
  assert.ok((first.events?.length ?? 0) < 2_000, `${first.events?.length} events`);
});

test("the temporal service shows what a run is about", async () => {
  const id = await f.start(await f.policy({ batchesPerStep: 1 }));
  const execution = await f.ended(id);
  const handle = await f.temporal.call(async (client) => client.workflow.getHandle(execution.workflowId ?? ""));
  await f.temporal.call(() => handle.result(), { timeoutMs: 10_000 });
  const described = await f.temporal.call(() => handle.describe());
  assert.match((await described.staticSummary()) ?? "", new RegExp(`^Replicates policy .* \\(execution ${id}\\)$`));
  assert.equal(described.memo?.["executionId"], id);
  const policyId = String((await f.replication.runs.find(id))?.policyId);
  // The other two are Temporal's own.
  const {
    BuildIds: _,
    TemporalChangeVersion: __,
    ...found
  } = Object.fromEntries(described.typedSearchAttributes.getAll().map(({ key, value }) => [key.name, value]));
  const expected = { PolicyId: policyId, SourceRegistry: "0", TargetRegistry: "0", TriggerKind: "manual", Outcome: "Success", Failed: 0 };
  assert.deepEqual(found, expected);
  assert.deepEqual(described.priority, { priorityKey: 2, fairnessKey: `policy ${policyId}`, fairnessWeight: 0 });
  const history = await f.temporal.call(() => handle.fetchHistory());
  const copy = history.events
    ?.map((event) => event.activityTaskScheduledEventAttributes)
    .find((scheduled) => scheduled?.activityType?.name === "copyReplicationBatch");
  assert.deepEqual([copy?.priority?.priorityKey, copy?.priority?.fairnessKey], [2, "target 0"]);
  assert.match(await currentDetails(handle), /Ended: \*\*Success\*\*/);
  assert.match(
    f.replication.control.workflowUrl(execution) ?? "",
    /^http:\/\/temporal\.test\/namespaces\/test-\w+\/workflows\/replication%2F\d+\/[\w-]+$/,
  );
});

/** What the workflow says of itself, as the Temporal UI asks for it. */
async function currentDetails(handle: WorkflowHandle): Promise<string> {
  return (await handle.query<{ currentDetails?: string }, []>("__temporal_workflow_metadata")).currentDetails ?? "";
}
