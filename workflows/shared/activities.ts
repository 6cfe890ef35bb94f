/** How workflows reach activities: every option explicit, since the defaults neither wait for a cancelled activity nor bound its retries. */
import { ActivityCancellationType, proxyActivities } from "@temporalio/workflow";
import type { Activities } from "../../activities/index.ts";

const retry = { initialInterval: "1s", backoffCoefficient: 2, maximumInterval: "1m" } as const;
const cancellationType = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED;

/** Short statements that keep the books: worth waiting for through a long outage of the database. */
export const records = proxyActivities<Activities>({
  startToCloseTimeout: "30s",
  scheduleToCloseTimeout: "24h",
  heartbeatTimeout: "5s",
  cancellationType,
  retry,
});

/** A bounded piece of maintenance work that tells its progress by heartbeats. */
export const batches = proxyActivities<Activities>({
  startToCloseTimeout: "10m",
  scheduleToCloseTimeout: "2h",
  heartbeatTimeout: "5s",
  cancellationType,
  retry,
});

/** One long activity that is replaced every hour. */
export const relays = proxyActivities<Activities>({
  startToCloseTimeout: "70m",
  scheduleToCloseTimeout: "24h",
  heartbeatTimeout: "5s",
  cancellationType,
  retry: { ...retry, maximumInterval: "10s" },
});
