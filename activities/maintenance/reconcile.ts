/** Batches of reconciliation. */
import type { RebuiltBatch } from "../../src/catalog/rebuild.ts";
import { vendors } from "../../src/execution/plan/status.ts";
import type { ReconcilePhase, ReconcileTotals } from "../../src/temporal/plan/maintenance.ts";
import type { ActivityServices } from "../services.ts";
import { withHeartbeat } from "../shared/heartbeat.ts";
import { beginTask, reportTask } from "../shared/task-books.ts";

export interface ReconcileBatch {
  readonly executionId: number;
  readonly phase: ReconcilePhase;
  readonly cursor: string | null;
  /** Totals of the phase before this batch. */
  readonly before: ReconcileTotals;
}

const BATCH = 200;

export function reconcileActivities(services: ActivityServices) {
  return {
    reconcileBatch: ({ executionId, phase, cursor, before }: ReconcileBatch): Promise<{ totals: ReconcileTotals; next: string | null }> =>
      withHeartbeat(
        () => cursor,
        async (signal) => {
          await beginTask(services, executionId, phase);
          const { items, missing, next } = await reconcile(services, { phase, cursor }, signal);
          const totals = { items: before.items + items, missing: before.missing + missing };
          await reportTask(services, {
            executionId,
            vendor: vendors.reconcile,
            task: phase,
            attrs: { ...totals },
            finished: next === null,
          });
          return { totals, next };
        },
      ),
  };
}

async function reconcile(
  { rebuilder }: ActivityServices,
  { phase, cursor }: Pick<ReconcileBatch, "phase" | "cursor">,
  signal: AbortSignal,
): Promise<RebuiltBatch> {
  const options = { limit: BATCH, after: cursor };
  if (phase === "projects") return rebuilder.rebuildProjects(options, signal);
  if (phase === "rebuild") return rebuilder.rebuildContent(options, signal);
  const batch = await rebuilder.removeRowsWithoutBytes(options, signal);
  if (batch.next === null) await rebuilder.noteFinished();
  return batch;
}
