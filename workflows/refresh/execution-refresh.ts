/**
 * Assigns slots to the instances that refresh, and holds one long activity on the task queue of each. A run lasts until something changes: an
 * instance joins, leaves, fails or is well again, or an hour is over; then the next run begins with what this one knows.
 */
import {
  ActivityCancellationType,
  continueAsNew,
  defineQuery,
  isCancellation,
  log,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  sleep,
} from "@temporalio/workflow";
import type { RefreshActivities } from "../../activities/refresh/refresh.ts";
import type { Instance } from "../../src/execution/plan/assignment.ts";
import { afterEvent, NO_REFRESH_STATE, planRefresh } from "../../src/temporal/plan/refresh.ts";
import type { RefreshEvent, RefreshPlan, RefreshState, SlotHolding } from "../../src/temporal/plan/refresh.ts";
import { refreshInstanceQueue, taskQueues } from "../../src/temporal/queues.ts";

export interface RefreshView extends RefreshPlan {
  readonly suspects: readonly string[];
}

export const assignmentQuery = defineQuery<RefreshView>("assignment");

/** A new run cancels what the last one left, whether or not anybody waits for it. */
const cancellationType = ActivityCancellationType.TRY_CANCEL;
const PICKUP = "3s";
/** Between probes of an instance that does not work, in seconds. */
const PROBES = { first: 4, longest: 60 } as const;

const { watchInstances } = proxyActivities<RefreshActivities>({
  taskQueue: taskQueues.refresh,
  startToCloseTimeout: "24h",
  heartbeatTimeout: "5s",
  cancellationType,
  retry: { initialInterval: "1s", backoffCoefficient: 2, maximumInterval: "10s" },
});

/** The plan was made by the run before, so that a version that plans otherwise can go on with an open run. */
export async function executionRefresh(
  state: RefreshState = NO_REFRESH_STATE,
  plan: RefreshPlan = planRefresh(state, queueOf),
): Promise<never> {
  setHandler(assignmentQuery, () => ({ ...plan, suspects: state.suspects }));
  setCurrentDetails(describe(plan, state));
  for (const problem of plan.problems) log.warn("the instance ids of the refresh are wrong", { problem });
  const known = state.membership?.instances ?? [];
  const event = await Promise.race([
    watchInstances(state.membership).then((membership): RefreshEvent => ({ kind: "membership", membership })),
    ...plan.holdings.map(hold),
    ...known.filter(({ bootId }) => state.suspects.includes(bootId)).map(probe),
  ]);
  const next = afterEvent({ ...state, assignment: plan.assignment }, event);
  return continueAsNew<typeof executionRefresh>(next, planRefresh(next, queueOf));
}

async function hold(holding: SlotHolding): Promise<RefreshEvent> {
  const { holdSlots } = proxyActivities<RefreshActivities>({
    taskQueue: holding.queue,
    scheduleToStartTimeout: PICKUP,
    startToCloseTimeout: "70m",
    heartbeatTimeout: "5s",
    cancellationType,
    // Whatever went wrong, another instance takes the slots.
    retry: { maximumAttempts: 1 },
  });
  try {
    await holdSlots(holding);
    return { kind: "turn" };
  } catch (error) {
    if (isCancellation(error)) throw error;
    log.warn("an instance does not refresh its slots, others take them", { bootId: holding.bootId, slots: holding.slots.length });
    return { kind: "failed", bootId: holding.bootId };
  }
}

/** Until the instance takes a task again. */
async function probe(instance: Instance): Promise<RefreshEvent> {
  const { probeInstance } = proxyActivities<RefreshActivities>({
    taskQueue: queueOf(instance),
    scheduleToStartTimeout: PICKUP,
    startToCloseTimeout: "5s",
    cancellationType,
    retry: { maximumAttempts: 1 },
  });
  for (let seconds: number = PROBES.first; ; seconds = Math.min(PROBES.longest, seconds * 2)) {
    await sleep(`${seconds}s`);
    try {
      await probeInstance();
      return { kind: "well", bootId: instance.bootId };
    } catch (error) {
      if (isCancellation(error)) throw error;
    }
  }
}

function queueOf({ host, bootId }: Instance): string {
  return refreshInstanceQueue(host, bootId);
}

function describe({ holdings, problems }: RefreshPlan, { suspects }: RefreshState): string {
  const lines = holdings.map(({ shard, queue, slots }) => `| ${shard.id}/${shard.total} | ${queue} | ${slots.length} |`);
  const notes = [...problems, ...suspects.map((bootId) => `${bootId} does not work`)].map((note) => `* ${note}`);
  return ["| instance | queue | slots |", "|---|---|---|", ...lines, "", ...notes].join("\n");
}
