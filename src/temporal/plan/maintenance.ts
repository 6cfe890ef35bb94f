/** What travels between starters, workflows and activities of the maintenance work. Pure: workflows import it. */
import type { ExecutionTrigger } from "../../execution/plan/status.ts";

export interface UploadExpiryRequest {
  readonly trigger: ExecutionTrigger;
}

export interface CollectionRequest {
  readonly trigger: ExecutionTrigger;
  readonly dryRun: boolean;
  /** Null: as configured. */
  readonly graceMs: number | null;
}

/** In their order; a dry run only has those that can count without changing anything. */
export const collectionPhases = ["adopt", "unlink", "mark", "sweep"] as const;
export type CollectionPhase = (typeof collectionPhases)[number];

export interface PhaseTotals {
  readonly items: number;
  readonly bytes: number;
}

export interface CollectionProgress {
  readonly dryRun: boolean;
  readonly phase: CollectionPhase | "done";
  readonly cursor: string | null;
  readonly totals: Readonly<Record<CollectionPhase, PhaseTotals>>;
}

/** In their order. */
export const reconcilePhases = ["projects", "rebuild", "missing"] as const;
export type ReconcilePhase = (typeof reconcilePhases)[number];

export interface ReconcileTotals {
  /** Rows made; in the last phase rows removed. */
  readonly items: number;
  /** Things that storage has no bytes of. */
  readonly missing: number;
}

export interface ReconcileProgress {
  readonly phase: ReconcilePhase | "done";
  readonly cursor: string | null;
  readonly totals: Readonly<Record<ReconcilePhase, ReconcileTotals>>;
}

/** In their order. */
export const executionReconcileParts = ["notes", "runs"] as const;

export interface ExecutionReconcileTotals {
  readonly marked: number;
  readonly ended: number;
}

export interface ExecutionReconcileProgress {
  readonly part: (typeof executionReconcileParts)[number] | "done";
  readonly cursor: string | null;
  readonly totals: Readonly<Record<(typeof executionReconcileParts)[number], ExecutionReconcileTotals>>;
}

export interface MaintenanceTick {
  readonly job:
    | "upload-expiry"
    | "garbage-collection"
    | "execution-retention"
    | "execution-reconcile"
    | "cache-eviction"
    | "cache-keeping"
    | "cache-warm-up";
}

export interface StartOutcome {
  /** "active": another run goes on, and nothing was started. */
  readonly outcome: "started" | "active";
  readonly workflowId: string;
  /** First run of the chain that was started, or of the one that is active. */
  readonly runId: string;
}

/** What an execution row is made of when its run begins. */
export interface RunRecord {
  readonly vendor: string;
  readonly trigger: ExecutionTrigger;
  /** One task each; the activities that do the work tell their states. */
  readonly tasks: readonly string[];
  readonly attrs: Readonly<Record<string, unknown>>;
}
