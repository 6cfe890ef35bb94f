/**
 * What a schedule starts: scheduled runs never get a fixed id, so the tick only asks for the run, by the same road as people do. A run that is
 * active already is left alone.
 */
import { ActivityCancellationType, proxyActivities } from "@temporalio/workflow";
import type { Activities } from "../../activities/index.ts";
import type { MaintenanceTick, StartOutcome } from "../../src/temporal/plan/maintenance.ts";

const { startJob } = proxyActivities<Activities>({
  startToCloseTimeout: "30s",
  scheduleToCloseTimeout: "8m",
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: { initialInterval: "1s", backoffCoefficient: 2, maximumInterval: "30s" },
});

export async function maintenanceTick(tick: MaintenanceTick): Promise<StartOutcome> {
  return startJob(tick);
}
