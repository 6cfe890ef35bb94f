/** `slipway refresh reconcile` against a real worker: the workflow marks, ends and tries again, and the command tells it. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { REFRESH_USAGE, runRefresh } from "../../src/cli/refresh.ts";
import type { RefreshServices } from "../../src/cli/refresh.ts";
import { isSlipwayError } from "../../src/core/errors.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { ExecutionReconciler } from "../../src/execution/refresh/reconciler.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { findClosedRun } from "../../src/temporal/closed-runs.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { noKv, quietLogger, startMaintenance, tableCollection } from "../support/maintenance.ts";
import { ALL_SLOTS, openTestKv, seedExecutions, testRefresh } from "../support/refresh.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";

test("a reconciliation is started, followed to its end and told; what was stuck is not any more", async (t) => {
  const end = scope(t);
  const { database } = await testDatabase(end);
  const { temporal } = await testNamespace(end);
  const refresh = testRefresh({ kv: await openTestKv(end, "postgres", database), database, logger: quietLogger });
  const [executions, tasks] = [new ExecutionStore(database), new TaskStore(database)];

  const done = await seedExecutions(database, 700);
  await database.query("DELETE FROM task_changes");
  const [aside = 0] = await seedExecutions(database, 1, { vendor: "TUF" });
  await refresh.store.noteFailures([aside], "it breaks", 1);
  const { id: orphan } = await executions.openForRun({ workflowId: "gone", runId: "gone" }, { vendor: "WARM_UP", trigger: "manual" });
  await tasks.add(orphan, [{ key: "a" }]);
  await executions.completePlanning(orphan);

  const lines: string[] = [];
  const services: RefreshServices = {
    executions,
    tasks,
    starters: createMaintenanceStarters(temporal),
    ...refresh,
    view: () => Promise.resolve(null),
    print: (line) => void lines.push(line),
    signal: AbortSignal.timeout(60_000),
  };
  assert.equal(await runRefresh(["reconcile", "--detach"], services), 0);
  assert.deepEqual(lines.splice(0), ["started maintenance/execution-reconcile"]);
  const findRun = (workflowId: string, firstRunId: string, signal: AbortSignal) =>
    findClosedRun(temporal, { workflowId, firstRunId }, signal);
  const reconciler = new ExecutionReconciler({ database, executions, tasks, ...refresh, findClosedRun: findRun }, 0);
  const group = startMaintenance({
    database,
    temporal,
    dataDir: await tempDir(end),
    collection: tableCollection(database, 0),
    kv: noKv,
    reconciler,
  });
  end.after(() => group.close());
  assert.equal(await runRefresh(["reconcile"], services), 0, "joins the run that is active, or starts the next");
  assert.match(lines.splice(0).join("\n"), /ended: Success/);

  assert.equal((await executions.find(orphan))?.status, "Error");
  const claims = await refresh.queue.claim(ALL_SLOTS, 2_000, 60_000);
  const claimed = new Set(claims.map(({ id }) => id));
  assert.ok(
    [...done, aside].every((id) => claimed.has(id)),
    "what is done, and what was set aside, is marked",
  );
  assert.equal(await refresh.store.countSetAside(), 0);

  assert.equal(await runRefresh(["status"], services), 0);
  assert.match(lines.splice(0).join("\n"), /^the refresh does not run: .+\nREPLICATION: 700 wait/);
});

test("calls that make no sense are refused", async () => {
  const services = { signal: AbortSignal.abort() } as unknown as RefreshServices;
  for (const args of [[], ["burn"], ["reconcile", "--unknown"]]) {
    await assert.rejects(runRefresh(args, services), (error) => isSlipwayError(error, "BAD_REQUEST"), args.join(" "));
  }
  assert.match(REFRESH_USAGE, /--detach/);
});
