/** Removes uploads that nobody has touched for long, in batches. */
import { continueAsNew, setCurrentDetails, workflowInfo } from "@temporalio/workflow";
import { vendors } from "../../src/execution/plan/status.ts";
import type { UploadExpiryRequest } from "../../src/temporal/plan/maintenance.ts";
import { batches } from "../shared/activities.ts";
import { recordedRun } from "../shared/run-record.ts";

const TASK = "expire";

/** Returns how many were removed. */
export async function uploadExpiry(request: UploadExpiryRequest, expiredBefore = 0): Promise<number> {
  let expired = expiredBefore;
  const record = { vendor: vendors.uploadExpiry, trigger: request.trigger, tasks: [TASK], attrs: {} };
  const total = await recordedRun(record, async (executionId) => {
    for (;;) {
      const batch = await batches.expireUploads({ executionId, task: TASK, expiredBefore: expired });
      expired += batch.expired;
      setCurrentDetails(`${expired} uploads removed`);
      if (batch.finished) return expired;
      if (workflowInfo().continueAsNewSuggested) return null;
    }
  });
  return total ?? continueAsNew<typeof uploadExpiry>(request, expired);
}
