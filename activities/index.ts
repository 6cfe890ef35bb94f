/** All activities over one set of services. They stay thin: heartbeat, cancellation and error mapping around the domains. */
import { cacheActivities } from "./cache/upkeep.ts";
import { guard } from "./shared/guard.ts";
import { housekeepingActivities } from "./maintenance/housekeeping.ts";
import { outboxActivities } from "./maintenance/outbox.ts";
import { reconcileActivities } from "./maintenance/reconcile.ts";
import { executionReconcileActivities } from "./maintenance/reconcile-executions.ts";
import { recordActivities } from "./maintenance/records.ts";
import { tickActivities } from "./maintenance/tick.ts";
import type { ActivityServices } from "./services.ts";

export type Activities = ReturnType<typeof createActivities>;

/** `stopping` tells of a shutdown at its begin; the activities themselves are cancelled only when the grace time is over. */
export function createActivities(services: ActivityServices, stopping: AbortSignal) {
  const { logger } = services;
  const records = recordActivities(services);
  const housekeeping = housekeepingActivities(services);
  const tick = tickActivities(services);
  const outbox = outboxActivities(services, stopping);
  const cache = cacheActivities(services);
  const reconcile = reconcileActivities(services);
  const executions = executionReconcileActivities(services);
  return {
    beginRun: guard(logger, records.beginRun),
    endRun: guard(logger, records.endRun),
    expireUploads: guard(logger, housekeeping.expireUploads),
    collectBatch: guard(logger, housekeeping.collectBatch),
    pruneExecutions: guard(logger, housekeeping.pruneExecutions),
    startJob: guard(logger, tick.startJob),
    reconcileExecutionBatch: guard(logger, executions.reconcileExecutionBatch),
    reconcileBatch: guard(logger, reconcile.reconcileBatch),
    evictBatch: guard(logger, cache.evictBatch),
    completeFills: guard(logger, cache.completeFills),
    refreshHotTags: guard(logger, cache.refreshHotTags),
    warmUp: guard(logger, cache.warmUp),
    warmUpBatch: guard(logger, cache.warmUpBatch),
    relayOutbox: guard(logger, outbox.relayOutbox),
  };
}
