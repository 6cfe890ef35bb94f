/**
 * One run of a policy: steps of planning, and beside them a window of batches that copy what is planned already. Batches that have to be tried
 * again wait in timers, without a slot. The books are closed by an activity also when the run fails or is cancelled.
 */
import { defineSearchAttributeKey } from "@temporalio/common";
import {
  CancellationScope,
  continueAsNew,
  defineQuery,
  defineSignal,
  isCancellation,
  rootCause,
  setCurrentDetails,
  setHandler,
  upsertSearchAttributes,
  workflowInfo,
} from "@temporalio/workflow";
import type { ReplicationRequest } from "../../src/replication/plan/run.ts";
import { searchAttributeNames } from "../../src/temporal/ids.ts";
import type { RunClosed } from "../../activities/replication/planning.ts";
import { closeReplication } from "./activities.ts";
import { ReplicationRun } from "./run.ts";
import type { CarriedRun, RunProgress } from "./run.ts";

export const pauseSignal = defineSignal("pause");
export const resumeSignal = defineSignal("resume");
export const progressQuery = defineQuery<RunProgress>("progress");

const policyId = defineSearchAttributeKey(searchAttributeNames.policyId, "KEYWORD");
const outcome = defineSearchAttributeKey(searchAttributeNames.outcome, "KEYWORD");
const failed = defineSearchAttributeKey(searchAttributeNames.failed, "INT");

/** The second argument is what the run that this one continues had still to do. */
export async function replicate(request: ReplicationRequest, carried?: CarriedRun): Promise<RunClosed> {
  const run = new ReplicationRun(request, carried);
  setHandler(pauseSignal, () => run.pause());
  setHandler(resumeSignal, () => run.resume());
  setHandler(progressQuery, () => run.progress());
  try {
    if ((await run.work()) === "done") return tell(run, run.closed ?? (await closeReplication({ request, end: null })));
  } catch (error) {
    const stopped = isCancellation(error);
    const message = stopped ? "stopped in the workflow service" : (rootCause(error) ?? "the run failed");
    await CancellationScope.nonCancellable(async () => {
      await run.idle();
      tell(run, await closeReplication({ request, end: { status: stopped ? "Stopped" : "Error", message } }));
    });
    throw error;
  }
  return continueAsNew<typeof replicate>(request, run.carry());
}

function tell(run: ReplicationRun, closed: RunClosed): RunClosed {
  setCurrentDetails(`${run.describe()}\n\nEnded: **${closed.status}**${closed.message === "" ? "" : `, ${closed.message}`}`);
  // Attributes are only set on runs whose starter found them registered.
  if (workflowInfo().typedSearchAttributes.get(policyId) !== undefined) {
    upsertSearchAttributes([
      { key: outcome, value: closed.status },
      { key: failed, value: closed.failed },
    ]);
  }
  return closed;
}
