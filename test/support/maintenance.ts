/** The maintenance role over real services, for tests of its workflows: in this process, or built the same way in a child that gets killed. */
import type { CollectedBatch } from "../../src/catalog/collection.ts";
import type { ActivityServices, Housekeeper } from "../../activities/services.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { pruneExecutions } from "../../src/execution/retention.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { Outbox } from "../../src/catalog/outbox.ts";
import type { OutboxRelayOptions, RelayHandler } from "../../src/catalog/outbox-relay.ts";
import { OutboxRelay } from "../../src/catalog/outbox-relay.ts";
import { sleep } from "../../src/core/clock.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import type { Database } from "../../src/db/pool.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import type { TemporalConnection } from "../../src/temporal/connection.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import type { MaintenanceSchedule } from "../../src/temporal/schedules.ts";
import { maintenanceRole } from "../../workers/roles/maintenance.ts";
import type { WorkerGroup } from "../../workers/worker-group.ts";
import { startWorkerGroup } from "../../workers/worker-group.ts";

const silent = (): void => undefined;
export const quietLogger: Logger = { debug: silent, info: silent, warn: silent, error: silent };

/** Shows what a test's worker complains about, when SLIPWAY_TEST_LOG is set. */
export const testLogger: Logger = process.env["SLIPWAY_TEST_LOG"]
  ? {
      debug: silent,
      info: (fields, message) => console.error("info", message, fields),
      warn: (fields, message) => console.error("warn", message, fields),
      error: (fields, message) => console.error("error", message, fields),
    }
  : quietLogger;

export interface MaintenanceParts {
  readonly database: Database;
  readonly temporal: TemporalConnection;
  readonly dataDir: string;
  readonly collection: Housekeeper;
  readonly kv: OutboxRelayOptions["kv"];
  readonly handlers?: OutboxRelayOptions["handlers"];
  readonly relay?: Partial<Pick<OutboxRelayOptions, "batch" | "leaseMs">>;
  readonly limits?: Partial<ActivityServices["limits"]>;
  readonly schedules?: readonly MaintenanceSchedule[];
  readonly cache?: ActivityServices["cache"];
  readonly rebuilder?: ActivityServices["rebuilder"];
  readonly reconciler?: ActivityServices["reconciler"];
}

const nothingRebuilt = { items: 0, missing: 0, next: null };
/** Rows and storage agree. */
export const idleRebuilder: ActivityServices["rebuilder"] = {
  isDue: () => Promise.resolve(false),
  noteFinished: () => Promise.resolve(),
  rebuildProjects: () => Promise.resolve(nothingRebuilt),
  rebuildContent: () => Promise.resolve(nothingRebuilt),
  removeRowsWithoutBytes: () => Promise.resolve(nothingRebuilt),
};

/** A cache in which nothing is to be done. */
export const idleCache: ActivityServices["cache"] = {
  evictor: { step: () => Promise.resolve({ manifests: 0, blobs: 0, bytes: 0, finished: true }) },
  upkeep: {
    forgetOld: () => Promise.resolve(0),
    completeFills: () => Promise.resolve({ done: 0, failed: 0 }),
    refreshHotTags: () => Promise.resolve({ done: 0, failed: 0 }),
    warmUp: () => Promise.resolve({ done: 0, failed: 0 }),
  },
  rules: { maxBytes: null, policy: "lru", retentionMs: null },
  warmUpList: [],
};

export function startMaintenance(parts: MaintenanceParts): WorkerGroup {
  const { database, temporal, dataDir } = parts;
  const starters = createMaintenanceStarters(temporal);
  const limits = { uploadMaxAgeMs: 60_000, collectionGraceMs: 60_000, ...parts.limits };
  const relay = new OutboxRelay({
    outbox: new Outbox(database),
    handlers: { "execution-event": async () => undefined, ...parts.handlers },
    kv: parts.kv,
    logger: testLogger,
    ...parts.relay,
  });
  const services: ActivityServices = {
    cache: parts.cache ?? idleCache,
    executions: new ExecutionStore(database),
    tasks: new TaskStore(database),
    collection: parts.collection,
    rebuilder: parts.rebuilder ?? idleRebuilder,
    relay,
    marker: { asyncRefreshStatus: () => Promise.resolve() },
    reconciler: parts.reconciler ?? { step: () => Promise.resolve({ marked: 0, ended: 0, next: null }) },
    starters,
    pruneExecutions: (limit) => pruneExecutions(database, { keep: 100, maxAgeMs: 86_400_000, limit }),
    limits,
    logger: testLogger,
  };
  const role = maintenanceRole({ services, temporal, starters, schedules: parts.schedules ?? [] });
  return startWorkerGroup({ roles: [role], temporal, dataDir, logger: testLogger });
}

/** A key-value service that is away: whoever depends on wake-ups has to poll. */
export const noKv: OutboxRelayOptions["kv"] = { subscribe: () => Promise.reject(new SlipwayError("KV_UNAVAILABLE")) };

/** Notes every row that it is given, and by whom. */
export function recordingHandler(database: Database, who: string): RelayHandler {
  return async (rows) => {
    for (const row of rows) {
      await database.query("INSERT INTO handled (row_id, key, payload, who) VALUES ($1, $2, $3, $4)", [
        row.id,
        row.key,
        JSON.stringify(row.payload),
        who,
      ]);
    }
  };
}

export async function createHandledTable(database: Database): Promise<void> {
  await database.query(
    "CREATE TABLE handled (position bigint GENERATED ALWAYS AS IDENTITY, row_id bigint NOT NULL, key text NOT NULL, payload jsonb, who text NOT NULL)",
  );
}

/**
 * Collection over a table of its own, for tests of how the run behaves (kills, faults, many batches): the states are those of the real one,
 * the pace is the test's.
 */
export function tableCollection(database: Database, pauseMs: number): Housekeeper {
  const step = async (from: string, to: string, limit: number, after: string): Promise<CollectedBatch> => {
    await sleep(pauseMs);
    const result = await database.query<{ digest: string; size: number }>(
      `UPDATE trash SET state = $2, changes = changes + 1 WHERE digest IN
         (SELECT digest FROM trash WHERE state = $1 AND digest > $4 ORDER BY digest LIMIT $3 FOR UPDATE SKIP LOCKED) RETURNING digest, size`,
      [from, to, limit, after],
    );
    const bytes = result.rows.reduce((sum, row) => sum + row.size, 0);
    const last = result.rows
      .map((row) => row.digest)
      .toSorted()
      .at(-1);
    return { items: result.rows.length, bytes, next: result.rows.length < limit ? null : (last ?? null) };
  };
  const count = async (state: string): Promise<CollectedBatch> => {
    const result = await database.query<{ items: number; bytes: number }>(
      "SELECT count(*) AS items, coalesce(sum(size), 0)::bigint AS bytes FROM trash WHERE state = $1",
      [state],
    );
    return { items: result.rows[0]?.items ?? 0, bytes: result.rows[0]?.bytes ?? 0, next: null };
  };
  return {
    expireUploads: async ({ limit }) => (await step("upload", "expired", limit, "")).items,
    adoptOrphanBytes: async () => ({ items: 0, bytes: 0, next: null }),
    unlinkUnreferenced: ({ dryRun, limit, after }) => (dryRun ? count("linked") : step("linked", "unlinked", limit, after ?? "")),
    markGarbage: ({ dryRun, limit, after }) => (dryRun ? count("unlinked") : step("unlinked", "marked", limit, after ?? "")),
    sweepMarked: ({ limit }) => step("marked", "gone", limit, ""),
  };
}

export async function createTrash(database: Database, rows: { count: number; state: string }): Promise<void> {
  await database.query(
    "CREATE TABLE IF NOT EXISTS trash (digest text PRIMARY KEY, size bigint NOT NULL, state text NOT NULL, changes int NOT NULL DEFAULT 0)",
  );
  await database.query("INSERT INTO trash SELECT $2 || to_char(i, 'FM00000'), 10, $2 FROM generate_series(1, $1) i", [
    rows.count,
    rows.state,
  ]);
}

/** Waits for a condition that real processes bring about; fails after the deadline with what was last seen. */
export async function eventually<T>(what: string, probe: () => Promise<T | undefined | null | false>, deadlineMs = 15_000): Promise<T> {
  const until = Date.now() + deadlineMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== null && found !== false) return found;
    if (Date.now() > until) throw new Error(`${what}: not within ${deadlineMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
