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
  const copies = changes.filter(({ action }) => action === "copy");
  const key = `${repository}:${first}`;
  if (copies.length > 0 && !recorded.has(key)) {
    const given = await selectedOf(context, repository, copies.filter((change) => !isAttachment(change)).map(artifactOf));
    const attached = await parentsOf(context, repository, copies.filter(isAttachment));
    await new RepositoryPlanner(context).planGiven({ repository, key }, given, attached);
  }
  const deletions = changes.filter(({ action }) => action === "delete");
  if (deletions.length === 0 || recorded.has(`delete:${key}`)) return;
  if (!policy.deletion) {
    await context.note(`${repository}: ${deletions.length} deletions are left alone, since the policy does not carry them out`);
    return;
  }
  await recorder.record(deletionStretch(context, { key: `delete:${key}`, repository }, deletions));
}

async function selectedOf(context: StepContext, repository: string, artifacts: readonly Artifact[]): Promise<Artifact[]> {
  const selector = context.options.filters.selector();
  return [...selector.offer(await withDetails(context, repository, artifacts)), ...selector.finish()];
}

/** What got a signature or the like: as it is selected itself, by the tags that lead to it. */
async function parentsOf(context: StepContext, repository: string, changes: readonly EventRow[]): Promise<Artifact[]> {
  const { filters, source } = context.options;
  const parents: Artifact[] = [];
  for (const change of changes) {
    const parent = artifactOf(change);
    const tags = filters.takesEverything ? [] : ((await source.tagsOf?.(repository, change.reference, context.signal)) ?? []);
    const candidates = tags.length === 0 ? [parent] : tags.map((tag) => ({ ...parent, tag, digest: null }));
    if ((await selectedOf(context, repository, candidates)).length > 0) parents.push(parent);
  }
  return parents;
}

/** Nothing of the digest has changed but what refers to it. */
function isAttachment({ reference, digest }: EventRow): boolean {
  return digest === null && isDigest(reference);
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
