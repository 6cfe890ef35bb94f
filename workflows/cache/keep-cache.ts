/** The cache's own jobs: what no process holds is completed, hot tags are refreshed, the warm-up list is pulled. */
import { continueAsNew, patched, setCurrentDetails, workflowInfo } from "@temporalio/workflow";
import { vendors } from "../../src/execution/plan/status.ts";
import type { ExecutionTrigger } from "../../src/execution/plan/status.ts";
import { recordedRun } from "../shared/run-record.ts";
import { batches } from "../shared/activities.ts";

export interface KeepResult {
  readonly done: number;
  readonly failed: number;
}

/** Every minute: cheap when there is nothing to do. */
export async function keepCache(): Promise<{ fills: KeepResult; tags: KeepResult }> {
  const fills = await batches.completeFills();
  const tags = await batches.refreshHotTags();
  return { fills, tags };
}

export interface WarmUpProgress extends KeepResult {
  /** Of the list. */
  readonly position: number;
}

const TASK = "warm-up";

/** The second argument is the progress of the run that this one continues. */
export async function warmUpCache(request?: { trigger: ExecutionTrigger }, carried?: WarmUpProgress): Promise<KeepResult> {
  if (!patched("recorded-in-batches")) return batches.warmUp();
  let progress: WarmUpProgress = carried ?? { position: 0, done: 0, failed: 0 };
  const record = { vendor: vendors.cacheWarmUp, trigger: request?.trigger ?? "manual", tasks: [TASK], attrs: {} };
  const total = await recordedRun<KeepResult>(record, async (executionId) => {
    for (;;) {
      const { next, done, failed } = await batches.warmUpBatch({ executionId, task: TASK, before: progress });
      setCurrentDetails(`${done} references are here, ${failed} could not be pulled`);
      if (next === null) return { done, failed };
      progress = { position: next, done, failed };
      if (workflowInfo().continueAsNewSuggested) return null;
    }
  });
  return total ?? continueAsNew<typeof warmUpCache>(request, progress);
}
