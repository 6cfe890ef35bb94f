/** What activities need of the domains, in slices as narrow as their use, so that a test or a role provides just these. */
import type { CacheServices } from "./cache/upkeep.ts";
import type { Collection } from "../src/catalog/collection.ts";
import type { Rebuilder } from "../src/catalog/rebuild.ts";
import type { ExecutionStore } from "../src/execution/execution-store.ts";
import type { RefreshMarker } from "../src/execution/refresh/refresh-marker.ts";
import type { ExecutionReconciler } from "../src/execution/refresh/reconciler.ts";
import type { TaskStore } from "../src/execution/task-store.ts";
import type { OutboxRelay } from "../src/catalog/outbox-relay.ts";
import type { Logger } from "../src/telemetry/logger.ts";
import type { MaintenanceStarters } from "../src/temporal/maintenance.ts";

export type Housekeeper = Pick<Collection, "expireUploads" | "unlinkUnreferenced" | "markGarbage" | "sweepMarked" | "adoptOrphanBytes">;

export interface MaintenanceLimits {
  readonly uploadMaxAgeMs: number;
  readonly collectionGraceMs: number;
}

export interface ActivityServices {
  readonly cache: CacheServices;
  readonly executions: Pick<ExecutionStore, "openForRun" | "completePlanning" | "settle" | "end">;
  readonly tasks: Pick<TaskStore, "add" | "update" | "setAttrs" | "endOpen">;
  readonly collection: Housekeeper;
  readonly rebuilder: Pick<Rebuilder, "isDue" | "noteFinished" | "rebuildProjects" | "rebuildContent" | "removeRowsWithoutBytes">;
  readonly relay: Pick<OutboxRelay, "run">;
  readonly reconciler: Pick<ExecutionReconciler, "step">;
  readonly marker: Pick<RefreshMarker, "asyncRefreshStatus">;
  readonly starters: Pick<
    MaintenanceStarters,
    | "startUploadExpiry"
    | "startGarbageCollection"
    | "startExecutionReconcile"
    | "startExecutionRetention"
    | "startCacheEviction"
    | "startCacheKeeping"
    | "startWarmUp"
    | "startReconcile"
  >;
  pruneExecutions(limit: number): Promise<number>;
  readonly limits: MaintenanceLimits;
  readonly logger: Logger;
}
