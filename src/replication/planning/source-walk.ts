/** The walk over the source: names first where two of them could get one name, then every repository, then the rest of the long ones. */
import { canCollide, checkDestinationName, destinationName } from "../plan/naming.ts";
import { forEachOf } from "./concurrency.ts";
import type { NameStore } from "./name-store.ts";
import { remaining } from "./plan/cursor.ts";
import type { PlanCursor } from "./plan/cursor.ts";
import { RepositoryPlanner } from "./repository-planner.ts";
import type { StepContext } from "./step-context.ts";
import type { StretchStore } from "./stretch-store.ts";

/** Where the phase goes on in the next step; null when it is over. */
export type PhaseResult = PlanCursor | null;

const REPOSITORIES_AT_ONCE = 32;
/** Long ones: each holds a view of its destinations. */
const LONG_REPOSITORIES_AT_ONCE = 4;

/** Whether something can be wrong with names, so that all must be seen before anything is copied. */
export function needsNames(context: StepContext): boolean {
  const { policy, targets } = context.options;
  return (
    policy.mirror ||
    canCollide(policy.destinations) ||
    targets.some(({ capabilities, destination }) => {
      const least = destination.namespace === "" ? 1 : 2;
      return capabilities.maxPathElements !== null || capabilities.minPathElements > least;
    })
  );
}

export async function walkNames(context: StepContext, names: NameStore, cursor: PlanCursor): Promise<PhaseResult> {
  const { executionId, targets } = context.options;
  let { page } = cursor;
  for (;;) {
    const listed = await context.repositories(page);
    const claims = listed.repositories.flatMap((source) =>
      targets.map(({ destination, capabilities }) => {
        const repository = destinationName(source, destination);
        checkDestinationName(repository, capabilities);
        return { registryId: destination.registryId, repository, source };
      }),
    );
    await names.claim(executionId, claims);
    if (listed.next === null) return null;
    page = listed.next;
    if (context.isFull()) return { ...cursor, page, after: null };
  }
}

export async function walkRepositories(context: StepContext, cursor: PlanCursor): Promise<PhaseResult> {
  const planner = new RepositoryPlanner(context);
  let { page, after } = cursor;
  for (;;) {
    const listed = await context.repositories(page);
    const names = remaining(listed.repositories, after);
    const begun = await forEachOf(names, { width: REPOSITORIES_AT_ONCE, enough: () => context.isFull() }, async (name) => {
      await planner.plan(name, null);
    });
    if (begun < names.length) return { ...cursor, page, after: names[begun - 1] ?? after };
    if (listed.next === null) return null;
    page = listed.next;
    after = null;
    if (context.isFull()) return { ...cursor, page, after };
  }
}

/** What of long repositories is left; the rows tell where each goes on. */
export async function walkRest(context: StepContext, stretches: StretchStore, cursor: PlanCursor): Promise<PhaseResult> {
  const planner = new RepositoryPlanner(context);
  for (;;) {
    const open = await stretches.open(context.options.executionId, LONG_REPOSITORIES_AT_ONCE);
    if (open.length === 0) return null;
    if (context.isFull()) return cursor;
    await forEachOf(open, { width: LONG_REPOSITORIES_AT_ONCE, enough: () => context.isFull() }, async (first) => {
      for (let at: typeof first | null = first; at !== null && !context.isFull();) {
        const planned = await planner.plan(at.repository, at);
        at = planned?.next ? { key: planned.key, repository: planned.repository, next: planned.next } : null;
      }
    });
  }
}
