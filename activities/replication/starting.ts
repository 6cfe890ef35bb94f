/** Starts that nobody waits for: of schedules, of changes of content, of runs that were queued. */
import { Context } from "@temporalio/activity";
import { isSlipwayError } from "../../src/core/errors.ts";
import type { TriggerRequest } from "../../src/replication/plan/run.ts";
import type { ReconcileReport } from "../../src/replication/runs/reconciler.ts";
import type { StartOutcome } from "../../src/replication/runs/replication-runs.ts";
import { withHeartbeat } from "../shared/heartbeat.ts";
import type { ReplicationServices } from "./services.ts";

export interface TriggerOutcome {
  /** "nothing": there was no reason left; "refused": the policy is gone or disabled. */
  readonly outcome: StartOutcome | "nothing" | "refused";
  readonly executionId: number | null;
}

const NOTHING: TriggerOutcome = { outcome: "nothing", executionId: null };

export function startingActivities({ starter, events, reconciler }: ReplicationServices) {
  return {
    startReplication: async ({ policyId, trigger }: TriggerRequest): Promise<TriggerOutcome> => {
      const { info, cancellationSignal: signal } = Context.current();
      try {
        if (trigger === "waiting") return (await starter.startWaiting(policyId, { signal })) ?? NOTHING;
        if (trigger === "event" && !(await events.isDue(policyId))) return NOTHING;
        const { workflowId = "", runId = "" } = info.workflowExecution ?? {};
        return await starter.start({ policyId, trigger, startKey: `${workflowId} ${runId}` }, { signal });
      } catch (error) {
        if (isSlipwayError(error, "NOT_FOUND", "PRECONDITION_FAILED")) return { outcome: "refused", executionId: null };
        throw error;
      }
    },

    reconcileReplication: (): Promise<ReconcileReport> =>
      withHeartbeat(
        () => null,
        (signal) => reconciler.run(signal),
      ),
  };
}
