/** Every workflow id, in one pure file, so that starters, workers and the command line spell them alike. */
export const workflowIds = {
  uploadExpiry: "maintenance/upload-expiry",
  garbageCollection: "maintenance/garbage-collection",
  outboxRelay: "maintenance/outbox-relay",
  executionRetention: "maintenance/execution-retention",
  /** The server appends the time to it for every tick. */
  scheduleTick: (scheduleId: string): string => `tick/${scheduleId}`,
  cacheEviction: "maintenance/cache-eviction",
  reconcile: "maintenance/reconcile",
  cacheKeeping: "maintenance/cache-keeping",
  warmUp: "maintenance/cache-warm-up",
  replication: (policyId: number): string => `replication/${policyId}`,
  /** Of a policy whose runs may overlap. */
  replicationRun: (policyId: number, executionId: number): string => `replication/${policyId}/${executionId}`,
  /** Of a dry run or an audit, which never stands in the way of a copy. */
  replicationSurvey: (executionId: number): string => `replication-survey/${executionId}`,
  replicationEvents: (policyId: number): string => `replication-events/${policyId}`,
  /** Starts the run that waited for the policy's active one. */
  replicationQueue: (policyId: number): string => `replication-queue/${policyId}`,
  replicationReconcile: "replication-reconcile",
  executionRefresh: "execution-refresh",
  executionReconcile: "maintenance/execution-reconcile",
} as const;

export const scheduleIds = {
  uploadExpiry: "schedule/upload-expiry",
  garbageCollection: "schedule/garbage-collection",
  executionRetention: "schedule/execution-retention",
  executionReconcile: "schedule/execution-reconcile",
  cacheEviction: "schedule/cache-eviction",
  cacheKeeping: "schedule/cache-keeping",
  warmUp: "schedule/cache-warm-up",
  replication: (policyId: number): string => `schedule/replication/${policyId}`,
  replicationReconcile: "schedule/replication-reconcile",
} as const;

/** Search attributes by name; all are keywords but Failed, a count. SQL visibility has ten keyword columns in all. */
export const searchAttributeNames = {
  policyId: "PolicyId",
  sourceRegistry: "SourceRegistry",
  targetRegistry: "TargetRegistry",
  triggerKind: "TriggerKind",
  outcome: "Outcome",
  failed: "Failed",
} as const;
