/**
 * What the refresh benches share: Postgres, Redis and Temporal of their own, the real program with the refresh role as so many processes, executions in bulk, and what all
 * of it cost. Postgres counts its statements by itself (pg_stat_statements), Redis its commands (INFO commandstats).
 */
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { Redis } from "ioredis";
import { Database } from "../../src/db/pool.ts";
import { migrate } from "../../src/db/migrate.ts";
import { startPostgres } from "../../src/embedded/postgres.ts";
import { openRefresh } from "../../src/execution/refresh/open-refresh.ts";
import type { Refresh } from "../../src/execution/refresh/open-refresh.ts";
import { RedisKv } from "../../src/kv/redis-kv.ts";
import type { TemporalConnection } from "../../src/temporal/connection.ts";
import { queryRefresh } from "../../src/temporal/refresh.ts";
import { quietLogger } from "../support/maintenance.ts";
import { ownRedis } from "../support/own-redis.ts";
import { REFRESH_SETTINGS } from "../support/refresh.ts";
import { startSlipway } from "../support/slipway.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";
import { cpuOf, memoryOf } from "./proxy-setting.ts";
import { STARTED_AS, STARTED_WITH } from "./http-load.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface RefreshSetting {
  readonly database: Database;
  readonly redis: Redis;
  readonly temporal: TemporalConnection;
  /** The producer's side, as every role has it. */
  readonly producer: Refresh;
  readonly env: Readonly<Record<string, string>>;
}

export async function startRefreshSetting(t: Cleanable): Promise<RefreshSetting> {
  const url = await postgresThatCounts(t);
  const database = new Database({ url, poolSize: 10, statementTimeoutMs: 600_000 });
  t.after(() => database.close());
  await migrate(database);
  await database.query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements");
  const server = await ownRedis(t);
  await server.start();
  const redis = new Redis(server.url);
  t.after(() => redis.disconnect());
  const kv = await RedisKv.open({ url: server.url, prefix: "slipway:" });
  t.after(() => kv.close());
  const { temporal, address, namespace } = await testNamespace(t);
  const env = {
    SLIPWAY_DATABASE_URL: url,
    SLIPWAY_ENCRYPTION_KEY: "11".repeat(32),
    REDIS_URL: server.url,
    TEMPORAL_ADDRESS: address,
    TEMPORAL_NAMESPACE: namespace,
  };
  return { database, redis, temporal, env, producer: openRefresh({ kv, database, logger: quietLogger, settings: REFRESH_SETTINGS }) };
}

/** The module that counts statements is loaded when the server starts, so it is started twice. */
async function postgresThatCounts(t: Cleanable): Promise<string> {
  const dataDir = await tempDir(t, "slipway-bench-postgres-");
  const options = { dataDir, log: quietLogger, durable: process.env["SLIPWAY_BENCH_DURABLE"] === "true", forcePort: true };
  const first = await startPostgres(options);
  const admin = new Database({ url: first.url, poolSize: 1 });
  await admin.query("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
  await admin.close();
  await first.close();
  const server = await startPostgres(options);
  t.after(() => server.close());
  return server.url;
}

/** CPU seconds of the servers so far. Connections that ended meanwhile count too. */
export async function serverCpu({ database, redis }: RefreshSetting): Promise<{ readonly postgres: number; readonly redis: number }> {
  const { rows } = await database.query<{ pid: number }>("SELECT pg_backend_pid() AS pid, 1 AS bench");
  const parentOf = (pid: string | number): number => Number(/\) \S (\d+) /.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))?.[1]);
  const server = parentOf(rows[0]?.pid ?? 0);
  const cpu = (pid: number): number => cpuOf(pid);
  let postgres = cpu(server) + endedChildrenCpu(server);
  for (const name of readdirSync("/proc")) {
    try {
      if (/^\d+$/.test(name) && parentOf(name) === server) postgres += cpu(Number(name));
    } catch {
      // Ended between the two looks.
    }
  }
  return { postgres, redis: cpu(Number(/process_id:(\d+)/.exec(await redis.info("server"))?.[1])) };
}

function endedChildrenCpu(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

export interface Instances {
  readonly processes: readonly RunningSlipway[];
  memory(): { readonly now: number; readonly peak: number }[];
  cpu(): number;
}

/** The program with the refresh role only, so many times; resolves when each has its slots. */
export async function startInstances(t: Cleanable, setting: RefreshSetting, count: number): Promise<Instances> {
  const env = { ...STARTED_AS, ...setting.env, NODE_OPTIONS: STARTED_WITH.join(" "), SLIPWAY_LOG_LEVEL: "info" };
  const processes = await Promise.all(
    Array.from({ length: count }, () => startSlipway(t, { args: ["--role", "refresh"], env, readyTimeoutMs: 180_000 })),
  );
  for (let turn = 0; (await holders(setting)) !== count; turn += 1) {
    if (turn > 300) throw new Error(`not all of ${count} instances hold slots\n${processes[0]?.output()}`);
    await delay(200);
  }
  // The run that assigned them has begun; its activities are a moment behind.
  await delay(2_000);
  return {
    processes,
    memory: () => processes.map(({ child }) => memoryOf(child.pid)),
    cpu: () => processes.reduce((sum, { child }) => sum + cpuOf(child.pid), 0),
  };
}

async function holders({ temporal }: RefreshSetting): Promise<number> {
  const view = await queryRefresh(temporal).catch(() => null);
  return view === null || view.suspects.length > 0 ? 0 : view.holdings.length;
}

/** Of every ten executions one failed and one was stopped. */
const LAST_STATUS = "CASE e.id % 10 WHEN 0 THEN 'Error' WHEN 1 THEN 'Stopped' ELSE 'Success' END";

/** Running executions whose third task has just ended; what was there before is removed. Returns the first id: the others follow it. */
export async function seed({ database }: RefreshSetting, count: number): Promise<number> {
  await database.query("TRUNCATE executions, open_executions, tasks, task_changes, outbox CASCADE");
  const { rows } = await database.query<{ first: number }>(
    `WITH made AS (INSERT INTO executions (vendor, vendor_id, trigger, status, planned_at, started_at, tasks_total, tasks_running, tasks_succeeded)
       SELECT 'REPLICATION', i % 100, 'manual', 'Running', now(), now(), 3, 1, 2 FROM generate_series(1, $1) i RETURNING id)
     SELECT min(id) AS first FROM made`,
    [count],
  );
  await database.transaction(async (tx) => {
    // Without triggers: notes are written when the clock runs.
    await tx.query("SET LOCAL session_replication_role = replica");
    await tx.query(
      `INSERT INTO tasks (execution_id, key, status, status_revision, run_count, started_at, ended_at)
       SELECT e.id, 't' || k, CASE k WHEN 3 THEN ${LAST_STATUS} ELSE 'Success' END, 1, 1, now(), now() FROM executions e, generate_series(1, 3) k ORDER BY e.id, k`,
    );
  });
  await database.query("VACUUM ANALYZE executions, tasks");
  return rows[0]?.first ?? 0;
}

/** Running executions whose third task still runs, in the order of their ids. */
export async function seedRunning(setting: RefreshSetting, count: number): Promise<number[]> {
  const first = await seed(setting, count);
  await setting.database.query("UPDATE tasks SET status = 'Running', ended_at = NULL WHERE key = 't3'");
  await setting.database.query("TRUNCATE task_changes");
  return Array.from({ length: count }, (_, index) => first + index);
}

/** As the trigger of the tasks would have noted it. */
export async function noteChanges({ database }: RefreshSetting): Promise<void> {
  await database.query("INSERT INTO task_changes (execution_id) SELECT id FROM executions");
}

const MARKS_AT_ONCE = 5_000;

/** Returns how many marks Redis did not take in time, which then wait in the database for the sweep. */
export async function markAll({ producer }: RefreshSetting, first: number, count: number): Promise<number> {
  const before = producer.marker.stats();
  for (let start = 0; start < count; start += MARKS_AT_ONCE) {
    const some = Array.from({ length: Math.min(MARKS_AT_ONCE, count - start) }, (_, index) => first + start + index);
    await producer.marker.markAll(
      some.map((id) => ({ id, vendor: "REPLICATION" })),
      { mayBeFinal: true },
    );
  }
  const { saved, dropped } = producer.marker.stats();
  return saved + dropped - before.saved - before.dropped;
}

/** Resolves when none is open; calls back at each look, which begins where the last one found an open one. */
export async function untilRefreshed({ database }: RefreshSetting, onLook: () => Promise<void> = () => Promise.resolve()): Promise<void> {
  for (let first = 0; ;) {
    const { rows } = await database.query<{ id: number }>(
      "SELECT execution_id AS id, 1 AS bench FROM open_executions WHERE execution_id >= $1 ORDER BY execution_id LIMIT 1",
      [first],
    );
    await onLook();
    if (!rows[0]) return;
    first = rows[0].id;
    await delay(250);
  }
}

/** What is not as the tasks say: status, counters, events that tell of each change once. */
export async function findWrong({ database }: RefreshSetting): Promise<number> {
  const { rows } = await database.query<{ wrong: number }>(
    `SELECT (SELECT count(*) FROM executions e
        WHERE e.status <> ${LAST_STATUS} OR e.tasks_total <> 3 OR e.tasks_succeeded + e.tasks_failed + e.tasks_stopped <> 3
           OR e.tasks_running <> 0 OR e.ended_at IS NULL OR e.revision <> 2)
      + (SELECT abs(count(DISTINCT i) - (SELECT count(*) FROM executions)) + count(*) - count(DISTINCT i)
           FROM outbox o, jsonb_array_elements(o.payload -> 'ids') i WHERE o.kind = 'execution-event')
      + (SELECT count(*) FROM task_changes) AS wrong`,
  );
  return rows[0]?.wrong ?? Number.NaN;
}

export interface Costs {
  /** By text; BEGIN, COMMIT and ROLLBACK apart. */
  readonly statements: ReadonlyMap<string, number>;
  readonly statementsTotal: number;
  /** By name; those inside scripts included. */
  readonly commands: ReadonlyMap<string, number>;
}

export async function resetCosts({ database, redis }: RefreshSetting): Promise<void> {
  await database.query("SELECT pg_stat_statements_reset() AS bench");
  await redis.config("RESETSTAT");
}

export async function readCosts({ database, redis }: RefreshSetting): Promise<Costs> {
  const { rows } = await database.query<{ query: string; calls: number }>(
    `SELECT query, sum(calls)::bigint AS calls FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
      WHERE d.datname = current_database() AND toplevel AND query NOT LIKE '%bench%' AND query !~* '^(begin|commit|rollback)' GROUP BY 1 ORDER BY 2 DESC`,
  );
  const commands = new Map<string, number>();
  for (const [, name = "", calls] of (await redis.info("commandstats")).matchAll(/cmdstat_(\S+):calls=(\d+)/g))
    if (!["config|resetstat", "info"].includes(name)) commands.set(name, Number(calls));
  return {
    statements: new Map(rows.map(({ query, calls }) => [query.replace(/\s+/g, " ").slice(0, 90), calls])),
    statementsTotal: rows.reduce((sum, { calls }) => sum + calls, 0),
    commands,
  };
}

/** Sent by clients: all others of a claim queue run inside scripts. */
export function sentCommands({ commands }: Costs): number {
  return ["evalsha", "eval", "ping", "get", "set", "subscribe", "hello", "client|setinfo"].reduce(
    (sum, name) => sum + (commands.get(name) ?? 0),
    0,
  );
}

export function allCommands({ commands }: Costs): number {
  return [...commands.values()].reduce((sum, count) => sum + count, 0);
}

export function scans({ commands }: Costs): number {
  return ["scan", "sscan", "hscan", "zscan", "keys"].reduce((sum, name) => sum + (commands.get(name) ?? 0), 0);
}

/** What each instance did, from the log lines that it writes for each pass. */
export async function readShares({ processes }: Pick<Instances, "processes">, total: number): Promise<number[]> {
  for (let turn = 0; ; turn += 1) {
    const shares = processes.map((running) =>
      [...running.output().matchAll(/done, (\d+) succeed/g)].reduce((sum, match) => sum + Number(match[1]), 0),
    );
    // The last pass is told when it is over.
    if (turn === 60 || shares.reduce((sum, share) => sum + share, 0) >= total) return shares;
    await delay(500);
  }
}
