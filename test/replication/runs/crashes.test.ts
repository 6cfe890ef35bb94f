/** What is left when a worker dies: runs go on with another one, locks are free, and the reconciler mends the rest. */
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Database } from "../../../src/db/pool.ts";
import type { Execution } from "../../../src/execution/execution-store.ts";
import type { Replication } from "../../../src/replication/open-replication.ts";
import { Reconciler } from "../../../src/replication/runs/reconciler.ts";
import type { TaskDraft } from "../../../src/replication/plan/item.ts";
import type { ReplicationWorkflows } from "../../../src/temporal/replication.ts";
import { eventually, testLogger } from "../../support/maintenance.ts";
import { createPolicy, createScriptTables, deeds, openRuns, writeScript } from "../../support/replication-runs.ts";
import type { PolicyOptions, Script } from "../../support/replication-runs.ts";
import { scope } from "../../support/scope.ts";
import { testDatabase } from "../../support/services.ts";
import { testNamespace } from "../../support/temporal.ts";
import type { TestTemporal } from "../../support/temporal.ts";

const CHILD = fileURLToPath(new URL("../../support/replication-run-child.ts", import.meta.url));
const end = scope({ after });
let service: TestTemporal;
let database: Database;
let databaseUrl = "";
let replication: Replication;
let reconciler: Reconciler;

before(async () => {
  ({ database, url: databaseUrl } = await testDatabase(end));
  service = await testNamespace(end);
  await createScriptTables(database);
  replication = openRuns(database, service.temporal);
  reconciler = new Reconciler({
    ...replication,
    workflows: replication.workflows as ReplicationWorkflows,
    starter: replication.control,
    schedules: () => Promise.resolve(0),
    uploads: () => Promise.resolve(0),
    eventMaxAgeMs: 3_600_000,
    logger: testLogger,
    graceMs: 0,
  });
});

/** Keeps the locks of a statement; whoever wants them waits until they are released. */
async function hold(sql: string) {
  const free = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<number>();
  const holding = database.transaction(async (tx) => {
    await tx.query(sql);
    const { rows } = await tx.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    begun.resolve(rows[0]?.pid ?? 0);
    await free.promise;
  });
  const pid = await begun.promise;
  return {
    isWaitedFor: async (): Promise<boolean> => {
      const { rowCount } = await database.query("SELECT 1 FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", [pid]);
      return (rowCount ?? 0) > 0;
    },
    release: async (): Promise<void> => {
      free.resolve();
      await holding;
    },
  };
}

function stray(key: string): TaskDraft {
  const place = { src_resource: key, dst_resource: key, src_repository: key, dst_repository: key };
  const rest = { destination: 0, target_registry_id: 0, items: 1, target_empty: false } as const;
  const attrs = { operation: "copy", resource_type: "image", ...place, ...rest } as const;
  return { key, attrs, items: [{ action: "copy", tag: "v1", digest: null }] };
}

interface Worker {
  readonly child: ChildProcess;
  kill(): Promise<void>;
}

function work(): Worker {
  const { address, namespace } = service;
  const child = spawn(process.execPath, [CHILD, JSON.stringify({ mode: "work", address, namespace, databaseUrl })], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const exited = once(child, "exit");
  const kill = async (): Promise<void> => {
    child.kill("SIGKILL");
    await exited;
  };
  end.after(kill);
  return { child, kill };
}

async function start(script: Partial<Script>, options?: PolicyOptions): Promise<{ policyId: number; executionId: number }> {
  const policyId = await createPolicy(database, options);
  await writeScript(database, policyId, script);
  const { executionId } = await replication.control.start({ policyId, trigger: "manual" });
  return { policyId, executionId };
}

async function find(executionId: number): Promise<Execution> {
  const found = await replication.executions.find(executionId);
  assert.ok(found);
  return found;
}

function ended(executionId: number): Promise<Execution> {
  return eventually(
    `execution ${executionId} ends`,
    async () => ((await find(executionId)).endedAt !== null ? find(executionId) : null),
    90_000,
  );
}

const did = (deed: string, executionId: number, least: number): Promise<unknown> =>
  eventually(`${deed} of ${executionId}`, async () => (await deeds(database, deed, executionId)).length >= least, 60_000);

test("runs whose worker is killed while it plans and while it copies go on with the next one, each once", async () => {
  const first = work();
  const planning = await start({ steps: 2, batchesPerStep: 2, stepMs: 2_500 });
  const copying = await start({ steps: 1, batchesPerStep: 3, copyMs: 3_000 });
  await Promise.all([did("plan", planning.executionId, 1), did("copy", copying.executionId, 3)]);
  await first.kill();
  const second = work();
  for (const [{ executionId }, tasks] of [
    [planning, 4],
    [copying, 3],
  ] as const) {
    const execution = await ended(executionId);
    assert.deepEqual([execution.status, execution.tasks.total, execution.tasks.succeeded], ["Success", tasks, tasks]);
    const copied = await deeds(database, "copied", executionId);
    assert.equal(new Set(copied.map((deed) => deed.tasks?.join())).size, tasks);
    assert.deepEqual(new Set(copied.map((deed) => deed.pid)), new Set([second.child.pid]));
  }
  const { rowCount } = await database.query("SELECT 1 FROM replication_items WHERE execution_id = $1", [planning.executionId]);
  assert.equal(rowCount, 4, "a repeated step adds nothing twice");
  await second.kill();
});

test("a worker killed again and again, at any moment, leaves no lock and no execution behind", async () => {
  const { policyId, executionId } = await start({ steps: 3, batchesPerStep: 3, copyMs: 150, stepMs: 200 }, { overlap: "queue-one" });
  const next = await replication.control.start({ policyId, trigger: "manual" });
  assert.equal(next.outcome, "queued");
  for (const pause of [1_500, 2_000, 2_600]) {
    const worker = work();
    await new Promise((resolve) => setTimeout(resolve, pause));
    await worker.kill();
  }
  const last = work();
  const execution = await ended(executionId);
  assert.deepEqual([execution.status, execution.tasks.succeeded], ["Success", 9]);
  assert.equal((await ended(next.executionId)).status, "Success", "the one that waited was started");
  const again = await replication.control.start({ policyId, trigger: "manual" });
  assert.equal((await ended(again.executionId)).status, "Success");
  await last.kill();
});

test("a worker that is killed while it closes the books leaves one that is closed once", async () => {
  const worker = work();
  const { policyId, executionId } = await start({ batchesPerStep: 2, copyMs: 1_500 }, { overlap: "queue-one" });
  await did("copy", executionId, 2);
  const waiting = await replication.control.start({ policyId, trigger: "manual" });
  assert.equal(waiting.outcome, "queued");
  await database.query(
    "CREATE FUNCTION wait_in_closing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END'",
  );
  await database.query(
    `CREATE TRIGGER wait_in_closing BEFORE UPDATE OF planned_at ON executions FOR EACH ROW WHEN (OLD.id = ${executionId}) EXECUTE FUNCTION wait_in_closing()`,
  );
  const held = await hold("SELECT pg_advisory_xact_lock(4711)");
  await did("copied", executionId, 2);
  await eventually("the books are being closed", held.isWaitedFor, 30_000);
  await worker.kill();
  await held.release();
  const second = work();
  const execution = await ended(executionId);
  assert.deepEqual([execution.status, execution.tasks.total, execution.tasks.succeeded], ["Success", 2, 2]);
  assert.equal((await deeds(database, "copied", executionId)).length, 2);
  assert.equal((await ended(waiting.executionId)).status, "Success", "what waited for it was started");
  await second.kill();
});

test("a task that was planned while its run was being stopped is not left open", async () => {
  const { executionId } = await start({});
  const held = await hold(`UPDATE executions SET status = 'Stopped', ended_at = now() WHERE id = ${executionId}`);
  const planning = replication.items.plan(executionId, [stray("late")]);
  await eventually("planning waits for the stop", held.isWaitedFor, 30_000);
  await held.release();
  assert.deepEqual(await planning, []);
  // As an earlier version left it.
  await database.query("INSERT INTO tasks (execution_id, key) VALUES ($1, 'stray')", [executionId]);
  const report = await reconciler.run(AbortSignal.timeout(60_000));
  assert.deepEqual([report.ended, report.problems], [1, 0]);
  const { rows } = await database.query("SELECT status FROM tasks WHERE execution_id = $1", [executionId]);
  assert.deepEqual(rows, [{ status: "Stopped" }]);
  assert.equal((await reconciler.run(AbortSignal.timeout(60_000))).ended, 0);
});

test("runs whose workflow is gone end with the reason, and those that waited for them begin", async () => {
  const { policyId, executionId } = await start({ batchesPerStep: 1, copyMs: 60_000 }, { overlap: "queue-one" });
  const worker = work();
  await did("copy", executionId, 1);
  const waiting = await replication.control.start({ policyId, trigger: "manual" });
  assert.equal(waiting.outcome, "queued");
  await worker.kill();
  const { workflowId } = await find(executionId);
  await service.temporal.call((client) => client.workflow.getHandle(workflowId ?? "").terminate("an operator did"));
  const report = await reconciler.run(AbortSignal.timeout(60_000));
  assert.deepEqual([report.ended, report.dequeued, report.problems], [1, 1, 0]);
  const execution = await find(executionId);
  assert.deepEqual(
    [execution.status, execution.statusMessage, execution.tasks.failed],
    ["Error", "the run ended without reporting (its workflow is terminated)", 1],
  );
  await writeScript(database, policyId, { batchesPerStep: 1 });
  const second = work();
  assert.equal((await ended(waiting.executionId)).status, "Success");
  await second.kill();
});

test("lost starts are started, those of deleted policies end, stops that did not arrive arrive", async () => {
  const policyId = await createPolicy(database);
  const draft = { trigger: "manual", kind: "copy", force: false, retryOf: null, operator: "", startKey: null } as const;
  const stopped = await start({ batchesPerStep: 1, copyMs: 60_000 });
  const worker = work();
  await did("copy", stopped.executionId, 1);
  await worker.kill();
  const lost = await replication.books.create({ ...draft, policyId });
  const gone = await replication.books.create({ ...draft, policyId: 4_711 });
  await replication.books.stop(stopped.executionId, "stopped");
  const report = await reconciler.run(AbortSignal.timeout(60_000));
  assert.deepEqual([report.started, report.cancelled, report.problems], [2, 1, 0]);
  assert.deepEqual([(await find(gone)).status, (await find(gone)).statusMessage], ["Stopped", "its policy was deleted before it started"]);
  const second = work();
  assert.equal((await ended(lost)).status, "Success");
  await eventually(
    "the stopped workflow has closed",
    async () =>
      !(
        await replication.workflows?.state({
          workflowId: `replication/${stopped.policyId}`,
          runId: (await find(stopped.executionId)).runId ?? "",
        })
      )?.open,
    30_000,
  );
  await second.kill();
});
