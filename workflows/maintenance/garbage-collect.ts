/**
 * Removes content that nothing links to, in phases: bytes that no row knows get rows, links that no manifest needs
 * go, blobs without links are marked, what was marked is swept.
 * A dry run counts and changes nothing.
 */
import { continueAsNew, defineQuery, setCurrentDetails, setHandler, workflowInfo } from "@temporalio/workflow";
import { vendors } from "../../src/execution/plan/status.ts";
import type { CollectionPhase, CollectionProgress, CollectionRequest, PhaseTotals } from "../../src/temporal/plan/maintenance.ts";
import { collectionPhases } from "../../src/temporal/plan/maintenance.ts";
import { batches } from "../shared/activities.ts";
import { recordedRun } from "../shared/run-record.ts";

export const progressQuery = defineQuery<CollectionProgress>("progress");

const NOTHING: PhaseTotals = { items: 0, bytes: 0 };

/** The second argument is the progress of the run that this one continues. */
export async function garbageCollect(request: CollectionRequest, carried?: CollectionProgress): Promise<CollectionProgress> {
  let progress: CollectionProgress = carried ?? {
    dryRun: request.dryRun,
    phase: request.dryRun ? "unlink" : "adopt",
    cursor: null,
    totals: { adopt: NOTHING, unlink: NOTHING, mark: NOTHING, sweep: NOTHING },
  };
  setHandler(progressQuery, () => progress);
  const phases = request.dryRun ? collectionPhases.filter((phase) => phase === "unlink" || phase === "mark") : collectionPhases;
  const attrs = { dry_run: request.dryRun, grace_ms: request.graceMs };
  const record = { vendor: vendors.garbageCollection, trigger: request.trigger, tasks: phases, attrs };
  const finished = await recordedRun(record, async (executionId) => {
    while (progress.phase !== "done") {
      const { phase, cursor } = progress;
      const batch = await batches.collectBatch({ executionId, phase, cursor, request, before: progress.totals[phase] });
      progress = advance(progress, phases, { phase, ...batch });
      setCurrentDetails(describe(progress));
      if (progress.phase !== "done" && workflowInfo().continueAsNewSuggested) return null;
    }
    return progress;
  });
  return finished ?? continueAsNew<typeof garbageCollect>(request, progress);
}

interface FinishedBatch {
  readonly phase: CollectionPhase;
  readonly totals: PhaseTotals;
  /** Where the next batch begins; null when the phase is finished. */
  readonly next: string | null;
}

function advance(progress: CollectionProgress, phases: readonly CollectionPhase[], batch: FinishedBatch): CollectionProgress {
  const following = phases[phases.indexOf(batch.phase) + 1] ?? "done";
  return {
    dryRun: progress.dryRun,
    phase: batch.next === null ? following : batch.phase,
    cursor: batch.next,
    totals: { ...progress.totals, [batch.phase]: batch.totals },
  };
}

function describe({ dryRun, phase, totals }: CollectionProgress): string {
  const lines = collectionPhases.map((name) => `| ${name} | ${totals[name].items} | ${totals[name].bytes} |`);
  return [`Phase: **${phase}**${dryRun ? " (dry run)" : ""}`, "", "| phase | items | bytes |", "|---|---|---|", ...lines].join("\n");
}
