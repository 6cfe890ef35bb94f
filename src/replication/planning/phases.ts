/** Which phase follows which, and what ends a run before it copies anything. */
import type { DeletionStore } from "./deletion-store.ts";
import type { PlannedEvents } from "./event-store.ts";
import { walkEvents } from "./event-walk.ts";
import { planDeletions, surveyGone, surveySource } from "./mirror-walk.ts";
import type { MirrorStores } from "./mirror-walk.ts";
import type { NameStore } from "./name-store.ts";
import { enter } from "./plan/cursor.ts";
import type { PlanCursor, PlanPhase } from "./plan/cursor.ts";
import { guardMirror } from "./plan/mirror.ts";
import { walkRetry } from "./retry-walk.ts";
import { needsNames, walkNames, walkRepositories, walkRest } from "./source-walk.ts";
import type { StepContext } from "./step-context.ts";
import type { StretchStore } from "./stretch-store.ts";
import type { ItemStore } from "../item-store.ts";

export interface PhaseStores extends MirrorStores {
  readonly stretches: StretchStore;
  readonly names: NameStore;
  readonly deletions: DeletionStore;
  readonly events: PlannedEvents;
  readonly items: Pick<ItemStore, "unfinished">;
}

/** Goes on until the step has done its share, which each phase sees for itself; null when everything is planned. */
export async function runPhases(context: StepContext, stores: PhaseStores, from: PlanCursor): Promise<PlanCursor | null> {
  let cursor = from;
  while (cursor.phase !== "done") {
    const outcome = await runPhase(context, stores, cursor);
    if (outcome.next !== null) return outcome.next;
    cursor = enter({ ...cursor, seen: outcome.seen }, following(context, cursor.phase));
  }
  return null;
}

interface Outcome {
  readonly next: PlanCursor | null;
  readonly seen: number;
}

async function runPhase(context: StepContext, stores: PhaseStores, cursor: PlanCursor): Promise<Outcome> {
  const over = async (phase: Promise<PlanCursor | null>): Promise<Outcome> => ({ next: await phase, seen: cursor.seen });
  switch (cursor.phase) {
    case "names":
      return needsNames(context) ? await over(walkNames(context, stores.names, cursor)) : { next: null, seen: cursor.seen };
    case "survey":
      return await surveySource(context, stores, cursor);
    case "gone":
      return await guarded(context, stores, await surveyGone(context, stores, cursor));
    case "repositories":
      return await over(walkRepositories(context, cursor));
    case "rest":
      return await over(walkRest(context, stores.stretches, cursor));
    case "deletions":
      return await over(planDeletions(context, stores, cursor));
    case "events":
      return await over(walkEvents(context, stores.events, cursor));
    case "retry":
      return await over(walkRetry(context, stores.items, cursor));
    case "done":
      return { next: null, seen: cursor.seen };
    default:
      return cursor.phase satisfies never;
  }
}

function following(context: StepContext, phase: PlanPhase): PlanPhase {
  const mirrors = context.options.policy.mirror && context.options.run.kind !== "audit";
  switch (phase) {
    case "names":
      return mirrors ? "survey" : "repositories";
    case "survey":
      return "gone";
    case "gone":
      return "repositories";
    case "repositories":
      return "rest";
    case "rest":
      return mirrors ? "deletions" : "done";
    default:
      return "done";
  }
}

/** The survey is over: is it more than the policy lets us delete? A dry run tells instead of refusing. */
async function guarded(context: StepContext, stores: PhaseStores, outcome: Outcome): Promise<Outcome> {
  if (outcome.next !== null) return outcome;
  const { executionId, policy, run } = context.options;
  const deletions = await stores.deletions.count(executionId);
  guardMirror(policy, { deletions, seen: outcome.seen }, run.force || run.kind === "dry-run");
  return outcome;
}
