/** Every workflow type, by the name under which it is started. */
export { evictCache } from "./cache/evict-cache.ts";
export { keepCache, warmUpCache } from "./cache/keep-cache.ts";
export { executionRetention } from "./maintenance/execution-retention.ts";
export { executionRefresh } from "./refresh/execution-refresh.ts";
export { garbageCollect } from "./maintenance/garbage-collect.ts";
export { outboxRelay } from "./maintenance/outbox-relay.ts";
export { reconcileExecutions } from "./maintenance/reconcile-executions.ts";
export { reconcileContent } from "./maintenance/reconcile-content.ts";
export { replicate } from "./replication/replicate.ts";
export { replicationReconcile } from "./replication/reconcile.ts";
export { replicationTrigger } from "./replication/trigger.ts";
export { maintenanceTick } from "./maintenance/tick.ts";
export { uploadExpiry } from "./maintenance/upload-expiry.ts";
