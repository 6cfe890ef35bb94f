/** Every rule by which tasks decide about their execution, on a real Postgres. */
import { test } from "node:test";
import assert from "node:assert/strict";
import pg from "pg";
import type { Database } from "../../src/db/pool.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import type { ExecutionStatus, TaskStatus } from "../../src/execution/plan/status.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { seedExecutions } from "../support/refresh.ts";
import { testDatabase } from "../support/services.ts";

interface Setup {
  readonly database: Database;
  readonly executions: ExecutionStore;
  readonly tasks: TaskStore;
}

type TaskState = TaskStatus | "Waiting";

async function execution({ executions, tasks }: Setup, states: readonly TaskState[], planned: boolean): Promise<number> {
  const { id } = await executions.create({ vendor: "REPLICATION", vendorId: 7, trigger: "manual" });
  await tasks.add(
    id,
    states.map((_, index) => ({ key: `t${index}` })),
  );
  for (const [index, state] of states.entries()) {
    if (state === "Pending") continue;
    const retryAt = state === "Waiting" ? new Date(Date.now() + 60_000) : null;
    assert.ok(await tasks.update(id, `t${index}`, { status: state === "Waiting" ? "Error" : state, revision: 1, retryAt }));
  }
  if (planned) await executions.completePlanning(id);
  return id;
}

test("executions are settled from their tasks", async (t) => {
  const { database } = await testDatabase(t);
  const setup: Setup = { database, executions: new ExecutionStore(database), tasks: new TaskStore(database) };
  const { executions, tasks } = setup;

  const table: { states: TaskState[]; planned: boolean; status: ExecutionStatus; why: string }[] = [
    { states: ["Success", "Pending"], planned: true, status: "Running", why: "a pending task keeps it running" },
    { states: ["Success", "Scheduled"], planned: true, status: "Running", why: "a scheduled task keeps it running" },
    { states: ["Error", "Running"], planned: true, status: "Running", why: "a running task comes before a failed one" },
    { states: ["Success", "Error", "Stopped"], planned: true, status: "Error", why: "a failed task comes before a stopped one" },
    { states: ["Success", "Stopped"], planned: true, status: "Stopped", why: "a stopped task comes before successes" },
    { states: ["Success", "Success"], planned: true, status: "Success", why: "only successes succeed" },
    { states: ["Success", "Waiting"], planned: true, status: "Running", why: "a task that waits for its retry is open, never failed" },
    { states: ["Success", "Success"], planned: false, status: "Running", why: "unfinished planning keeps it running" },
    { states: ["Error"], planned: false, status: "Running", why: "a failure during planning does not end it" },
  ];
  for (const row of table) {
    await t.test(row.why, async () => {
      const id = await execution(setup, row.states, row.planned);
      await executions.settle([id]);
      const settled = await executions.find(id);
      assert.equal(settled?.status, row.status);
      assert.equal(settled.endedAt !== null, row.status !== "Running");
      const counts = settled.tasks;
      assert.equal(counts.total, row.states.length);
      assert.equal(counts.pending + counts.running + counts.waiting + counts.failed + counts.stopped + counts.succeeded, counts.total);
      assert.equal(counts.waiting, row.states.filter((state) => state === "Waiting").length);
    });
  }

  await t.test("without tasks the status stays as it was set", async () => {
    const { id } = await executions.create({ vendor: "REPLICATION", trigger: "manual" });
    assert.deepEqual(await executions.settle([id]), []);
    assert.equal((await executions.find(id))?.status, "Pending");
  });

  await t.test("an empty plan succeeds at once, and refuses tasks from then on", async () => {
    const { id } = await executions.create({ vendor: "REPLICATION", trigger: "manual" });
    assert.equal((await executions.completePlanning(id))?.status, "Success");
    assert.equal(await tasks.add(id, [{ key: "late" }]), 0);
    assert.equal(await executions.completePlanning(id), null);
  });

  await t.test("only changed rows are written and returned", async () => {
    const changed = await execution(setup, ["Success"], true);
    const same = await execution(setup, ["Success"], true);
    await executions.settle([same]);
    const before = await executions.find(same);
    const returned = await executions.settle([changed, same]);
    assert.deepEqual(
      returned.map((row) => row.id),
      [changed],
    );
    assert.equal((await executions.find(same))?.revision, before?.revision);
    assert.deepEqual(await executions.settle([changed, same]), []);
  });

  await t.test("the end is the end of the last task, and the start is that of the first", async () => {
    const id = await execution(setup, ["Success", "Success"], true);
    await executions.settle([id]);
    const settled = await executions.find(id);
    const rows = await tasks.list(id, { limit: 10 });
    assert.equal(settled?.endedAt?.getTime(), Math.max(...rows.map((row) => row.endedAt?.getTime() ?? 0)));
    assert.equal(settled.startedAt?.getTime(), Math.min(...rows.map((row) => row.startedAt?.getTime() ?? Infinity)));
  });

  await t.test("a final execution does not become open again because a task is tried once more", async () => {
    const id = await execution(setup, ["Error", "Success"], true);
    await executions.settle([id]);
    assert.ok(await tasks.update(id, "t0", { status: "Running", revision: 2 }));
    await executions.settle([id]);
    const during = await executions.find(id);
    assert.equal(during?.status, "Error");
    assert.notEqual(during.endedAt, null);
    assert.ok(await tasks.update(id, "t0", { status: "Success", revision: 2 }));
    await executions.settle([id]);
    assert.equal((await executions.find(id))?.status, "Success", "but the final state follows the late success");
  });

  await t.test("an execution that was stopped by decision stays stopped, whatever its tasks say", async () => {
    const id = await execution(setup, ["Success", "Running"], true);
    assert.equal((await executions.end(id, "Stopped", "stopped by admin"))?.status, "Stopped");
    assert.equal(await executions.end(id, "Error", "too late"), null);
    await tasks.update(id, "t1", { status: "Success", revision: 1 });
    await executions.settle([id]);
    const settled = await executions.find(id);
    assert.equal(settled?.status, "Stopped");
    assert.equal(settled.tasks.succeeded, 2);
  });

  await t.test("reopening makes a final execution open for more tasks", async () => {
    const id = await execution(setup, ["Error"], true);
    await executions.settle([id]);
    assert.equal((await executions.reopen(id))?.endedAt, null);
    assert.equal(await executions.reopen(id), null);
    assert.equal(await tasks.add(id, [{ key: "again" }]), 1);
  });

  await t.test("a paused execution stays paused while tasks are open", async () => {
    const id = await execution(setup, ["Success", "Pending"], true);
    await database.query("UPDATE executions SET status = 'Paused' WHERE id = $1", [id]);
    await executions.settle([id]);
    assert.equal((await executions.find(id))?.status, "Paused");
  });

  await t.test("settlements and task changes that cross each other lose nothing", async () => {
    const id = await execution(
      setup,
      Array.from({ length: 40 }, (): TaskState => "Running"),
      true,
    );
    const workers = Array.from({ length: 4 }, async (_, worker) => {
      for (let index = worker; index < 40; index += 4) {
        await tasks.update(id, `t${index}`, { status: index === 13 ? "Error" : "Success", revision: 1 });
        await executions.settle([id]);
      }
    });
    await Promise.all(workers);
    const settled = await executions.find(id);
    assert.equal(settled?.status, "Error");
    assert.deepEqual([settled.tasks.succeeded, settled.tasks.failed, settled.tasks.running], [39, 1, 0]);
    assert.deepEqual(await executions.listUnapplied({ olderThanMs: -1_000, limit: 1_000 }).then((ids) => ids.includes(id)), false);
  });
});

test("task changes are accepted in order only", async (t) => {
  const { database } = await testDatabase(t);
  const executions = new ExecutionStore(database);
  const tasks = new TaskStore(database);
  const { id } = await executions.create({ vendor: "REPLICATION", trigger: "event" });
  const state = async (): Promise<string> => {
    const task = (await tasks.list(id, { limit: 1 }))[0];
    return `${task?.status} r${task?.statusRevision} x${task?.runCount}`;
  };

  assert.equal(await tasks.add(id, [{ key: "a" }, { key: "b" }]), 2);
  assert.equal(await tasks.add(id, [{ key: "a" }]), 0, "adding again adds nothing");
  assert.ok(await tasks.update(id, "a", { status: "Running", revision: 1 }));
  assert.equal(await state(), "Running r1 x1");
  assert.equal(await tasks.update(id, "a", { status: "Scheduled", revision: 1 }), false, "no step back within an attempt");
  assert.ok(await tasks.update(id, "a", { status: "Error", revision: 1, retryAt: new Date() }));
  assert.equal(await tasks.update(id, "a", { status: "Success", revision: 1 }), false, "no second final state of one attempt");
  assert.ok(await tasks.update(id, "a", { status: "Running", revision: 2 }));
  assert.equal(await state(), "Running r2 x2");
  assert.equal(await tasks.update(id, "a", { status: "Success", revision: 1 }), false, "no news of an older attempt");
  const task = (await tasks.list(id, { limit: 1 }))[0];
  assert.equal(task?.retryAt, null);
  assert.equal(task.endedAt, null);
  assert.deepEqual(await executions.listUnapplied({ olderThanMs: -1_000, limit: 10 }), [id]);
  await executions.settle([id]);
  assert.deepEqual(await executions.listUnapplied({ olderThanMs: -1_000, limit: 10 }), []);
  await tasks.update(id, "a", { status: "Success", revision: 2 });
  assert.deepEqual(await executions.listUnapplied({ olderThanMs: -1_000, limit: 10 }), [id], "every change is seen by the sweep");
});

test("a session that began with one row does not compare each with each when many follow", async (t) => {
  const { database, url } = await testDatabase(t);
  const ids = await seedExecutions(database, 1);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const plans: string[] = [];
  client.on("notice", ({ message }) => plans.push(message ?? ""));
  try {
    await client.query("LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_level = notice");
    await client.query("SET auto_explain.log_nested_statements = on");
    await client.query("UPDATE tasks SET status = 'Error' WHERE execution_id = ANY ($1)", [ids]);
    await client.query("SELECT id FROM settle_executions($1)", [ids]);
  } finally {
    await client.end();
  }
  const kept = plans.filter((plan) => plan.includes("Named Tuplestore Scan"));
  assert.equal(kept.length, 5, "one of the trigger of tasks, four of those of executions");
  for (const plan of kept) assert.doesNotMatch(plan, /Nested Loop/);
});
