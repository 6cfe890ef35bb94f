/** The contract of planning: one bounded step of comparing source and destinations, which may be repeated after a crash. */
import type { PlannedStep, PlanStep } from "./plan/run.ts";

export interface Planner {
  /**
   * Goes on at the cursor for a bounded time, writes tasks and items, counts what is unchanged, and returns the batches to copy and where to
   * go on. Throws BAD_REQUEST-like errors (not retryable) for what ends the run before anything is copied: colliding names, flattening too
   * deep, a mirror beyond its limits.
   */
  step(step: PlanStep, signal: AbortSignal, onProgress: (cursor: string | null) => void): Promise<PlannedStep>;
}
