/** The refresh over both drivers and a real Postgres: batches, events, poison, lost marks, trouble. */
import { test } from "node:test";
import type { TestContext } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { SlipwayError } from "../../src/core/errors.ts";
import type { Database } from "../../src/db/pool.ts";
import type { Refresh } from "../../src/execution/refresh/open-refresh.ts";
import type { Holding } from "../../src/execution/refresh/refresher.ts";
import type { ExecutionChange } from "../../src/execution/refresh/execution-hooks.ts";
import { Outbox } from "../../src/catalog/outbox.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import type { Kv } from "../../src/kv/kv.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { eventually, quietLogger } from "../support/maintenance.ts";
import {
  ALL_SLOTS,
  countByStatus,
  openTestKv,
  recordingLogger,
  seedExecutions,
  testPrefix,
  testRefresh,
  toldChanges,
} from "../support/refresh.ts";
import { ownRedis, stopRedis } from "../support/own-redis.ts";
import type { RefreshChildSettings } from "../support/refresh-child.ts";
import { scope } from "../support/scope.ts";
import { missingRedis, testDatabase, testRedisUrl } from "../support/services.ts";

const CHILD = fileURLToPath(new URL("../support/refresh-child.ts", import.meta.url));

interface Setup {
  readonly database: Database;
  readonly url: string;
  readonly kv: Kv;
  readonly prefix: string;
  readonly refresh: Refresh;
  readonly logger: ReturnType<typeof recordingLogger>;
}

async function setup(t: TestContext, driver: string, settings = {}): Promise<Setup> {
  const end = scope(t);
  const { database, url } = await testDatabase(end);
  const prefix = testPrefix();
  const kv = await openTestKv(end, driver, database, prefix);
  const logger = recordingLogger();
  return { database, url, kv, prefix, logger, refresh: testRefresh({ kv, database, logger, settings }) };
}

/** Holds slots until the test ends. */
function hold(t: Pick<TestContext, "after">, { refresher }: Pick<Refresh, "refresher">, share: Partial<Holding> = {}): () => Promise<void> {
  const stop = new AbortController();
  const running = refresher.hold({ slots: ALL_SLOTS, shard: { id: 0, total: 1 }, sweeps: false, ...share }, stop.signal);
  const end = async (): Promise<void> => {
    stop.abort();
    await running;
  };
  t.after(end);
  return end;
}

async function settledAll(database: Database, count: number): Promise<void> {
  await eventually("everything is refreshed", async () => (await countByStatus(database))["Success"] === count, 30_000);
}

for (const driver of ["redis", "postgres"]) {
  test(`${driver}: marked executions are refreshed in batches of one statement, and each change is told once`, async (t) => {
    const { database, refresh, logger } = await setup(t, driver);
    const ids = await seedExecutions(database, 2_500);
    await refresh.marker.markAll(ids.map((id) => ({ id, vendor: "REPLICATION" })));
    await refresh.marker.markAll(ids.slice(0, 100).map((id) => ({ id, vendor: "REPLICATION" })));
    assert.equal(
      (await refresh.queue.states()).reduce((sum, state) => sum + state.depth, 0),
      2_500,
    );
    const end = hold(t, refresh);
    await settledAll(database, 2_500);
    await eventually("the pass is told", async () => logger.lines.some(({ message }) => message.includes("done,")));
    await end();
    assert.equal(refresh.counters.statements, 3);
    assert.deepEqual(refresh.counters.byVendor.get("REPLICATION"), { processed: 2_500, changed: 2_500, failed: 0 });
    const { counts, sum } = refresh.counters.lagSeconds;
    assert.equal(
      counts.reduce((total, count) => total + count, 0),
      2_500,
    );
    assert.ok(sum > 0 && sum < 2_500 * 30, `the lag is that of these marks: ${sum / 2_500} s on average`);
    assert.equal(refresh.queue.expiries, 0);
    assert.deepEqual(await toldChanges(database), ids.map((id) => `${id} Success`).toSorted());
    const { rows } = await database.query<{ count: number }>("SELECT count(*) AS count FROM task_changes");
    assert.equal(rows[0]?.count, 0);
    assert.deepEqual(
      logger.lines.filter(({ level }) => level === "info").map(({ message }) => message),
      [
        "instance 0/1: found 2500 executions in queue, will process assigned subset",
        "instance 0/1: refresh outdate execution status done, 2500 succeed, 0 failed, 0 skipped (assigned to other instances)",
      ],
    );
  });

  test(`${driver}: two instances share the work by slots, and say what they left to each other`, async (t) => {
    const { database, kv, refresh, logger } = await setup(t, driver, { batch: 200 });
    const other = testRefresh({ kv, database, logger: quietLogger, settings: { batch: 200 } });
    const ids = await seedExecutions(database, 1_280);
    await refresh.marker.markAll(ids.map((id) => ({ id, vendor: "REPLICATION" })));
    const half = (rest: number): number[] => ALL_SLOTS.filter((slot) => slot % 2 === rest);
    const ends = [
      hold(t, refresh, { slots: half(0), shard: { id: 0, total: 2 } }),
      hold(t, other, { slots: half(1), shard: { id: 1, total: 2 } }),
    ];
    await settledAll(database, 1_280);
    await eventually("the pass is told", async () => logger.lines.some(({ message }) => message.includes("done,")));
    for (const end of ends) await end();
    assert.equal(refresh.counters.byVendor.get("REPLICATION")?.processed, 640);
    assert.equal(other.counters.byVendor.get("REPLICATION")?.processed, 640);
    assert.match(
      logger.lines.find(({ message }) => message.includes("done,"))?.message ?? "",
      /^instance 0\/2: refresh outdate execution status done, 640 succeed, 0 failed, \d+ skipped \(assigned to other instances\)$/,
    );
  });

  test(`${driver}: a flood of one vendor does not delay another, and urgent ones go first`, async (t) => {
    const { database, refresh } = await setup(t, driver, { batch: 64 });
    const flood = await seedExecutions(database, 2_000);
    await refresh.marker.markAll(flood.map((id) => ({ id, vendor: "REPLICATION" })));
    const [late] = flood.slice(-1);
    const others = await seedExecutions(database, 20, { vendor: "TUF" });
    await refresh.marker.markAll(others.map((id) => ({ id, vendor: "TUF" })));
    await refresh.marker.asyncRefreshStatus(late ?? 0, "REPLICATION", { stopped: true });
    const first = await refresh.queue.claim(ALL_SLOTS, 64 * 8, 10_000);
    assert.equal(first.filter(({ vendor }) => vendor === "TUF").length, 20);
    assert.ok(first.some(({ id }) => id === late));
    await refresh.queue.extend(first, 0);
  });

  test(`${driver}: what a lost mark was about is found by the sweep, and a mark that is there is not made again`, async (t) => {
    const { database, refresh } = await setup(t, driver);
    const ids = await seedExecutions(database, 300);
    await refresh.marker.markAll(ids.slice(0, 100).map((id) => ({ id, vendor: "REPLICATION" })));
    const { signal } = new AbortController();
    assert.deepEqual(await refresh.sweeper.sweep(signal), { replayed: 0, found: 0, marked: 0, settled: 0, away: false }, "too young");
    assert.deepEqual(await refresh.sweeper.sweep(signal, 0), { replayed: 0, found: 300, marked: 200, settled: 0, away: false });
    assert.deepEqual(await refresh.sweeper.sweep(signal, 0), { replayed: 0, found: 300, marked: 0, settled: 0, away: false });
    hold(t, refresh);
    await settledAll(database, 300);
    await database.query("INSERT INTO task_changes (execution_id) VALUES (999999999)");
    assert.equal((await refresh.sweeper.sweep(signal, 0)).found, 0);
    assert.equal((await database.query("SELECT 1 FROM task_changes")).rowCount, 0, "notes of removed executions go");
  });

  test(`${driver}: a poisonous execution is found, tried again, set aside and shown, and holds up nobody`, async (t) => {
    const { database, refresh, logger } = await setup(t, driver, { attempts: 2 });
    const ids = await seedExecutions(database, 200);
    const poison = ids[77] ?? 0;
    await database.query(`CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN IF NEW.id = ${poison} AND NEW.ended_at IS NOT NULL THEN RAISE EXCEPTION 'no such thing'; END IF; RETURN NEW; END $$`);
    await database.query("CREATE TRIGGER poison BEFORE UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION poison()");
    await refresh.marker.markAll(ids.map((id) => ({ id, vendor: "REPLICATION" })));
    const end = hold(t, refresh);
    await settledAll(database, 199);
    await eventually("it is set aside", async () => (await refresh.store.countSetAside()) === 1);
    await eventually("its mark is gone", async () => (await refresh.queue.states()).every(({ depth }) => depth === 0));
    const [failure] = await refresh.store.listFailures(10);
    assert.equal(failure?.executionId, poison);
    assert.equal(failure.attempts, 2);
    assert.match(failure.lastError, /no such thing/);
    assert.ok(logger.lines.some(({ level, fields }) => level === "error" && fields["execution"] === poison));
    assert.equal((await refresh.sweeper.sweep(new AbortController().signal, 0)).found, 0, "the sweep leaves it alone");
    await database.query("DROP TRIGGER poison ON executions");
    assert.equal(await refresh.store.release(0), 1);
    await refresh.sweeper.sweep(new AbortController().signal, 0);
    await settledAll(database, 200);
    await end();
  });

  test(`${driver}: what a killed instance had claimed is refreshed by another when its lease ends`, async (t) => {
    const end = scope(t);
    const { database, url, prefix, refresh } = await setup(t, driver);
    const ids = await seedExecutions(database, 300);
    await refresh.marker.markAll(ids.map((id) => ({ id, vendor: "REPLICATION" })));
    const redisUrl = driver === "redis" ? await testRedisUrl() : null;
    const settings: RefreshChildSettings = { databaseUrl: url, redisUrl, prefix, pauseMs: 60_000, batch: 200, leaseMs: 1_500 };
    const child = spawn(process.execPath, [CHILD, JSON.stringify(settings)], { stdio: ["ignore", "pipe", "inherit"] });
    end.after(() => void child.kill("SIGKILL"));
    await once(child.stdout, "data");
    child.kill("SIGKILL");
    await once(child, "exit");
    assert.deepEqual(await countByStatus(database), { Running: 300 });
    hold(t, refresh);
    await settledAll(database, 300);
    assert.deepEqual(await toldChanges(database), ids.map((id) => `${id} Success`).toSorted());
    assert.ok(refresh.queue.expiries >= 200, `${refresh.queue.expiries} leases ran out`);
  });
}

test("while the queue is away marks go to the database and the sweep settles; when it is back they are replayed", async (t) => {
  const { database, kv, logger } = await setup(t, "postgres");
  let away = true;
  const gate: Pick<Kv, "queue"> = {
    queue: (name) => {
      const real = kv.queue(name);
      const refuse = <Args extends unknown[], T>(call: (...args: Args) => Promise<T>) => {
        return async (...args: Args): Promise<T> => {
          if (away) throw new SlipwayError("KV_UNAVAILABLE");
          return call(...args);
        };
      };
      return {
        mark: refuse((marks) => real.mark(marks)),
        claim: refuse((slots, limit, leaseMs) => real.claim(slots, limit, leaseMs)),
        complete: refuse((claims) => real.complete(claims)),
        extend: refuse((claims, leaseMs) => real.extend(claims, leaseMs)),
        states: refuse((slots) => real.states(slots)),
        watch: (handlers) => real.watch(handlers),
        expiries: 0,
      };
    },
  };
  const refresh = testRefresh({ kv: gate, database, logger });
  const ids = await seedExecutions(database, 50);
  const marked = ids.slice(0, 10).map((id) => ({ id, vendor: "REPLICATION" }));
  await refresh.marker.markAll(marked);
  await refresh.marker.markAll(marked, { watched: true });
  assert.equal(refresh.marker.stats().saved, 20);
  assert.equal((await refresh.store.listMarks(100)).length, 10, "saved marks coalesce too");
  const { signal } = new AbortController();
  assert.deepEqual(await refresh.sweeper.sweep(signal, 0), { replayed: 0, found: 50, marked: 0, settled: 50, away: true });
  assert.deepEqual(await countByStatus(database), { Success: 50 });
  away = false;
  assert.equal((await refresh.sweeper.sweep(signal)).replayed, 10);
  assert.equal((await refresh.store.listMarks(100)).length, 0);
  const claims = await refresh.queue.claim(ALL_SLOTS, 100, 1_000);
  assert.deepEqual(claims.map(({ id }) => id).toSorted(), marked.map(({ id }) => id).toSorted());
});

test(
  "Redis goes away and comes back empty: marks of the meantime are replayed, lost ones found, and nothing is lost",
  { skip: missingRedis() },
  async (t) => {
    const end = scope(t);
    const { database } = await testDatabase(end);
    const redis = await ownRedis(end);
    const server = await redis.start();
    const kv = await openKv({ redisUrl: redis.url, database, prefix: testPrefix() });
    end.after(() => kv.close());
    const refresh = testRefresh({ kv, database, logger: quietLogger });
    const [before, meanwhile] = [await seedExecutions(database, 100), await seedExecutions(database, 50)];
    await refresh.marker.markAll(before.map((id) => ({ id, vendor: "REPLICATION" })));
    await stopRedis(server);
    const stopHolding = hold(end, refresh, { sweeps: true });
    await refresh.marker.markAll(meanwhile.map((id) => ({ id, vendor: "REPLICATION" })));
    assert.equal(refresh.marker.stats().saved, 50);
    await redis.start();
    await settledAll(database, 150);
    await eventually("saved marks are replayed", async () => (await refresh.store.listMarks(1)).length === 0);
    assert.deepEqual(await toldChanges(database), [...before, ...meanwhile].map((id) => `${id} Success`).toSorted());
    await stopHolding();
  },
);

test("while the database is away slots rest longer and longer, the instance is unwell, and then everything is refreshed", async (t) => {
  const { database, kv, logger } = await setup(t, "redis");
  let down = true;
  let tries = 0;
  const flaky = {
    query: (text: string, values?: readonly unknown[]) => {
      if (!text.includes("settle_executions")) return database.query(text, values);
      tries += 1;
      return down ? Promise.reject(new SlipwayError("DATABASE_UNAVAILABLE")) : database.query(text, values);
    },
  } as Database;
  const refresh = testRefresh({ kv, database: flaky, logger });
  const ids = await seedExecutions(database, 500);
  await refresh.marker.markAll(ids.map((id) => ({ id, vendor: "REPLICATION" })));
  hold(t, refresh);
  await eventually("the instance is unwell", async () => !refresh.refresher.isWell(), 15_000);
  // Three seconds of trouble and more: a loop that spins would have made hundreds.
  assert.ok(tries <= 12, `${tries} tries`);
  down = false;
  await settledAll(database, 500);
  assert.ok(refresh.refresher.isWell());
  assert.equal(refresh.counters.byVendor.get("REPLICATION")?.processed, 500);
});

test("a change is told once whoever makes it, to the hooks of its vendor and to those of all", async (t) => {
  const { database, refresh } = await setup(t, "postgres");
  const executions = new ExecutionStore(database);
  const [settled = 0, ended = 0, same = 0] = await seedExecutions(database, 3);
  await database.query("UPDATE tasks SET status = 'Running', ended_at = NULL WHERE execution_id = $1", [same]);
  await Promise.all([executions.settle([settled]), executions.settle([settled]), refresh.store.settle([settled, same])]);
  await executions.end(ended, "Stopped", "stopped by admin");
  await executions.setAttrs(ended, { any: 1 });
  await new TaskStore(database).endOpen(ended, "Stopped", "");
  await executions.settle([ended]);
  const outbox = new Outbox(database);
  const { rows, claim } = await outbox.claim({ kind: "execution-event", limit: 100, leaseMs: 10_000 });
  const [heard, all]: [ExecutionChange[], ExecutionChange[]] = [[], []];
  const { hooks } = refresh;
  hooks.register("REPLICATION", async (changes) => void heard.push(...changes));
  hooks.register("TUF", async () => assert.fail("of another vendor"));
  hooks.register(null, async (changes) => void all.push(...changes));
  await hooks.handler()(rows, new AbortController().signal);
  await outbox.complete(
    claim,
    rows.map((row) => row.id),
  );
  assert.deepEqual(
    heard.map(({ id, from, to }) => ({ id, from, to })),
    [
      { id: settled, from: "Running", to: "Success" },
      { id: ended, from: "Running", to: "Stopped" },
    ],
  );
  assert.deepEqual(all, heard);
  assert.equal(new Set(heard.map(({ id, revision }) => `${id} ${revision}`)).size, 2);
});
