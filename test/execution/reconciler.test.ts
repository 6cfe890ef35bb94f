/** Executions that say running while their tasks or their run say otherwise, on a real Postgres and a real Temporal. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { ExecutionReconciler } from "../../src/execution/refresh/reconciler.ts";
import type { ReconcilePart } from "../../src/execution/refresh/reconciler.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { findClosedRun } from "../../src/temporal/closed-runs.ts";
import { quietLogger } from "../support/maintenance.ts";
import { ALL_SLOTS, openTestKv, seedExecutions, testRefresh } from "../support/refresh.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";
import { testNamespace } from "../support/temporal.ts";

test("open executions are marked when their tasks are done, ended when their run is closed, and left alone otherwise", async (t) => {
  const end = scope(t);
  const { database } = await testDatabase(end);
  const { temporal } = await testNamespace(end);
  const refresh = testRefresh({ kv: await openTestKv(end, "postgres", database), database, logger: quietLogger });
  const [executions, tasks] = [new ExecutionStore(database), new TaskStore(database)];

  /** No worker polls: a run is open until somebody closes it. */
  const startRun = async (workflowId: string): Promise<string> => {
    const handle = await temporal.call((client) => client.workflow.start("nothing", { workflowId, taskQueue: "nobody", args: [] }));
    return handle.firstExecutionRunId;
  };
  const open = async (workflowId: string, runId: string): Promise<number> => {
    const { id } = await executions.openForRun({ workflowId, runId }, { vendor: "REPLICATION", trigger: "manual" });
    await tasks.add(id, [{ key: "a" }]);
    await tasks.update(id, "a", { status: "Running", revision: 1 });
    await executions.completePlanning(id);
    await executions.settle([id]);
    return id;
  };
  const alive = await open("alive", await startRun("alive"));
  const terminated = await open("terminated", await startRun("terminated"));
  const unknown = await open("unknown", "no-such-run");
  const followed = await open("followed", await startRun("followed"));
  for (const workflowId of ["terminated", "followed"]) {
    await temporal.call((client) => client.workflow.getHandle(workflowId).terminate());
  }
  await startRun("followed");
  const [done = 0] = await seedExecutions(database, 1);
  // Its changes were taken for seen, and yet it is open: what a lost write leaves behind.
  await database.query("DELETE FROM task_changes");
  const [noted = 0] = await seedExecutions(database, 1, { vendor: "TUF", status: "Running" });

  const findRun = (workflowId: string, firstRunId: string, signal: AbortSignal) =>
    findClosedRun(temporal, { workflowId, firstRunId }, signal);
  const reconciler = new ExecutionReconciler({ database, executions, tasks, ...refresh, findClosedRun: findRun }, 0);
  const run = async (part: ReconcilePart): Promise<{ marked: number; ended: number }> => {
    const totals = { marked: 0, ended: 0 };
    for (let after: string | null = null; ;) {
      const step = await reconciler.step(part, { after, limit: 2, asideMs: 0 }, new AbortController().signal);
      totals.marked += step.marked;
      totals.ended += step.ended;
      if (step.next === null) return totals;
      after = step.next;
    }
  };
  assert.deepEqual(await run("notes"), { marked: 1, ended: 0 });
  assert.deepEqual(await run("runs"), { marked: 1, ended: 3 });
  const claims = await refresh.queue.claim(ALL_SLOTS, 100, 10_000);
  assert.deepEqual(claims.map(({ id }) => id).toSorted(), [done, noted].toSorted());

  assert.equal((await executions.find(alive))?.status, "Running");
  const told = async (id: number): Promise<string> => {
    const execution = await executions.find(id);
    const [task] = await tasks.list(id, { limit: 1 });
    return `${execution?.status}, task ${task?.status}: ${execution?.statusMessage}`;
  };
  assert.equal(await told(terminated), "Stopped, task Stopped: the run was closed without reporting: terminated");
  assert.equal(await told(unknown), "Error, task Error: the workflow service does not know the run");
  assert.equal(await told(followed), "Error, task Error: the run is over, another one followed it");
  assert.deepEqual(await run("runs"), { marked: 0, ended: 0 });
});
