/** The cache's own work: eviction step by step, and what keeps it whole. */
import { vendors } from "../../src/execution/plan/status.ts";
import type { CacheEvictor, EvictionRules } from "../../src/proxy/eviction.ts";
import type { CacheUpkeep, UpkeepResult } from "../../src/proxy/upkeep.ts";
import { beginTask, reportTask } from "../shared/task-books.ts";
import type { TaskBooks } from "../shared/task-books.ts";
import { withHeartbeat } from "../shared/heartbeat.ts";

export interface CacheServices {
  readonly evictor: Pick<CacheEvictor, "step">;
  readonly upkeep: Pick<CacheUpkeep, "completeFills" | "forgetOld" | "refreshHotTags" | "warmUp">;
  readonly rules: EvictionRules;
  readonly warmUpList: readonly string[];
}

export interface EvictionTotals {
  readonly manifests: number;
  readonly blobs: number;
  readonly bytes: number;
}

export interface EvictionBatch {
  readonly executionId: number;
  readonly task: string;
  /** Totals before this batch. */
  readonly before: EvictionTotals;
}

export interface WarmUpTotals extends UpkeepResult {
  /** Where in the list it goes on. */
  readonly position: number;
}

export interface WarmUpBatch {
  readonly executionId: number;
  readonly task: string;
  readonly before: WarmUpTotals;
}

/** Images are large: a batch must end well within the time of an activity. */
const REFERENCES = 5;

export function cacheActivities({
  cache: { evictor, upkeep, rules, warmUpList },
  ...books
}: TaskBooks & { readonly cache: CacheServices }) {
  return {
    evictBatch: ({ executionId, task, before }: EvictionBatch): Promise<EvictionTotals & { finished: boolean }> =>
      withHeartbeat(
        () => before,
        async (signal) => {
          await beginTask(books, executionId, task);
          const step = await evictor.step(rules, signal);
          const totals = {
            manifests: before.manifests + step.manifests,
            blobs: before.blobs + step.blobs,
            bytes: before.bytes + step.bytes,
          };
          await reportTask(books, { executionId, vendor: vendors.cacheEviction, task, attrs: { ...totals }, finished: step.finished });
          return { ...totals, finished: step.finished };
        },
      ),
    completeFills: (): Promise<UpkeepResult> =>
      withHeartbeat(
        () => null,
        async (signal) => {
          await upkeep.forgetOld(signal);
          return upkeep.completeFills(signal);
        },
      ),
    refreshHotTags: (): Promise<UpkeepResult> =>
      withHeartbeat(
        () => null,
        (signal) => upkeep.refreshHotTags(signal),
      ),
    warmUpBatch: ({ executionId, task, before }: WarmUpBatch): Promise<UpkeepResult & { next: number | null }> =>
      withHeartbeat(
        () => before.position,
        async (signal) => {
          await beginTask(books, executionId, task);
          const end = before.position + REFERENCES;
          const { done, failed } = await upkeep.warmUp(warmUpList.slice(before.position, end), signal);
          const totals = { done: before.done + done, failed: before.failed + failed };
          const next = end < warmUpList.length ? end : null;
          await reportTask(books, { executionId, vendor: vendors.cacheWarmUp, task, attrs: { ...totals }, finished: next === null });
          return { ...totals, next };
        },
      ),
    /** Of runs that began before they were recorded. */
    warmUp: (): Promise<UpkeepResult> =>
      withHeartbeat(
        () => null,
        (signal) => upkeep.warmUp(warmUpList, signal),
      ),
  };
}
