/** Repairs what a crash or an outage left behind, every few minutes and when a worker starts. */
import { ActivityCancellationType, proxyActivities } from "@temporalio/workflow";
import type { ReplicationActivities } from "../../activities/replication/index.ts";
import type { ReconcileReport } from "../../src/replication/runs/reconciler.ts";

const { reconcileReplication } = proxyActivities<ReplicationActivities>({
  startToCloseTimeout: "8m",
  scheduleToCloseTimeout: "9m",
  heartbeatTimeout: "5s",
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: { initialInterval: "1s", backoffCoefficient: 2, maximumInterval: "1m" },
});

export async function replicationReconcile(): Promise<ReconcileReport> {
  return reconcileReplication();
}
