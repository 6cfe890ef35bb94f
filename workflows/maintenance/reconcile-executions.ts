/** Makes executions agree with their tasks and their runs: what is noted is marked, then every open execution is looked at. */
import { continueAsNew, setCurrentDetails, workflowInfo } from "@temporalio/workflow";
import { vendors } from "../../src/execution/plan/status.ts";
import type { ExecutionTrigger } from "../../src/execution/plan/status.ts";
import { executionReconcileParts } from "../../src/temporal/plan/maintenance.ts";
import type { ExecutionReconcileProgress, ExecutionReconcileTotals } from "../../src/temporal/plan/maintenance.ts";
import { batches } from "../shared/activities.ts";
import { recordedRun } from "../shared/run-record.ts";

const NOTHING: ExecutionReconcileTotals = { marked: 0, ended: 0 };
const BEGINNING: ExecutionReconcileProgress = { part: "notes", cursor: null, totals: { notes: NOTHING, runs: NOTHING } };

/** The second argument is the progress of the run that this one continues. */
export async function reconcileExecutions(
  request: { trigger: ExecutionTrigger },
  carried: ExecutionReconcileProgress = BEGINNING,
): Promise<ExecutionReconcileProgress> {
  let progress = carried;
  const byHand = request.trigger === "manual";
  const record = { vendor: vendors.executionReconcile, trigger: request.trigger, tasks: executionReconcileParts, attrs: {} };
  const finished = await recordedRun(record, async (executionId) => {
    while (progress.part !== "done") {
      const { part, cursor, totals } = progress;
      const batch = await batches.reconcileExecutionBatch({ executionId, part, cursor, byHand, before: totals[part] });
      const following = executionReconcileParts[executionReconcileParts.indexOf(part) + 1] ?? "done";
      progress = { part: batch.next === null ? following : part, cursor: batch.next, totals: { ...totals, [part]: batch.totals } };
      setCurrentDetails(describe(progress));
      if (progress.part !== "done" && workflowInfo().continueAsNewSuggested) return null;
    }
    return progress;
  });
  return finished ?? continueAsNew<typeof reconcileExecutions>(request, progress);
}

function describe({ part, totals }: ExecutionReconcileProgress): string {
  const lines = executionReconcileParts.map((name) => `| ${name} | ${totals[name].marked} | ${totals[name].ended} |`);
  return [`Part: **${part}**`, "", "| part | marked | ended |", "|---|---|---|", ...lines].join("\n");
}
