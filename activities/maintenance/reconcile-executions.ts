/** Batches of the reconciliation of executions. */
import { vendors } from "../../src/execution/plan/status.ts";
import type { ReconcilePart } from "../../src/execution/refresh/reconciler.ts";
import type { ExecutionReconcileTotals } from "../../src/temporal/plan/maintenance.ts";
import type { ActivityServices } from "../services.ts";
import { withHeartbeat } from "../shared/heartbeat.ts";
import { beginTask, reportTask } from "../shared/task-books.ts";

export interface ExecutionReconcileBatch {
  readonly executionId: number;
  readonly part: ReconcilePart;
  readonly cursor: string | null;
  /** Asked for by a person: also what was set aside a moment ago is tried again. */
  readonly byHand: boolean;
  /** Totals of the part before this batch. */
  readonly before: ExecutionReconcileTotals;
}

const BATCH = 500;
const ASIDE_MS = 60 * 60_000;

export function executionReconcileActivities(services: ActivityServices) {
  return {
    reconcileExecutionBatch: (batch: ExecutionReconcileBatch): Promise<{ totals: ExecutionReconcileTotals; next: string | null }> =>
      withHeartbeat(
        () => batch.cursor,
        async (signal) => {
          const { executionId, part, cursor, before, byHand } = batch;
          await beginTask(services, executionId, part);
          const options = { after: cursor, limit: BATCH, asideMs: byHand ? 0 : ASIDE_MS };
          const { marked, ended, next } = await services.reconciler.step(part, options, signal);
          const totals = { marked: before.marked + marked, ended: before.ended + ended };
          await reportTask(services, {
            executionId,
            vendor: vendors.executionReconcile,
            task: part,
            attrs: { ...totals },
            finished: next === null,
          });
          return { totals, next };
        },
      ),
  };
}
