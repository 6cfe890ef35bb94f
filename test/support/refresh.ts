/** Executions in bulk, and the parts of the refresh over real services, for tests. */
import { randomBytes } from "node:crypto";
import type { Database } from "../../src/db/pool.ts";
import { openRefresh } from "../../src/execution/refresh/open-refresh.ts";
import type { Refresh, RefreshOptions } from "../../src/execution/refresh/open-refresh.ts";
import type { Kv } from "../../src/kv/kv.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import { testRedisUrl } from "./services.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export const SLOTS = 64;
export const ALL_SLOTS = Array.from({ length: SLOTS }, (_, slot) => slot);
export const REFRESH_SETTINGS = { slots: SLOTS, batch: 1_000, sweepMs: 60_000, attempts: 3 } as const;

export interface Line {
  readonly level: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export function recordingLogger(): Logger & { readonly lines: Line[] } {
  const lines: Line[] = [];
  const write =
    (level: string) =>
    (fields: object, message: string): void =>
      void lines.push({ level, message, fields: fields as Record<string, unknown> });
  return { lines, debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
}

export async function openTestKv(t: Cleanable, driver: string, database: Database, prefix = testPrefix()): Promise<Kv> {
  const redisUrl = driver === "redis" ? await testRedisUrl() : null;
  const kv = await openKv({ redisUrl, database, prefix });
  t.after(() => kv.close());
  return kv;
}

export function testPrefix(): string {
  return `test-${randomBytes(4).toString("hex")}:`;
}

/** Quick, so that a test does not wait for what production would. */
export function testRefresh(options: Omit<RefreshOptions, "settings"> & { settings?: Partial<RefreshOptions["settings"]> }): Refresh {
  const settings = { ...REFRESH_SETTINGS, ...options.settings };
  return openRefresh({ pace: { gatherMs: 20, idle: { baseMs: 50, capMs: 200 } }, ...options, settings });
}

/** Planned executions, each with three tasks of the given status; returns their ids. */
export async function seedExecutions(
  database: Database,
  count: number,
  options: { vendor?: string; status?: string } = {},
): Promise<number[]> {
  const { vendor = "REPLICATION", status = "Success" } = options;
  const { rows } = await database.query<{ id: number }>(
    `INSERT INTO executions (vendor, vendor_id, trigger, status, planned_at, started_at)
     SELECT $2, i % 10, 'manual', 'Running', now(), now() FROM generate_series(1, $1) i RETURNING id`,
    [count, vendor],
  );
  const ids = rows.map((row) => row.id);
  await database.query(
    `INSERT INTO tasks (execution_id, key, status, status_revision, started_at, ended_at)
     SELECT e, 't' || k, $2, 1, now(), CASE WHEN task_status_rank($2) = 3 THEN now() END FROM unnest($1::bigint[]) e, generate_series(1, 3) k`,
    [ids, status],
  );
  return ids;
}

export async function countByStatus(database: Database): Promise<Record<string, number>> {
  const { rows } = await database.query<{ status: string; count: number }>(
    "SELECT status, count(*) AS count FROM executions GROUP BY status",
  );
  return Object.fromEntries(rows.map((row) => [row.status, row.count]));
}

/** The changes that the outbox tells of, as id and new status, sorted. */
export async function toldChanges(database: Database): Promise<string[]> {
  const { rows } = await database.query<{ id: string; to: string }>(
    `SELECT i.id, o.payload ->> 'to' AS to FROM outbox o, jsonb_array_elements_text(o.payload -> 'ids') AS i(id) WHERE o.kind = 'execution-event'`,
  );
  return rows.map((row) => `${row.id} ${row.to}`).toSorted();
}
