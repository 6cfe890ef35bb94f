/** Batches of copying. Whatever happens to one, its tasks end or are given again: a batch never fails the run. */
import { Context } from "@temporalio/activity";
import { isSlipwayError, toSlipwayError } from "../../src/core/errors.ts";
import type { BatchOutcome, BatchRequest } from "../../src/replication/plan/run.ts";
import { withHeartbeat } from "../shared/heartbeat.ts";
import type { ReplicationServices } from "./services.ts";

export interface CopiedBatch extends BatchOutcome {
  /** The execution was ended by somebody: nothing of it is to be done any more. */
  readonly isOver: boolean;
}

/** A fault of ours that comes back so often is told as a failure of the tasks. */
const MOST_FAULTS = 5;

export function copyingActivities(services: ReplicationServices) {
  return {
    copyReplicationBatch: (request: BatchRequest): Promise<CopiedBatch> =>
      withHeartbeat(
        () => null,
        async (signal) => {
          const { executionId } = request;
          const outcome = await services.watch.during(executionId, signal, (watched) => copy(services, request, watched));
          if (outcome === null) return { again: [], succeeded: 0, failed: 0, isOver: true };
          // Settled here, the execution is final with its last batch.
          await services.executions.settle([executionId]);
          services.announce(executionId);
          return { ...outcome, isOver: false };
        },
      ),
  };
}

async function copy({ copier, books, logger }: ReplicationServices, request: BatchRequest, signal: AbortSignal): Promise<BatchOutcome> {
  try {
    return await copier.copyBatch(request, signal);
  } catch (error) {
    if (signal.aborted || isSlipwayError(error, "CANCELLED")) throw error;
    const { retryable, message } = toSlipwayError(error);
    const isOurs = !isSlipwayError(error);
    if (retryable || (isOurs && Context.current().info.attempt < MOST_FAULTS)) throw error;
    logger.error({ execution: request.executionId, tasks: request.tasks.length, error }, "a batch could not be copied");
    await books.failTasks(request.tasks, request.round, message);
    return { again: [], succeeded: 0, failed: request.tasks.length };
  }
}
