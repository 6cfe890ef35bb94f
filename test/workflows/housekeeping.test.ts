/** Collection, expiry and retention end to end: phases, dry run, stop, failure, schedules, and a worker killed in the middle. */
import { after, before, test } from "node:test";
import type { TestContext } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Housekeeper } from "../../activities/services.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import type { Database } from "../../src/db/pool.ts";
import type { Execution } from "../../src/execution/execution-store.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import type { TemporalConnection } from "../../src/temporal/connection.ts";
import { scheduleIds, workflowIds } from "../../src/temporal/ids.ts";
import type { MaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { maintenanceSchedules } from "../../src/temporal/schedules.ts";
import type { ChildSettings } from "../support/maintenance-child.ts";
import type { MaintenanceParts } from "../support/maintenance.ts";
import { createTrash, eventually, noKv, startMaintenance, tableCollection } from "../support/maintenance.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";
import type { TestTemporal } from "../support/temporal.ts";
import { testNamespace } from "../support/temporal.ts";

const CHILD = fileURLToPath(new URL("../support/maintenance-child.ts", import.meta.url));

let dataDir = "";
const cleanups: (() => Promise<void> | void)[] = [];
before(async () => {
  dataDir = await tempDir({ after: (fn) => cleanups.push(fn) });
});
after(async () => {
  for (const cleanup of cleanups) await cleanup();
});

interface Setup extends TestTemporal {
  readonly database: Database;
  readonly url: string;
  readonly starters: MaintenanceStarters;
  readonly executions: ExecutionStore;
  readonly tasks: TaskStore;
  readonly end: ReturnType<typeof scope>;
}

async function setup(t: TestContext): Promise<Setup> {
  const end = scope(t);
  const { database, url } = await testDatabase(end);
  const server = await testNamespace(end);
  const starters = createMaintenanceStarters(server.temporal);
  return { ...server, database, url, end, starters, executions: new ExecutionStore(database), tasks: new TaskStore(database) };
}

function work({ database, temporal, end }: Setup, parts: Partial<MaintenanceParts> = {}): void {
  const group = startMaintenance({ database, temporal, dataDir, collection: tableCollection(database, 0), kv: noKv, ...parts });
  end.after(() => group.close());
}

async function states(database: Database): Promise<Record<string, number>> {
  const result = await database.query<{ state: string; count: number }>("SELECT state, count(*) FROM trash GROUP BY state");
  return Object.fromEntries(result.rows.map((row) => [row.state, row.count]));
}

function finished(temporal: TemporalConnection, workflowId: string): Promise<unknown> {
  return temporal.call((client) => client.workflow.getHandle(workflowId).result(), { timeoutMs: 20_000 });
}

async function newest(executions: ExecutionStore, vendor: string): Promise<Execution> {
  const execution = (await executions.list({ vendor, limit: 1 }))[0];
  assert.ok(execution);
  return execution;
}

test("a collection goes through its phases in batches, and its execution tells what it did", async (t) => {
  const parts = await setup(t);
  const { database, starters, temporal, executions, tasks } = parts;
  await createTrash(database, { count: 450, state: "linked" });
  work(parts);
  const start = await starters.startGarbageCollection({ trigger: "manual" });
  assert.equal(start.outcome, "started");
  await finished(temporal, workflowIds.garbageCollection);

  assert.deepEqual(await states(database), { gone: 450 });
  const execution = await executions.findByRun({ workflowId: start.workflowId, runId: start.runId });
  assert.equal(execution?.status, "Success");
  assert.equal(execution.trigger, "manual");
  assert.deepEqual([execution.tasks.total, execution.tasks.succeeded], [4, 4]);
  const rows = await tasks.list(execution.id, { limit: 10 });
  assert.deepEqual(
    rows.map((row) => [row.key, row.status, row.extraAttrs["items"], row.extraAttrs["bytes"]]),
    [
      ["adopt", "Success", 0, 0],
      ["unlink", "Success", 450, 4_500],
      ["mark", "Success", 450, 4_500],
      ["sweep", "Success", 450, 4_500],
    ],
  );
  const progress = await starters.collectionProgress();
  assert.equal(progress?.phase, "done");
  const seen = await temporal.call((client) => client.workflow.getHandle(start.workflowId).describe());
  assert.deepEqual(seen.searchAttributes["Outcome"], ["Success"]);
});

test("a dry run changes nothing and counts all the same", async (t) => {
  const parts = await setup(t);
  const { database, starters, temporal, executions } = parts;
  await createTrash(database, { count: 30, state: "linked" });
  await createTrash(database, { count: 20, state: "unlinked" });
  work(parts);
  await starters.startGarbageCollection({ trigger: "manual", dryRun: true });
  await finished(temporal, workflowIds.garbageCollection);
  assert.deepEqual(await states(database), { linked: 30, unlinked: 20 });
  const progress = await starters.collectionProgress();
  assert.deepEqual([progress?.totals.unlink.items, progress?.totals.mark.items, progress?.totals.sweep.items], [30, 20, 0]);
  const execution = await newest(executions, "GARBAGE_COLLECTION");
  assert.equal(execution.status, "Success");
  assert.equal(execution.extraAttrs["dry_run"], true);
});

test("of many starts at once exactly one runs, and the others are told which", async (t) => {
  const parts = await setup(t);
  const { database, starters, temporal, executions } = parts;
  await createTrash(database, { count: 10, state: "linked" });
  const outcomes = await Promise.all(Array.from({ length: 20 }, () => starters.startGarbageCollection({ trigger: "manual" })));
  const started = outcomes.filter((row) => row.outcome === "started");
  assert.equal(started.length, 1);
  assert.ok(outcomes.every((row) => row.runId === started[0]?.runId));
  work(parts);
  await finished(temporal, workflowIds.garbageCollection);
  assert.equal((await executions.list({ vendor: "GARBAGE_COLLECTION", limit: 10 })).length, 1);
});

test("a collection that is stopped ends as Stopped; one that cannot go on ends as Error and says why", async (t) => {
  const parts = await setup(t);
  const { database, starters, temporal, executions } = parts;
  await createTrash(database, { count: 5_000, state: "linked" });
  const broken: Housekeeper = {
    ...tableCollection(database, 50),
    sweepMarked: () => Promise.reject(new SlipwayError("DENIED", { message: "the bucket refuses deletions" })),
  };
  work(parts, { collection: broken });
  await starters.startGarbageCollection({ trigger: "manual" });
  await eventually("work has begun", async () => ((await states(database))["unlinked"] ?? 0) > 0);
  assert.equal(await starters.stopGarbageCollection(), true);
  await assert.rejects(finished(temporal, workflowIds.garbageCollection));
  assert.equal((await newest(executions, "GARBAGE_COLLECTION")).status, "Stopped");

  await database.query("DELETE FROM trash WHERE state <> 'unlinked'");
  await starters.startGarbageCollection({ trigger: "manual" });
  await assert.rejects(finished(temporal, workflowIds.garbageCollection));
  const failed = await newest(executions, "GARBAGE_COLLECTION");
  assert.equal(failed.status, "Error");
  assert.equal(failed.statusMessage, "the bucket refuses deletions");
  assert.deepEqual([failed.tasks.succeeded, failed.tasks.failed], [3, 1]);
});

test("a schedule's tick starts the run by the same road, and leaves an active run alone", async (t) => {
  const parts = await setup(t);
  const { database, temporal, executions } = parts;
  await createTrash(database, { count: 250, state: "upload" });
  work(parts, { schedules: maintenanceSchedules({}) });
  const trigger = async (id: string): Promise<void> => {
    await eventually("the schedule exists", () =>
      temporal
        .call((client) => client.schedule.getHandle(id).describe())
        .then(
          () => true,
          () => false,
        ),
    );
    await temporal.call((client) => client.schedule.getHandle(id).trigger());
  };
  await trigger(scheduleIds.uploadExpiry);
  const execution = await eventually("the run is recorded", async () => (await executions.list({ vendor: "UPLOAD_EXPIRY", limit: 1 }))[0]);
  await finished(temporal, workflowIds.uploadExpiry);
  assert.deepEqual(await states(database), { expired: 250 });
  assert.equal(execution.trigger, "scheduled");
  assert.equal((await executions.find(execution.id))?.status, "Success");

  await database.query("UPDATE executions SET ended_at = now() - interval '3 days' WHERE id = $1", [execution.id]);
  await trigger(scheduleIds.executionRetention);
  await eventually("old executions are removed", async () => (await executions.find(execution.id)) === null);
});

test("a worker killed in the middle of a collection is followed by another that finishes it, each item handled once", async (t) => {
  const parts = await setup(t);
  const { address, namespace, database, url, starters, temporal, executions } = parts;
  await createTrash(database, { count: 3_000, state: "linked" });
  const settings: ChildSettings = { address, namespace, databaseUrl: url, dataDir, pauseMs: 60 };
  const victim = spawn(process.execPath, [CHILD, JSON.stringify(settings)], { stdio: ["ignore", "ignore", "inherit"] });
  parts.end.after(() => void victim.kill("SIGKILL"));
  const start = await starters.startGarbageCollection({ trigger: "manual" });
  await eventually("a third is unlinked", async () => ((await states(database))["unlinked"] ?? 0) >= 1_000, 20_000);
  victim.kill("SIGKILL");
  await once(victim, "exit");
  const left = await states(database);
  assert.ok((left["gone"] ?? 0) < 3_000, "killed before the end");

  work(parts);
  await finished(temporal, workflowIds.garbageCollection);
  assert.deepEqual(await states(database), { gone: 3_000 });
  const repeated = await database.query("SELECT 1 FROM trash WHERE changes <> 3");
  assert.equal(repeated.rowCount, 0);
  const all = await executions.list({ vendor: "GARBAGE_COLLECTION", limit: 10 });
  assert.deepEqual(
    all.map((row) => [row.runId, row.status, row.tasks.succeeded]),
    [[start.runId, "Success", 4]],
  );
});
