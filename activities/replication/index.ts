/** All activities of replication over one set of services. */
import { guard } from "../shared/guard.ts";
import { copyingActivities } from "./copying.ts";
import { planningActivities } from "./planning.ts";
import type { ReplicationServices } from "./services.ts";
import { startingActivities } from "./starting.ts";

export type ReplicationActivities = ReturnType<typeof createReplicationActivities>;

export function createReplicationActivities(services: ReplicationServices) {
  const { logger } = services;
  const planning = planningActivities(services);
  const copying = copyingActivities(services);
  const starting = startingActivities(services);
  return {
    planReplication: guard(logger, planning.planReplication),
    closeReplication: guard(logger, planning.closeReplication),
    copyReplicationBatch: guard(logger, copying.copyReplicationBatch),
    startReplication: guard(logger, starting.startReplication),
    reconcileReplication: guard(logger, starting.reconcileReplication),
  };
}
