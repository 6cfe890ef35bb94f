/** Every workflow id, in one pure file, so that starters, workers and the command line spell them alike. */
export const workflowIds = {
  uploadExpiry: "maintenance/upload-expiry",
  garbageCollection: "maintenance/garbage-collection",
  outboxRelay: "maintenance/outbox-relay",
  cacheEviction: "maintenance/cache-eviction",
  cacheReconcile: "maintenance/cache-reconcile",
  completeFill: (digest: string): string => `maintenance/complete-fill/${digest}`,
  warmUp: (name: string): string => `maintenance/warm-up/${name}`,
  replication: (policyId: number): string => `replication/${policyId}`,
  executionRefresh: "execution-refresh",
} as const;

export const scheduleIds = {
  uploadExpiry: "schedule/upload-expiry",
  garbageCollection: "schedule/garbage-collection",
  cacheEviction: "schedule/cache-eviction",
} as const;
