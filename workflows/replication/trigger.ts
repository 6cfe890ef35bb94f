/** What a schedule, a change of content or a run that has closed starts: it only asks for the run, by the same road as people do. */
import { ActivityCancellationType, proxyActivities } from "@temporalio/workflow";
import type { ReplicationActivities } from "../../activities/replication/index.ts";
import type { TriggerRequest } from "../../src/replication/plan/run.ts";
import type { TriggerOutcome } from "../../activities/replication/starting.ts";

const { startReplication } = proxyActivities<ReplicationActivities>({
  startToCloseTimeout: "30s",
  scheduleToCloseTimeout: "24h",
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: { initialInterval: "500ms", backoffCoefficient: 2, maximumInterval: "1m" },
});

export async function replicationTrigger(request: TriggerRequest): Promise<TriggerOutcome> {
  return startReplication(request);
}
