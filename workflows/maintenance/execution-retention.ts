/** Removes old executions of every vendor, in batches. */
import { continueAsNew, setCurrentDetails, workflowInfo } from "@temporalio/workflow";
import { batches } from "../shared/activities.ts";

/** Returns how many were removed. */
export async function executionRetention(removedBefore = 0): Promise<number> {
  let removed = removedBefore;
  for (;;) {
    const batch = await batches.pruneExecutions();
    removed += batch.removed;
    setCurrentDetails(`${removed} executions removed`);
    if (batch.finished) return removed;
    if (workflowInfo().continueAsNewSuggested) return continueAsNew<typeof executionRetention>(removed);
  }
}
