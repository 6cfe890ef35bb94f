/** Wraps activities so that what they throw passes the one mapper, with the cause in the log. */
import { Context } from "@temporalio/activity";
import { CancelledFailure } from "@temporalio/common";
import type { Logger } from "../../src/telemetry/logger.ts";
import { toActivityFailure } from "./failure-map.ts";

type Activity<Args extends readonly unknown[], Result> = (...args: Args) => Promise<Result>;

export function guard<Args extends readonly unknown[], Result>(logger: Logger, activity: Activity<Args, Result>): Activity<Args, Result> {
  return async (...args) => {
    const context = Context.current();
    try {
      return await activity(...args);
    } catch (error) {
      const failure = toActivityFailure(error, context.cancellationSignal);
      if (!(failure instanceof CancelledFailure)) {
        const { activityType, attempt, workflowExecution } = context.info;
        logger.warn({ activity: activityType, attempt, workflow: workflowExecution?.workflowId, error }, "activity failed");
      }
      throw failure;
    }
  };
}
