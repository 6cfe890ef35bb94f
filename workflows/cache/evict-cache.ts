/** Brings the cache below its limit, once per deployment, in steps. */
import { continueAsNew, setCurrentDetails, workflowInfo } from "@temporalio/workflow";
import { vendors } from "../../src/execution/plan/status.ts";
import type { ExecutionTrigger } from "../../src/execution/plan/status.ts";
import { batches } from "../shared/activities.ts";
import { recordedRun } from "../shared/run-record.ts";

export interface EvictionProgress {
  readonly manifests: number;
  readonly blobs: number;
  readonly bytes: number;
}

const TASK = "evict";

export async function evictCache(request: { trigger: ExecutionTrigger }, carried?: EvictionProgress): Promise<EvictionProgress> {
  let progress: EvictionProgress = carried ?? { manifests: 0, blobs: 0, bytes: 0 };
  const record = { vendor: vendors.cacheEviction, trigger: request.trigger, tasks: [TASK], attrs: {} };
  const total = await recordedRun(record, async (executionId) => {
    for (;;) {
      const { finished, ...totals } = await batches.evictBatch({ executionId, task: TASK, before: progress });
      progress = totals;
      setCurrentDetails(`${progress.manifests} manifests and ${progress.blobs} blobs removed, ${progress.bytes} bytes`);
      if (finished) return progress;
      if (workflowInfo().continueAsNewSuggested) return null;
    }
  });
  return total ?? continueAsNew<typeof evictCache>(request, progress);
}
