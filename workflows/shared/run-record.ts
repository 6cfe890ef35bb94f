/**
 * Ties a run to its execution row: the first activity makes or finds the row, the last one settles it, also when the run fails or is
 * cancelled.
 */
import { defineSearchAttributeKey } from "@temporalio/common";
import { CancellationScope, isCancellation, rootCause, upsertSearchAttributes, workflowInfo } from "@temporalio/workflow";
import { searchAttributeNames } from "../../src/temporal/ids.ts";
import type { RunRecord } from "../../src/temporal/plan/maintenance.ts";
import { records } from "./activities.ts";

const triggerKind = defineSearchAttributeKey(searchAttributeNames.triggerKind, "KEYWORD");
const outcome = defineSearchAttributeKey(searchAttributeNames.outcome, "KEYWORD");

/** Performs the body with the execution's id. A body that returns null asks to be continued as new: the execution stays open. */
export async function recordedRun<Result>(
  record: RunRecord,
  body: (executionId: number) => Promise<Result | null>,
): Promise<Result | null> {
  const { workflowId, firstExecutionRunId } = workflowInfo();
  const executionId = await records.beginRun({ ...record, workflowId, runId: firstExecutionRunId });
  try {
    const result = await body(executionId);
    if (result === null) return null;
    await records.endRun({ executionId, status: "Success", message: "" });
    tellOutcome("Success");
    return result;
  } catch (error) {
    const stopped = isCancellation(error);
    const status = stopped ? "Stopped" : "Error";
    const message = stopped ? "stopped" : (rootCause(error) ?? "the run failed");
    await CancellationScope.nonCancellable(() => records.endRun({ executionId, status, message }));
    tellOutcome(status);
    throw error;
  }
}

/** Attributes are only set on runs whose starter found them registered. */
function tellOutcome(value: string): void {
  if (workflowInfo().typedSearchAttributes.get(triggerKind) !== undefined) upsertSearchAttributes([{ key: outcome, value }]);
}
