/** What travels between starters, workflows and activities of replication: ids and counts, never names in bulk, bytes or secrets. */
import type { ExecutionTrigger } from "../../execution/plan/status.ts";

export type RunKind = "copy" | "dry-run" | "audit";

export interface ReplicationRequest {
  /** The row that was made before the run; what else is asked for stands in replication_runs. */
  readonly executionId: number;
  readonly policyId: number;
  readonly trigger: ExecutionTrigger;
}

/** Why somebody asks for a run: `waiting` is for the one that was queued behind the active run. */
export type RunTrigger = ExecutionTrigger | "waiting";

export interface TriggerRequest {
  readonly policyId: number;
  readonly trigger: RunTrigger;
}

export interface PlanStep {
  readonly executionId: number;
  /** Null at the beginning. */
  readonly cursor: string | null;
}

export interface PlannedStep {
  readonly batches: readonly PlannedBatch[];
  /** Null when everything is planned. */
  readonly next: string | null;
}

/** What one activity copies: tasks of one stretch of the source, for one or more destinations. */
export interface PlannedBatch {
  readonly tasks: readonly number[];
  /** Registry ids of the destinations, for fairness among them. */
  readonly targets: readonly number[];
}

export interface BatchRequest {
  readonly executionId: number;
  readonly tasks: readonly number[];
  /** Grows with every planned repetition of these tasks; it is the revision of their states. */
  readonly round: number;
}

export interface BatchOutcome {
  /** Tasks to be given again after the delay: the other side limits or is away, or a target has its share of this worker already. */
  readonly again: readonly TaskAgain[];
  readonly succeeded: number;
  readonly failed: number;
}

export interface TaskAgain {
  readonly tasks: readonly number[];
  readonly delayMs: number;
  /** False when nothing was tried, so that it counts as no attempt. */
  readonly tried: boolean;
}
