/**
 * Starts the maintenance workflows. Each has one id, so at most one run of it is active however many start it: by hand, by schedule,
 * or by processes that come up together.
 */
import { WorkflowIdConflictPolicy } from "@temporalio/common";
import type { Client } from "@temporalio/client";
import { WorkflowExecutionAlreadyStartedError } from "@temporalio/client";
import { isSlipwayError } from "../core/errors.ts";
import type { ExecutionTrigger } from "../execution/plan/status.ts";
import type { evictCache } from "../../workflows/cache/evict-cache.ts";
import type { keepCache, warmUpCache } from "../../workflows/cache/keep-cache.ts";
import type { executionRetention } from "../../workflows/maintenance/execution-retention.ts";
import type { reconcileExecutions } from "../../workflows/maintenance/reconcile-executions.ts";
import type { garbageCollect } from "../../workflows/maintenance/garbage-collect.ts";
import type { outboxRelay } from "../../workflows/maintenance/outbox-relay.ts";
import type { reconcileContent } from "../../workflows/maintenance/reconcile-content.ts";
import type { uploadExpiry } from "../../workflows/maintenance/upload-expiry.ts";
import type { CallOptions, TemporalConnection } from "./connection.ts";
import { workflowIds } from "./ids.ts";
import { taskQueues } from "./queues.ts";
import type { CollectionProgress, StartOutcome } from "./plan/maintenance.ts";
import type { SearchAttributes } from "./search-attributes.ts";
import { ensureSearchAttributes, searchAttributeKeys } from "./search-attributes.ts";

export interface CollectionStart {
  readonly trigger: ExecutionTrigger;
  readonly dryRun?: boolean;
  /** Null or absent: as configured. */
  readonly graceMs?: number | null;
}

export interface MaintenanceStarters {
  startUploadExpiry(request: { trigger: ExecutionTrigger }, options?: CallOptions): Promise<StartOutcome>;
  startGarbageCollection(request: CollectionStart, options?: CallOptions): Promise<StartOutcome>;
  startCacheEviction(request: { trigger: ExecutionTrigger }, options?: CallOptions): Promise<StartOutcome>;
  startCacheKeeping(request: { trigger: ExecutionTrigger }, options?: CallOptions): Promise<StartOutcome>;
  startWarmUp(request: { trigger: ExecutionTrigger }, options?: CallOptions): Promise<StartOutcome>;
  startExecutionRetention(request: { trigger: ExecutionTrigger }, options?: CallOptions): Promise<StartOutcome>;
  startExecutionReconcile(request: { trigger: ExecutionTrigger }, options?: CallOptions): Promise<StartOutcome>;
  startReconcile(request: { trigger: ExecutionTrigger }, options?: CallOptions): Promise<StartOutcome>;
  /** Makes sure that the relay runs. */
  startOutboxRelay(options?: CallOptions): Promise<StartOutcome>;
  /** Progress of the collection that runs now or ran last; null when none is remembered. Asks a worker. */
  collectionProgress(options?: CallOptions): Promise<CollectionProgress | null>;
  stopGarbageCollection(options?: CallOptions): Promise<boolean>;
}

interface StartSpec {
  readonly type: string;
  readonly workflowId: string;
  readonly args: unknown[];
  readonly trigger: ExecutionTrigger;
  readonly summary: string;
}

export function createMaintenanceStarters(temporal: TemporalConnection): MaintenanceStarters {
  const start = makeStart(temporal);
  return {
    startUploadExpiry({ trigger }, options = {}) {
      const args: Parameters<typeof uploadExpiry> = [{ trigger }];
      return start(
        { type: "uploadExpiry", workflowId: workflowIds.uploadExpiry, args, trigger, summary: "Removes abandoned uploads" },
        options,
      );
    },
    startGarbageCollection({ trigger, dryRun = false, graceMs = null }, options = {}) {
      const args: Parameters<typeof garbageCollect> = [{ trigger, dryRun, graceMs }];
      const summary = dryRun ? "Counts content without links (dry run)" : "Removes content without links";
      return start({ type: "garbageCollect", workflowId: workflowIds.garbageCollection, args, trigger, summary }, options);
    },
    startCacheEviction({ trigger }, options = {}) {
      const args: Parameters<typeof evictCache> = [{ trigger }];
      const summary = "Brings the cache below its limit";
      return start({ type: "evictCache", workflowId: workflowIds.cacheEviction, args, trigger, summary }, options);
    },
    startCacheKeeping({ trigger }, options = {}) {
      const args: Parameters<typeof keepCache> = [];
      const summary = "Completes fills and refreshes hot tags";
      return start({ type: "keepCache", workflowId: workflowIds.cacheKeeping, args, trigger, summary }, options);
    },
    startWarmUp({ trigger }, options = {}) {
      const args: Parameters<typeof warmUpCache> = [{ trigger }];
      return start({ type: "warmUpCache", workflowId: workflowIds.warmUp, args, trigger, summary: "Pulls the warm-up list" }, options);
    },
    startExecutionRetention({ trigger }, options = {}) {
      const args: Parameters<typeof executionRetention> = [];
      const workflowId = workflowIds.executionRetention;
      return start({ type: "executionRetention", workflowId, args, trigger, summary: "Removes old executions" }, options);
    },
    startExecutionReconcile({ trigger }, options = {}) {
      return start(executionReconcileSpec(trigger), options);
    },
    startReconcile({ trigger }, options = {}) {
      const args: Parameters<typeof reconcileContent> = [{ trigger }];
      const summary = "Makes rows and storage agree";
      return start({ type: "reconcileContent", workflowId: workflowIds.reconcile, args, trigger, summary }, options);
    },
    startOutboxRelay(options = {}) {
      const args: Parameters<typeof outboxRelay> = [];
      const summary = "Performs what has to follow commits";
      return start({ type: "outboxRelay", workflowId: workflowIds.outboxRelay, args, trigger: "event", summary }, options);
    },
    async collectionProgress(options = {}) {
      const query = temporal.call(
        (client) => client.workflow.getHandle(workflowIds.garbageCollection).query<CollectionProgress>("progress"),
        options,
      );
      return query.catch(notFoundAs(null));
    },
    async stopGarbageCollection(options = {}) {
      const cancel = temporal.call((client) => client.workflow.getHandle(workflowIds.garbageCollection).cancel(), options);
      return cancel.then(() => true).catch(notFoundAs(false));
    },
  };
}

function executionReconcileSpec(trigger: ExecutionTrigger): StartSpec {
  const args: Parameters<typeof reconcileExecutions> = [{ trigger }];
  const summary = "Makes executions agree with their tasks and runs";
  return { type: "reconcileExecutions", workflowId: workflowIds.executionReconcile, args, trigger, summary };
}

function notFoundAs<T>(value: T): (error: unknown) => T {
  return (error) => {
    if (isSlipwayError(error, "NOT_FOUND")) return value;
    throw error;
  };
}

/** Registers the search attributes before the first start. */
function makeStart(temporal: TemporalConnection): (spec: StartSpec, options: CallOptions) => Promise<StartOutcome> {
  let registered: boolean | undefined;
  return async (spec, options) => {
    registered ??= await ensureSearchAttributes(temporal, options);
    const pairs: SearchAttributes = registered ? [{ key: searchAttributeKeys.triggerKind, value: spec.trigger }] : [];
    return temporal.call((client) => startOrJoin(client, spec, pairs), options);
  };
}

async function startOrJoin(client: Client, spec: StartSpec, attributes: SearchAttributes): Promise<StartOutcome> {
  const { workflowId } = spec;
  try {
    const handle = await client.workflow.start(spec.type, {
      workflowId,
      taskQueue: taskQueues.maintenance,
      args: spec.args,
      workflowIdConflictPolicy: WorkflowIdConflictPolicy.FAIL,
      typedSearchAttributes: [...attributes],
      staticSummary: spec.summary,
    });
    return { outcome: "started", workflowId, runId: handle.firstExecutionRunId };
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    const active = await client.workflow.getHandle(workflowId).describe();
    return { outcome: "active", workflowId, runId: active.raw.workflowExecutionInfo?.firstRunId || active.runId };
  }
}
