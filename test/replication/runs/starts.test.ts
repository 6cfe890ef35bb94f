/** Who starts a run, and what becomes of a start while another run of the policy is active. Real processes, a real Temporal, a real Postgres. */
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { isSlipwayError } from "../../../src/core/errors.ts";
import type { Database } from "../../../src/db/pool.ts";
import type { Execution } from "../../../src/execution/execution-store.ts";
import { SKIPPED_TEXT } from "../../../src/replication/runs/replication-runs.ts";
import type { Started } from "../../../src/replication/runs/replication-runs.ts";
import { TemporalConnection } from "../../../src/temporal/connection.ts";
import { workflowIds } from "../../../src/temporal/ids.ts";
import { taskQueues } from "../../../src/temporal/queues.ts";
import { eventually } from "../../support/maintenance.ts";
import type { ChildSettings } from "../../support/replication-run-child.ts";
import type { RunningRuns, Script } from "../../support/replication-runs.ts";
import { createPolicy, createScriptTables, deeds, openRuns, startReplicationWorkers, writeScript } from "../../support/replication-runs.ts";
import type { PolicyOptions } from "../../support/replication-runs.ts";
import { scope } from "../../support/scope.ts";
import { testDatabase } from "../../support/services.ts";
import { testNamespace } from "../../support/temporal.ts";
import type { TestTemporal } from "../../support/temporal.ts";

const CHILD = fileURLToPath(new URL("../../support/replication-run-child.ts", import.meta.url));
const end = scope({ after });
let running: RunningRuns;
let service: TestTemporal;
let database: Database;
let databaseUrl = "";

before(async () => {
  ({ database, url: databaseUrl } = await testDatabase(end));
  service = await testNamespace(end);
  await createScriptTables(database);
  running = startReplicationWorkers({ database, temporal: service.temporal });
  end.after(() => running.group.close());
});

async function policyWith(script: Partial<Script>, options?: PolicyOptions): Promise<number> {
  const id = await createPolicy(database, options);
  await writeScript(database, id, script);
  return id;
}

function start(policyId: number): Promise<Started> {
  return running.replication.control.start({ policyId, trigger: "manual" });
}

async function find(executionId: number): Promise<Execution> {
  const found = await running.replication.executions.find(executionId);
  assert.ok(found);
  return found;
}

function ended(executionId: number): Promise<Execution> {
  return eventually(
    `execution ${executionId} ends`,
    async () => ((await find(executionId)).endedAt !== null ? find(executionId) : null),
    60_000,
  );
}

async function startsInChild(settings: Partial<ChildSettings>): Promise<Started[]> {
  const { address, namespace } = service;
  const all = { mode: "start", address, namespace, databaseUrl, ...settings };
  const child = spawn(process.execPath, [CHILD, JSON.stringify(all)], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  const [code] = (await once(child, "exit")) as [number | null];
  assert.equal(code, 0);
  return JSON.parse(output) as Started[];
}

test("of a hundred starts from several processes, ticks and retries among them, exactly one runs", async () => {
  const policyId = await policyWith({ steps: 1, batchesPerStep: 1, planError: "no" });
  const failed = await start(policyId);
  await ended(failed.executionId);
  await eventually("its workflow is closed", async () => {
    const described = await service.temporal.call((client) => client.workflow.getHandle(workflowIds.replication(policyId)).describe());
    return described.status.name !== "RUNNING";
  });
  await writeScript(database, policyId, { batchesPerStep: 1, copyMs: 20_000 });
  const atMs = Date.now() + 4_000;
  const children = Array.from({ length: 3 }, () => startsInChild({ policyId, starts: 25, atMs }));
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, atMs - Date.now())));
  const ticks = Array.from({ length: 10 }, (_, index) =>
    service.temporal.call((client) =>
      client.workflow.start("replicationTrigger", {
        workflowId: `tick/${policyId}/${index}`,
        taskQueue: taskQueues.replication,
        args: [{ policyId, trigger: "scheduled" }],
      }),
    ),
  );
  const retries = Array.from({ length: 15 }, () => running.replication.control.retry(failed.executionId));
  const started = [...(await Promise.all(children)).flat(), ...(await Promise.all(retries))];
  const handles = await Promise.all(ticks);
  for (const handle of handles) started.push((await service.temporal.call(() => handle.result(), { timeoutMs: 60_000 })) as Started);
  assert.equal(started.length, 100);
  assert.equal(new Set(started.map(({ executionId }) => executionId)).size, 100, "each start has an execution of its own");
  assert.deepEqual(started.filter(({ outcome }) => outcome === "started").length, 1, JSON.stringify(started.map(({ outcome }) => outcome)));
  const winner = started.find(({ outcome }) => outcome === "started")?.executionId ?? 0;
  for (const { executionId, outcome } of started) {
    if (executionId === winner) continue;
    assert.equal(outcome, "skipped");
    const skipped = await find(executionId);
    assert.deepEqual([skipped.status, skipped.statusMessage, skipped.extraAttrs["active_execution"]], ["Skipped", SKIPPED_TEXT, winner]);
  }
  const planned = await deeds(database, "plan");
  assert.equal(planned.filter((deed) => started.some(({ executionId }) => executionId === deed.execution_id)).length, 1);
  await running.replication.control.stop(winner);
});

test("a start at the moment when the run before is over in the books waits until its id is free", async () => {
  const policyId = await policyWith({ batchesPerStep: 1 });
  for (let round = 0; round < 4; round += 1) {
    const { executionId, outcome } = await start(policyId);
    assert.equal(outcome, "started");
    assert.equal((await ended(executionId)).status, "Success");
  }
});

test("queue-one keeps one waiting, joins the rest, and starts it when the active run closes", async () => {
  const policyId = await policyWith({ batchesPerStep: 1, copyMs: 3_000 }, { overlap: "queue-one" });
  const first = await start(policyId);
  assert.equal(first.outcome, "started");
  const others = await Promise.all(Array.from({ length: 5 }, () => start(policyId)));
  assert.deepEqual(others.map(({ outcome }) => outcome).toSorted(), ["joined", "joined", "joined", "joined", "queued"]);
  const waiting = new Set(others.map(({ executionId }) => executionId));
  assert.equal(waiting.size, 1, "all of them are the one that waits");
  const [queued = 0] = waiting;
  assert.equal((await find(queued)).status, "Pending");
  assert.equal((await running.replication.executions.list({ vendorId: policyId, limit: 10 })).length, 2, "the others left no rows");
  await ended(first.executionId);
  await writeScript(database, policyId, { batchesPerStep: 1 });
  assert.equal((await ended(queued)).status, "Success");
  assert.equal((await find(first.executionId)).status, "Success");
});

test("a waiting run can be stopped, and another one takes its place", async () => {
  const policyId = await policyWith({ batchesPerStep: 1, copyMs: 60_000 }, { overlap: "queue-one" });
  const active = await start(policyId);
  const queued = await start(policyId);
  await running.replication.control.stop(queued.executionId);
  assert.equal((await find(queued.executionId)).status, "Stopped");
  const another = await start(policyId);
  assert.equal(another.outcome, "queued");
  await running.replication.control.stop(another.executionId);
  await running.replication.control.stop(active.executionId);
});

test("runs of a policy that allows it go on side by side", async () => {
  const policyId = await policyWith({ batchesPerStep: 1, copyMs: 1_000 }, { overlap: "allow" });
  const started = await Promise.all([start(policyId), start(policyId), start(policyId)]);
  assert.deepEqual(new Set(started.map(({ outcome }) => outcome)), new Set(["started"]));
  for (const { executionId } of started) {
    const execution = await ended(executionId);
    assert.deepEqual([execution.status, execution.workflowId], ["Success", workflowIds.replicationRun(policyId, executionId)]);
  }
});

test("a dry run never stands in the way of a copy", async () => {
  const policyId = await policyWith({ batchesPerStep: 1, copyMs: 60_000 });
  const copy = await start(policyId);
  await writeScript(database, policyId, {});
  const survey = await running.replication.control.start({ policyId, trigger: "manual", kind: "dry-run" });
  assert.equal((await ended(survey.executionId)).workflowId, workflowIds.replicationSurvey(survey.executionId));
  await running.replication.control.stop(copy.executionId);
});

test("disabled and unknown policies are refused with Harbor's words, and leave no row", async () => {
  const disabled = await policyWith({}, { enabled: false });
  await assert.rejects(start(disabled), { code: "PRECONDITION_FAILED", message: `the policy ${disabled} is disabled` });
  await assert.rejects(start(4_711), { code: "NOT_FOUND", message: "replication policy 4711 not found" });
  assert.equal((await running.replication.executions.list({ vendorId: disabled, limit: 10 })).length, 0);
});

test("the same start key is the same run", async () => {
  const policyId = await policyWith({}, { overlap: "allow" });
  const request = { policyId, trigger: "scheduled", startKey: "tick one" } as const;
  const { control } = running.replication;
  const started = await Promise.all(Array.from({ length: 6 }, () => control.start(request)));
  assert.equal(new Set(started.map(({ executionId }) => executionId)).size, 1);
  await ended(started[0]?.executionId ?? 0);
  assert.equal((await control.start(request)).executionId, started[0]?.executionId, "also when it is over");
  assert.equal((await deeds(database, "plan", started[0]?.executionId)).length, 1);
});

test("while the workflow service is away a start is kept and started later, and a stop works at once", async () => {
  const policyId = await policyWith({ batchesPerStep: 1 });
  const away = new TemporalConnection({ address: "127.0.0.1:9", namespace: "none", callTimeoutMs: 500 });
  end.after(() => away.close());
  const { control } = openRuns(database, away);
  const refused = await control.start({ policyId, trigger: "manual" }).catch((error: unknown) => error);
  assert.ok(isSlipwayError(refused, "TEMPORAL_UNAVAILABLE"));
  const { executionId } = refused.detail as { executionId: number };
  assert.equal((await find(executionId)).status, "Pending");
  const second = (await control.start({ policyId, trigger: "manual" }).catch((error: unknown) => error)) as {
    detail: { executionId: number };
  };
  await control.stop(second.detail.executionId);
  assert.equal((await find(second.detail.executionId)).status, "Stopped");
  const pending = await running.replication.books.pending(executionId);
  assert.ok(pending);
  await running.replication.control.beginPending(pending);
  assert.equal((await ended(executionId)).status, "Success");
});

test("a stop reaches the copies although the workflow service cannot be told", async () => {
  const policyId = await policyWith({ batchesPerStep: 2, copyMs: 60_000 });
  const { executionId } = await start(policyId);
  await eventually("copies go on", async () => (await deeds(database, "copy", executionId)).length === 2);
  const away = new TemporalConnection({ address: "127.0.0.1:9", namespace: "none", callTimeoutMs: 300 });
  end.after(() => away.close());
  await openRuns(database, away).control.stop(executionId, "admin");
  assert.equal((await find(executionId)).status, "Stopped");
  await eventually("they were let go", async () => (await deeds(database, "cancelled", executionId)).length === 2, 5_000);
  await eventually("the workflow ends by itself", async () => {
    const described = await service.temporal.call((client) => client.workflow.getHandle(workflowIds.replication(policyId)).describe());
    return described.status.name !== "RUNNING";
  });
});

test("a retry takes what failed, a run that failed before it had items is tried as a whole", async () => {
  const { control, runs } = running.replication;
  const policyId = await policyWith({ batchesPerStep: 2, copyError: "DENIED" }, { overlap: "allow" });
  const failed = await start(policyId);
  await assert.rejects(control.retry(4_711), { code: "NOT_FOUND" });
  await ended(failed.executionId);
  await writeScript(database, policyId, { batchesPerStep: 1 });
  const retry = await control.retry(failed.executionId, "admin");
  assert.equal((await runs.find(retry.executionId))?.retryOf, failed.executionId);
  assert.equal((await ended(retry.executionId)).extraAttrs["operator"], "admin");
  await assert.rejects(control.retry(retry.executionId), { code: "PRECONDITION_FAILED" });
  await writeScript(database, policyId, { planError: "no" });
  const unplanned = await start(policyId);
  await ended(unplanned.executionId);
  await writeScript(database, policyId, {});
  const whole = await control.retry(unplanned.executionId);
  assert.equal((await runs.find(whole.executionId))?.retryOf, null);
});
