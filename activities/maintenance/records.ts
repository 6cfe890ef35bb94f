/** Executions of runs: made by the first activity of a run, settled by the last. */
import type { FinalTaskStatus } from "../../src/execution/plan/status.ts";
import type { RunRecord } from "../../src/temporal/plan/maintenance.ts";
import type { ActivityServices } from "../services.ts";

export interface RunBeginning extends RunRecord {
  readonly workflowId: string;
  readonly runId: string;
}

export interface RunEnd {
  readonly executionId: number;
  readonly status: FinalTaskStatus;
  readonly message: string;
}

/** Tasks of a run are tried by Temporal, not by us: all their states are of one attempt. */
export const REVISION = 1;

export function recordActivities({ executions, tasks }: ActivityServices) {
  return {
    beginRun: async ({ vendor, trigger, attrs, workflowId, runId, tasks: keys }: RunBeginning): Promise<number> => {
      const execution = await executions.openForRun({ workflowId, runId }, { vendor, trigger, extraAttrs: attrs });
      await tasks.add(
        execution.id,
        keys.map((key) => ({ key })),
      );
      await executions.completePlanning(execution.id);
      return execution.id;
    },

    endRun: async ({ executionId, status, message }: RunEnd): Promise<void> => {
      if (status !== "Success") {
        await tasks.endOpen(executionId, status, message);
        await executions.end(executionId, status, message);
      }
      await executions.settle([executionId]);
    },
  };
}
