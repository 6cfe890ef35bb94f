/** Executions and their runs: adoption, abandoned rows, retention. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { pruneExecutions } from "../../src/execution/retention.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { testDatabase } from "../support/services.ts";

test("a run has one execution, however often its first activity runs", async (t) => {
  const { database } = await testDatabase(t);
  const executions = new ExecutionStore(database);
  const run = { workflowId: "maintenance/gc", runId: "run-1" };
  const opened = await Promise.all(
    Array.from({ length: 8 }, () =>
      executions.openForRun(run, { vendor: "GARBAGE_COLLECTION", trigger: "manual", extraAttrs: { dryRun: true } }),
    ),
  );
  assert.equal(new Set(opened.map((row) => row.id)).size, 1);
  assert.equal(opened[0]?.status, "Running");
  assert.equal((await executions.findByRun(run))?.id, opened[0]?.id);
});

test("the next run ends the execution that an earlier run of the same id left open", async (t) => {
  const { database } = await testDatabase(t);
  const executions = new ExecutionStore(database);
  const kind = { vendor: "GARBAGE_COLLECTION", trigger: "scheduled" } as const;
  const abandoned = await executions.openForRun({ workflowId: "gc", runId: "one" }, kind);
  const other = await executions.openForRun({ workflowId: "expiry", runId: "one" }, { ...kind, vendor: "UPLOAD_EXPIRY" });
  const waiting = await executions.create(kind, "gc");
  await executions.openForRun({ workflowId: "gc", runId: "two" }, kind);
  assert.equal((await executions.find(abandoned.id))?.status, "Error");
  assert.equal((await executions.find(other.id))?.status, "Running");
  assert.equal((await executions.find(waiting.id))?.status, "Pending", "a row whose run is still to be started is left alone");
});

test("a pending execution is adopted by one run only", async (t) => {
  const { database } = await testDatabase(t);
  const executions = new ExecutionStore(database);
  const { id } = await executions.create({ vendor: "REPLICATION", vendorId: 3, trigger: "manual" });
  const adopted = await executions.adopt(id, { workflowId: "replication/3", runId: "a" });
  assert.equal(adopted?.status, "Running");
  assert.equal((await executions.adopt(id, { workflowId: "replication/3", runId: "a" }))?.id, id, "the same run finds it again");
  assert.equal(await executions.adopt(id, { workflowId: "replication/3", runId: "b" }), null);
  await executions.end(id, "Stopped", "");
  assert.equal(await executions.adopt(id, { workflowId: "replication/3", runId: "a" }), null);
});

test("retention removes by count and by age, in batches, and never what is open", async (t) => {
  const { database } = await testDatabase(t);
  const executions = new ExecutionStore(database);
  const tasks = new TaskStore(database);
  const kind = { vendor: "REPLICATION", vendorId: 1, trigger: "manual" } as const;
  const open = await executions.create(kind);
  const ended: number[] = [];
  for (let index = 0; index < 10; index += 1) {
    const { id } = await executions.create(kind);
    await tasks.add(id, [{ key: "t" }]);
    await executions.end(id, "Success", "");
    ended.push(id);
  }
  const quiet = await executions.create({ ...kind, vendorId: 2 });
  await executions.end(quiet.id, "Success", "");
  const rule = { keep: 4, maxAgeMs: 3_600_000, limit: 4 };
  assert.equal(await pruneExecutions(database, rule), 4);
  assert.equal(await pruneExecutions(database, rule), 2);
  assert.equal(await pruneExecutions(database, rule), 0);
  const left = (await executions.list({ vendor: "REPLICATION", vendorId: 1, limit: 100 })).map((row) => row.id);
  assert.deepEqual(left, [...ended.slice(-4).toReversed(), open.id]);
  await database.query("UPDATE executions SET ended_at = now() - interval '2 hours' WHERE id = $1", [quiet.id]);
  assert.equal(await pruneExecutions(database, rule), 1);
  assert.equal(await executions.find(quiet.id), null);
  const orphans = await database.query<{ count: number }>(
    "SELECT count(*) FROM tasks WHERE execution_id NOT IN (SELECT id FROM executions)",
  );
  assert.equal(orphans.rows[0]?.count, 0);
});

test("retention of some vendors leaves the others alone", async (t) => {
  const { database } = await testDatabase(t);
  const executions = new ExecutionStore(database);
  for (const vendor of ["REPLICATION", "GARBAGE_COLLECTION", "REPLICATION", "GARBAGE_COLLECTION"]) {
    const { id } = await executions.create({ vendor, trigger: "manual" });
    await executions.end(id, "Success", "");
  }
  const rule = { keep: 1, maxAgeMs: 3_600_000, limit: 10 };
  assert.equal(await pruneExecutions(database, { ...rule, vendors: { only: ["REPLICATION"] } }), 1);
  assert.equal(await pruneExecutions(database, { ...rule, vendors: { only: ["REPLICATION"] } }), 0);
  assert.equal(await pruneExecutions(database, { ...rule, maxAgeMs: 0, vendors: { except: ["REPLICATION"] } }), 2);
  const left = await executions.list({ limit: 10 });
  assert.deepEqual(
    left.map(({ vendor }) => vendor),
    ["REPLICATION"],
  );
});
