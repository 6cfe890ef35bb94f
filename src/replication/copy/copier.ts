/** The contract of copying: a batch of tasks from what is planned to what is reported. */
import type { BatchOutcome, BatchRequest } from "../plan/run.ts";

export interface Copier {
  /**
   * Works off the open items of the tasks and reports tasks and items itself. Trouble of one item or one side never throws: it is in the
   * outcome. Throws CANCELLED when the signal says so, with uploads kept where the run was paused or the worker stops, and aborted where it
   * was stopped; and what its own database says.
   */
  copyBatch(request: BatchRequest, signal: AbortSignal): Promise<BatchOutcome>;
  /** Cancels at their targets the uploads that one stopped run left, or all of them: a paused one has nobody at work who could. How many there were. */
  abandonUploads(executionId: number | null, signal: AbortSignal): Promise<number>;
}
