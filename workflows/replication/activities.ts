/** How a run of replication reaches its activities. Planning and copying have queues of their own, so that neither starves the other. */
import { ActivityCancellationType, proxyActivities } from "@temporalio/workflow";
import type { ReplicationActivities } from "../../activities/replication/index.ts";
import { taskQueues } from "../../src/temporal/queues.ts";

const retry = { initialInterval: "500ms", backoffCoefficient: 2, maximumInterval: "30s" } as const;
const common = { heartbeatTimeout: "5s", cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED, retry } as const;

/** Bounded steps, and the books at the end; an absent database is waited for. */
export const { planReplication, closeReplication } = proxyActivities<ReplicationActivities>({
  ...common,
  taskQueue: taskQueues.replication,
  startToCloseTimeout: "15m",
  scheduleToCloseTimeout: "7d",
});

/** A batch may hold large blobs behind a slow line; whether it is alive is told by its heartbeats. */
export const { copyReplicationBatch } = proxyActivities<ReplicationActivities>({
  ...common,
  taskQueue: taskQueues.replicationCopy,
  startToCloseTimeout: "24h",
});
