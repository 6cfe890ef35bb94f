/**
 * Makes rows and storage agree after one of them was lost: projects and content are rebuilt from the records in storage, then rows
 * without bytes go.
 */
import { continueAsNew, setCurrentDetails, workflowInfo } from "@temporalio/workflow";
import { vendors } from "../../src/execution/plan/status.ts";
import type { ExecutionTrigger } from "../../src/execution/plan/status.ts";
import type { ReconcileProgress, ReconcileTotals } from "../../src/temporal/plan/maintenance.ts";
import { reconcilePhases } from "../../src/temporal/plan/maintenance.ts";
import { batches } from "../shared/activities.ts";
import { recordedRun } from "../shared/run-record.ts";

const NOTHING: ReconcileTotals = { items: 0, missing: 0 };
const BEGINNING: ReconcileProgress = {
  phase: "projects",
  cursor: null,
  totals: { projects: NOTHING, rebuild: NOTHING, missing: NOTHING },
};

/** The second argument is the progress of the run that this one continues. */
export async function reconcileContent(
  request: { trigger: ExecutionTrigger },
  carried: ReconcileProgress = BEGINNING,
): Promise<ReconcileProgress> {
  let progress = carried;
  const record = { vendor: vendors.reconcile, trigger: request.trigger, tasks: reconcilePhases, attrs: {} };
  const finished = await recordedRun(record, async (executionId) => {
    while (progress.phase !== "done") {
      const { phase, cursor, totals } = progress;
      const batch = await batches.reconcileBatch({ executionId, phase, cursor, before: totals[phase] });
      const following = reconcilePhases[reconcilePhases.indexOf(phase) + 1] ?? "done";
      progress = { phase: batch.next === null ? following : phase, cursor: batch.next, totals: { ...totals, [phase]: batch.totals } };
      setCurrentDetails(describe(progress));
      if (progress.phase !== "done" && workflowInfo().continueAsNewSuggested) return null;
    }
    return progress;
  });
  return finished ?? continueAsNew<typeof reconcileContent>(request, progress);
}

function describe({ phase, totals }: ReconcileProgress): string {
  const lines = reconcilePhases.map((name) => `| ${name} | ${totals[name].items} | ${totals[name].missing} |`);
  return [`Phase: **${phase}**`, "", "| phase | items | missing |", "|---|---|---|", ...lines].join("\n");
}
