/** Options that every worker has. */

/** How long running activities may go on after the process was told to stop. */
export const SHUTDOWN_GRACE_MS = 20_000;

export const commonWorkerOptions = {
  // With the defaults a cancellation takes seconds to arrive, and the successor of a killed worker sees an old cursor.
  maxHeartbeatThrottleInterval: 500,
  defaultHeartbeatThrottleInterval: 500,
  // Workflow tasks wait this long for the worker that has the run in memory before another takes it: by default ten seconds after a kill.
  stickyQueueScheduleToStartTimeout: 3_000,
  shutdownGraceTime: SHUTDOWN_GRACE_MS,
  shutdownForceTime: SHUTDOWN_GRACE_MS + 5_000,
} as const;
