/** Marks of earlier designs in a real Redis: all of them are taken over, once for the deployment, whatever dies meanwhile; then nothing is scanned. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import type { Database } from "../../src/db/pool.ts";
import { readOldKey } from "../../src/execution/plan/old-marks.ts";
import type { DrainMode } from "../../src/execution/plan/old-marks.ts";
import type { Refresh } from "../../src/execution/refresh/open-refresh.ts";
import type { Kv } from "../../src/kv/kv.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { OldRedis } from "../../src/kv/old-redis.ts";
import type { DrainChildSettings } from "../support/drain-child.ts";
import { eventually } from "../support/maintenance.ts";
import { ownRedis } from "../support/own-redis.ts";
import { ALL_SLOTS, countByStatus, recordingLogger, seedExecutions, testPrefix, testRefresh } from "../support/refresh.ts";
import { scope } from "../support/scope.ts";
import { missingRedis, testDatabase } from "../support/services.ts";

const CHILD = fileURLToPath(new URL("../support/drain-child.ts", import.meta.url));
const [QUEUE, OUTDATE] = ["cache:execution:refresh:queue", "execution:status_outdate"];
const skip = missingRedis();

interface Setup {
  readonly database: Database;
  readonly databaseUrl: string;
  readonly redis: Redis;
  readonly redisUrl: string;
  readonly prefix: string;
  readonly kv: Kv;
  readonly logger: ReturnType<typeof recordingLogger>;
  open(mode: DrainMode): Refresh;
  /** Holds all slots and sweeps, until the returned function is called. */
  hold(refresh: Refresh): () => Promise<void>;
}

async function setup(end: ReturnType<typeof scope>): Promise<Setup> {
  const { database, url: databaseUrl } = await testDatabase(end);
  const server = await ownRedis(end);
  await server.start();
  const redis = new Redis(server.url, { protocol: 2 });
  end.after(() => redis.disconnect());
  const prefix = testPrefix();
  const kv = await openKv({ redisUrl: server.url, database, prefix });
  end.after(() => kv.close());
  const logger = recordingLogger();
  const open = (mode: DrainMode): Refresh =>
    testRefresh({
      kv,
      database,
      logger,
      oldMarks: {
        mode,
        open: () => OldRedis.open(server.url, () => undefined),
        acquireLease: (ttlMs) => kv.acquireLease("old-marks", "test", ttlMs),
        page: 250,
        pauseMs: 200,
      },
    });
  const hold = ({ refresher }: Refresh): (() => Promise<void>) => {
    const stop = new AbortController();
    const running = refresher.hold({ slots: ALL_SLOTS, shard: { id: 0, total: 1 }, sweeps: true }, stop.signal);
    const stopped = async (): Promise<void> => {
      stop.abort();
      await running;
    };
    end.after(stopped);
    return stopped;
  };
  return { database, databaseUrl, redis, redisUrl: server.url, prefix, kv, logger, open, hold };
}

/** Executions that are done, and nothing but old marks would tell. */
async function seedForgotten(database: Database, count: number): Promise<number[]> {
  const ids = await seedExecutions(database, count);
  await database.query("DELETE FROM task_changes");
  return ids;
}

function oldKey(id: number): string {
  return `execution:id:${id}:vendor:REPLICATION:status_outdate`;
}

/** A third of the ids in each of the forms. */
async function writeOldMarks(redis: Redis, ids: readonly number[]): Promise<void> {
  const third = Math.ceil(ids.length / 3);
  const members = ids.map((id) => `${id}:REPLICATION`);
  await redis.sadd(QUEUE, ...members.slice(0, third));
  await redis.sadd(OUTDATE, ...members.slice(third, third * 2));
  await redis.mset(...ids.slice(third * 2).flatMap((id) => [oldKey(id), "1"]));
}

async function countCalls(redis: Redis, command: string): Promise<number> {
  const [, calls] = new RegExp(`^cmdstat_${command}:calls=(\\d+)`, "m").exec(await redis.info("commandstats")) ?? [];
  return Number(calls ?? 0);
}

async function phaseIs({ drains }: Refresh, phase: string): Promise<void> {
  await eventually(`the drain is ${phase}`, async () => (await drains.find()).phase === phase, 30_000);
}

test(
  "ten thousand old marks are taken over although their taker is killed in the middle, new marks go on, and then nothing is scanned",
  { skip },
  async (t) => {
    const end = scope(t);
    const s = await setup(end);
    const ids = await seedForgotten(s.database, 10_000);
    await writeOldMarks(s.redis, ids);
    const malformed = ["", "x", "12", "0:REPLICATION", "7:replication", "5:REPLICATION:more", "9999999999999999999:TUF"];
    await s.redis.sadd(QUEUE, ...malformed, Buffer.from([0xff, 0x3a, 0xfe]));
    await s.redis.set("execution:id:none:vendor:REPLICATION:status_outdate", "1");
    const foreign = "somebody:execution:id:5:vendor:REPLICATION:status_outdate";
    await s.redis.set(foreign, "1");

    const settings: DrainChildSettings = { databaseUrl: s.databaseUrl, redisUrl: s.redisUrl, prefix: s.prefix, pages: 5 };
    const child = spawn(process.execPath, [CHILD, JSON.stringify(settings)], { stdio: ["ignore", "pipe", "inherit"] });
    end.after(() => void child.kill("SIGKILL"));
    await once(child.stdout, "data");
    const [one, two] = [s.open("auto"), s.open("auto")];
    s.hold(one);
    s.hold(two);
    const fresh = await seedForgotten(s.database, 100);
    await one.marker.markAll(fresh.map((id) => ({ id, vendor: "REPLICATION" })));
    assert.ok((await s.redis.scard(QUEUE)) > 0, "it is in the middle");
    child.kill("SIGKILL");
    await once(child, "exit");

    await eventually("everything is refreshed", async () => (await countByStatus(s.database))["Success"] === 10_100, 60_000);
    await phaseIs(one, "drained");
    assert.deepEqual(await s.redis.keys("*execution:*status_outdate"), [foreign]);
    assert.equal(await s.redis.exists(QUEUE, OUTDATE), 0);
    const { marked, malformed: refused } = await one.drains.find();
    assert.deepEqual([marked, refused], [10_000, malformed.length + 2], "each of them once, the killed one's share included");

    const ends = s.logger.lines.filter(({ message }) => message.startsWith("no marks of the earlier design are left"));
    assert.equal(ends.length, 1, "one pass that found nothing is enough for both instances");

    await s.redis.config("RESETSTAT");
    for (const mode of ["auto", "once"] as const) {
      const later = s.open(mode);
      const stop = s.hold(later);
      await eventually("it sweeps", async () => later.counters.sweeps > 0);
      await stop();
      assert.equal(later.counters.oldScans, 0);
    }
    assert.deepEqual([await countCalls(s.redis, "scan"), await countCalls(s.redis, "sscan"), await countCalls(s.redis, "keys")], [0, 0, 0]);
  },
);

test("a deployment that never had old keys is not scanned; when it is told to look, once", { skip }, async (t) => {
  const s = await setup(scope(t));
  const run = async (mode: DrainMode): Promise<Refresh> => {
    const refresh = s.open(mode);
    const stop = s.hold(refresh);
    await eventually("it sweeps", async () => refresh.counters.sweeps > 0);
    if (mode === "once") await phaseIs(refresh, "drained");
    await stop();
    return refresh;
  };
  await s.redis.config("RESETSTAT");
  for (let turn = 0; turn < 3; turn += 1) await run("auto");
  assert.equal((await s.open("auto").drains.find()).phase, "none");
  assert.equal(await countCalls(s.redis, "scan"), 0);
  const [lonely = 0] = await seedForgotten(s.database, 1);
  await s.redis.set(oldKey(lonely), "1");
  assert.equal((await run("once")).counters.oldMarked, 1);
  assert.equal(await s.redis.exists(oldKey(lonely)), 0);
  const scans = await countCalls(s.redis, "scan");
  assert.ok(scans >= 2 && scans <= 4, `${scans} pages: one pass that found it, one that found nothing`);
  await run("once");
  assert.equal(await countCalls(s.redis, "scan"), scans, "the database remembers");
});

test("while old writers live the drain goes on, and a set that appears later is found", { skip }, async (t) => {
  const s = await setup(scope(t));
  const ids = await seedForgotten(s.database, 30);
  const refresh = s.open("keep");
  const stop = s.hold(refresh);
  for (const [index, some] of [ids.slice(0, 10), ids.slice(10, 20)].entries()) {
    await writeOldMarks(s.redis, some);
    await eventually("they are refreshed", async () => (await countByStatus(s.database))["Success"] === (index + 1) * 10, 30_000);
  }
  assert.equal((await refresh.drains.find()).phase, "draining");
  await stop();
  const after = s.open("auto");
  const stopAfter = s.hold(after);
  await phaseIs(after, "drained");
  await stopAfter();
  await writeOldMarks(s.redis, ids.slice(20));
  const late = s.open("auto");
  s.hold(late);
  await eventually("they are refreshed", async () => (await countByStatus(s.database))["Success"] === 30, 30_000);
  await phaseIs(late, "drained");
});

test("keys of executions are told from those of others", () => {
  const of = (middle: string): string => `execution:id:${middle}:status_outdate`;
  assert.deepEqual(readOldKey(of("12:vendor:P2P_PREHEAT")), { id: 12, vendor: "P2P_PREHEAT" });
  assert.deepEqual(readOldKey(`cache:${of("12:vendor:TUF")}`), { id: 12, vendor: "TUF" });
  for (const middle of ["", "12", "x:vendor:TUF", "12:vendor:", "12:vendor:tuf", "12:vendor:TUF:x"]) {
    assert.equal(readOldKey(of(middle)), "malformed", middle);
  }
  for (const key of [`mine:${of("12:vendor:TUF")}`, "execution:id:12", `${of("12:vendor:TUF")}:x`])
    assert.equal(readOldKey(key), null, key);
});
