/** States of executions and tasks, and which of them are final. Pure, so that workflows decide by the same words as the database. */
export const executionStatuses = {
  pending: "Pending",
  running: "Running",
  paused: "Paused",
  stopped: "Stopped",
  error: "Error",
  success: "Success",
  /** Never ran, because another run was active. */
  skipped: "Skipped",
} as const;
export type ExecutionStatus = (typeof executionStatuses)[keyof typeof executionStatuses];
export type FinalExecutionStatus = "Stopped" | "Error" | "Success" | "Skipped";

export const taskStatuses = {
  pending: "Pending",
  scheduled: "Scheduled",
  running: "Running",
  stopped: "Stopped",
  error: "Error",
  success: "Success",
} as const;
export type TaskStatus = (typeof taskStatuses)[keyof typeof taskStatuses];
export type FinalTaskStatus = "Stopped" | "Error" | "Success";

export type ExecutionTrigger = "manual" | "scheduled" | "event";

export const vendors = {
  replication: "REPLICATION",
  garbageCollection: "GARBAGE_COLLECTION",
  uploadExpiry: "UPLOAD_EXPIRY",
  cacheEviction: "CACHE_CLEANUP",
  cacheWarmUp: "WARM_UP",
  reconcile: "RECONCILE",
  executionReconcile: "EXECUTION_RECONCILE",
} as const;
