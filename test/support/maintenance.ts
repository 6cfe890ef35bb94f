/** The maintenance role over real services, for tests of its workflows: in this process, or built the same way in a child that gets killed. */
import type { ActivityServices, Collection } from "../../activities/services.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { pruneExecutions } from "../../src/execution/retention.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { Outbox } from "../../src/catalog/outbox.ts";
import type { OutboxRelayOptions } from "../../src/catalog/outbox-relay.ts";
import { OutboxRelay } from "../../src/catalog/outbox-relay.ts";
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
  readonly collection: Collection;
  readonly kv: OutboxRelayOptions["kv"];
  readonly handlers?: OutboxRelayOptions["handlers"];
  readonly relay?: Partial<Pick<OutboxRelayOptions, "batch" | "leaseMs">>;
  readonly limits?: Partial<ActivityServices["limits"]>;
  readonly schedules?: readonly MaintenanceSchedule[];
}

export function startMaintenance(parts: MaintenanceParts): WorkerGroup {
  const { database, temporal, dataDir } = parts;
  const starters = createMaintenanceStarters(temporal);
  const limits = { uploadMaxAgeMs: 60_000, collectionGraceMs: 60_000, executionsKept: 100, executionMaxAgeMs: 86_400_000, ...parts.limits };
  const relay = new OutboxRelay({
    outbox: new Outbox(database),
    handlers: parts.handlers ?? {},
    kv: parts.kv,
    channel: "outbox",
    logger: testLogger,
    ...parts.relay,
  });
  const services: ActivityServices = {
    executions: new ExecutionStore(database),
    tasks: new TaskStore(database),
    collection: parts.collection,
    relay,
    starters,
    pruneExecutions: (limit) => pruneExecutions(database, { keep: limits.executionsKept, maxAgeMs: limits.executionMaxAgeMs, limit }),
    limits,
    logger: testLogger,
  };
  const role = maintenanceRole({ services, temporal, starters, schedules: parts.schedules ?? [] });
  return startWorkerGroup({ roles: [role], temporal, dataDir, logger: testLogger });
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
