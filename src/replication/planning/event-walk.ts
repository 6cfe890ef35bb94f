/** The changes of a run that events started: each is compared by itself, so that one pushed tag costs no listing of its repository. */
import { isDigest } from "../../oci/digests.ts";
import type { Artifact } from "../adapters/adapter.ts";
import { checkDestinationName } from "../plan/naming.ts";
import { withDetails } from "./artifact-details.ts";
import type { EventRow, PlannedEvents } from "./event-store.ts";
import { draftBatches } from "./plan/drafts.ts";
import type { ArtifactWork } from "./plan/drafts.ts";
import type { PlanCursor } from "./plan/cursor.ts";
import { RepositoryPlanner } from "./repository-planner.ts";
import type { PhaseResult } from "./source-walk.ts";
import { say } from "./step-context.ts";
import type { StepContext } from "./step-context.ts";

const EVENTS_PER_PAGE = 500;

export async function walkEvents(context: StepContext, events: PlannedEvents, cursor: PlanCursor): Promise<PhaseResult> {
  const { executionId } = context.options;
  let { after } = cursor;
  for (;;) {
    const rows = await events.page(executionId, after === null ? null : (JSON.parse(after) as [string, string]), EVENTS_PER_PAGE);
    const last = rows.at(-1);
    if (!last) return null;
    for (const [repository, changes] of byRepository(rows)) await planChanges(context, repository, changes);
    after = JSON.stringify([last.repository, last.reference]);
    if (context.isFull()) return { ...cursor, after };
  }
}

async function planChanges(context: StepContext, repository: string, changes: readonly EventRow[]): Promise<void> {
  const { filters, targets, policy, recorded, recorder } = context.options;
  const first = changes[0]?.reference ?? "";
  if (!filters.matchesRepository(repository)) return;
  for (const target of targets) checkDestinationName(context.placeOf(target, repository, false).repository, target.capabilities);
  const copies = changes.filter(({ action }) => action === "copy").map(artifactOf);
  const key = `${repository}:${first}`;
  if (copies.length > 0 && !recorded.has(key)) {
    const found = await withDetails(context, repository, copies);
    const selector = filters.selector();
    const selected = [...selector.offer(found), ...selector.finish()];
    await new RepositoryPlanner(context).planGiven({ repository, key }, selected);
  }
  const deletions = changes.filter(({ action }) => action === "delete");
  if (deletions.length === 0 || recorded.has(`delete:${key}`)) return;
  if (!policy.deletion) {
    await context.note(`${repository}: ${deletions.length} deletions are left alone, since the policy does not carry them out`);
    return;
  }
  await recorder.record(deletionStretch(context, { key: `delete:${key}`, repository }, deletions));
}

function deletionStretch(
  context: StepContext,
  { key, repository }: { readonly key: string; readonly repository: string },
  deletions: readonly EventRow[],
): Parameters<StepContext["options"]["recorder"]["record"]>[0] {
  const work = deletions.map(({ reference, digest }): ArtifactWork => ({
    artifact: { mediaType: null, artifactType: null },
    items: context.options.targets.map((target) => ({
      place: context.placeOf(target, repository, false),
      item: { action: "delete", tag: isDigest(reference) ? null : reference, digest: digest ?? (isDigest(reference) ? reference : null) },
    })),
  }));
  const log = [say(`${repository}: ${deletions.length} deletions to carry out`)];
  return { key, repository, next: null, batches: draftBatches({ key, repository, operation: "deletion" }, work), unchanged: 0, log };
}

function artifactOf({ reference }: EventRow): Artifact {
  const untagged = isDigest(reference);
  const tag = untagged ? null : reference;
  // A tag may have moved since: what it is now is asked of the source.
  return { tag, digest: untagged ? reference : null, mediaType: null, artifactType: null, pushedAt: null, labels: [] };
}

function byRepository(rows: readonly EventRow[]): Map<string, EventRow[]> {
  const groups = new Map<string, EventRow[]>();
  for (const row of rows) {
    const group = groups.get(row.repository);
    if (group) group.push(row);
    else groups.set(row.repository, [row]);
  }
  return groups;
}
