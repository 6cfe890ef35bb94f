/** Starts the refresh workflow, of which a deployment has one, and asks it who refreshes what. */
import { WorkflowIdConflictPolicy } from "@temporalio/common";
import { WorkflowExecutionAlreadyStartedError } from "@temporalio/client";
import { isSlipwayError } from "../core/errors.ts";
import type { executionRefresh, RefreshView } from "../../workflows/refresh/execution-refresh.ts";
import type { CallOptions, TemporalConnection } from "./connection.ts";
import { workflowIds } from "./ids.ts";
import { taskQueues } from "./queues.ts";

/** True when it was started now, false when it ran already. */
export async function startExecutionRefresh(temporal: TemporalConnection, options: CallOptions = {}): Promise<boolean> {
  const args: Parameters<typeof executionRefresh> = [];
  return temporal.call(async (client) => {
    try {
      await client.workflow.start("executionRefresh", {
        workflowId: workflowIds.executionRefresh,
        taskQueue: taskQueues.refresh,
        args,
        workflowIdConflictPolicy: WorkflowIdConflictPolicy.FAIL,
        staticSummary: "Keeps the status of executions true",
      });
      return true;
    } catch (error) {
      if (error instanceof WorkflowExecutionAlreadyStartedError) return false;
      throw error;
    }
  }, options);
}

/** Null when the refresh does not run. Asks a worker. */
export async function queryRefresh(temporal: TemporalConnection, options: CallOptions = {}): Promise<RefreshView | null> {
  const query = temporal.call(
    (client) => client.workflow.getHandle(workflowIds.executionRefresh).query<RefreshView>("assignment"),
    options,
  );
  return query.catch((error: unknown) => {
    if (isSlipwayError(error, "NOT_FOUND")) return null;
    throw error;
  });
}
