/**
 * What a mirror deletes: tags that replication put at a destination, that are still what it put there, and that the source no longer has. They are
 * collected before the first copy, so that too many of them end the run before it does anything, and deleted after the last.
 */
import { isSlipwayError } from "../../core/errors.ts";
import type { ItemDraft } from "../plan/item.ts";
import { draftBatches } from "./plan/drafts.ts";
import type { Place } from "./plan/drafts.ts";
import { forEachOf } from "./concurrency.ts";
import { keyOf } from "./deletion-store.ts";
import type { Deletion, DeletionStore } from "./deletion-store.ts";
import type { NameStore } from "./name-store.ts";
import { remaining } from "./plan/cursor.ts";
import type { PlanCursor } from "./plan/cursor.ts";
import { sourceName } from "./plan/mirror.ts";
import { insist } from "./retry.ts";
import type { PhaseResult } from "./source-walk.ts";
import { say } from "./step-context.ts";
import type { StepContext, Target } from "./step-context.ts";
import { TargetView } from "./target-view.ts";

export interface MirrorStores {
  readonly deletions: DeletionStore;
  readonly names: NameStore;
  readonly known: { digests(registryId: number, repository: string): Promise<ReadonlyMap<string, { readonly digest: string }>> };
}

const REPOSITORIES_AT_ONCE = 8;
const DELETIONS_PER_STRETCH = 500;

/** Repositories of the source: what of their tags is only at the destinations. */
export async function surveySource(
  context: StepContext,
  stores: MirrorStores,
  cursor: PlanCursor,
): Promise<{ next: PhaseResult; seen: number }> {
  let { page, after, seen } = cursor;
  for (;;) {
    const listed = await context.repositories(page);
    const names = remaining(listed.repositories, after);
    const begun = await forEachOf(names, { width: REPOSITORIES_AT_ONCE, enough: () => context.isFull() }, async (source) => {
      const tags = await sourceTags(context, source);
      for (const target of context.options.targets) seen += await compare(context, stores, { source, target, tags });
    });
    if (begun < names.length) return { next: { ...cursor, page, after: names[begun - 1] ?? after, seen }, seen };
    if (listed.next === null) return { next: null, seen };
    page = listed.next;
    after = null;
    if (context.isFull()) return { next: { ...cursor, page, after, seen }, seen };
  }
}

/** Repositories of the destinations whose source is gone as a whole: where their names tell what they were called there. */
export async function surveyGone(
  context: StepContext,
  stores: MirrorStores,
  cursor: PlanCursor,
): Promise<{ next: PhaseResult; seen: number }> {
  const { targets } = context.options;
  let { seen } = cursor;
  let page = cursor.page;
  for (let position = Number(cursor.after ?? 0); position < targets.length; position += 1) {
    const target = targets[position] as Target;
    do {
      const listed = await targetRepositories(context, target, page);
      const gone = await goneSources(context, stores, { target, repositories: listed.repositories });
      for (const source of gone) seen += await compare(context, stores, { source, target, tags: new Set() });
      page = listed.next;
      if (context.isFull() && page !== null) return { next: { ...cursor, page, after: String(position), seen }, seen };
    } while (page !== null);
  }
  return { next: null, seen };
}

async function sourceTags(context: StepContext, source: string): Promise<ReadonlySet<string>> {
  const view = new TargetView(context.options.source, source);
  await insist(() => view.cover({ from: "", to: null }, context.signal), context.signal);
  return new Set([...view.tags()].map(([tag]) => tag));
}

/** Resolves with how many tags the destination has. */
async function compare(
  context: StepContext,
  stores: MirrorStores,
  { source, target, tags }: { readonly source: string; readonly target: Target; readonly tags: ReadonlySet<string> },
): Promise<number> {
  const { executionId } = context.options;
  const { position, registryId, repository } = context.placeOf(target, source, false);
  const view = new TargetView(target.adapter, repository);
  await insist(() => view.cover({ from: "", to: null }, context.signal), context.signal);
  const known = await stores.known.digests(registryId, repository);
  const deletions = [...view.tags()].flatMap(([tag, digest]): Deletion[] => {
    const ours = known.get(tag)?.digest;
    if (tags.has(tag) || ours === undefined || (digest !== null && digest !== ours)) return [];
    return [{ destination: position, repository, tag, digest: ours, source }];
  });
  await stores.deletions.add(executionId, deletions);
  return [...view.tags()].length;
}

async function targetRepositories(
  context: StepContext,
  target: Target,
  page: string | null,
): Promise<{ readonly repositories: readonly string[]; readonly next: string | null }> {
  const { namespace } = target.destination;
  const { filters } = context.options;
  const first = namespace.split("/")[0] ?? "";
  const namespaces = first === "" ? filters.namespaces : [first];
  try {
    // Names that were given were looked at with the source, whether it has them or not.
    if (filters.names !== null) return { repositories: [], next: null };
    return await insist(() => target.adapter.listRepositories({ names: null, namespaces }, page, context.signal), context.signal);
  } catch (error) {
    if (!isSlipwayError(error) || error.retryable || error.code === "CANCELLED") throw error;
    await context.note(`${target.adapter.name} lists no repositories, so that those which the source lost stay there`, "WARNING");
    return { repositories: [], next: null };
  }
}

async function goneSources(
  context: StepContext,
  stores: MirrorStores,
  { target, repositories }: { readonly target: Target; readonly repositories: readonly string[] },
): Promise<string[]> {
  const { executionId, filters } = context.options;
  const { registryId } = target.destination;
  const ours = repositories.filter((repository) => {
    const source = sourceName(repository, target.destination);
    return source !== null && filters.matchesRepository(source);
  });
  const gone = await stores.names.unclaimed(executionId, registryId, ours);
  return gone.flatMap((repository) => sourceName(repository, target.destination) ?? []);
}

/** The tasks of what the survey found; a tag that has come back to the source meanwhile stays. */
export async function planDeletions(context: StepContext, stores: MirrorStores, cursor: PlanCursor): Promise<PhaseResult> {
  const { executionId, recorder, recorded } = context.options;
  let { after } = cursor;
  for (;;) {
    const rows = await stores.deletions.page(executionId, after, DELETIONS_PER_STRETCH);
    const last = rows.at(-1);
    if (!last) return null;
    for (const group of grouped(rows)) {
      const [first] = group;
      const key = first && `delete:${keyOf(first)}`;
      if (!first || !key || recorded.has(key)) continue;
      await recorder.record(await deletionStretch(context, key, group));
    }
    after = keyOf(last);
    if (context.isFull()) return { ...cursor, after };
  }
}

async function deletionStretch(
  context: StepContext,
  key: string,
  group: readonly Deletion[],
): Promise<Parameters<StepContext["options"]["recorder"]["record"]>[0]> {
  const { run } = context.options;
  const [first] = group as [Deletion, ...Deletion[]];
  const target = context.options.targets.find(({ destination }) => destination.position === first.destination);
  const doomed = await Promise.all(group.map((each) => context.sourceHeads.run(() => isGone(context, each))));
  const deletions = group.filter((_, index) => doomed[index] === true);
  const stretch = { key, repository: first.source, operation: "deletion" as const };
  if (!target) return { key, repository: first.source, next: null, batches: [], unchanged: 0, log: [] };
  const place: Place = {
    position: first.destination,
    registryId: target.destination.registryId,
    repository: first.repository,
    empty: false,
  };
  const work = deletions.map(({ tag, digest }) => ({
    artifact: { mediaType: null, artifactType: null },
    items: [{ place, item: deletionItem({ tag, digest }, run.kind === "dry-run") }],
  }));
  const forecast = {
    destination: place.position,
    repository: place.repository,
    copy: 0,
    unchanged: 0,
    kept: 0,
    bytes: 0,
    delete: deletions.length,
  };
  return {
    key,
    repository: first.source,
    next: null,
    batches: draftBatches(stretch, work),
    unchanged: 0,
    log: deletions.length === 0 ? [] : [say(`${first.repository}: ${deletions.length} tags to delete, which the source no longer has`)],
    ...(run.kind === "dry-run" ? { forecast: [forecast] } : {}),
  };
}

function deletionItem(what: { readonly tag: string; readonly digest: string }, dry: boolean): ItemDraft {
  return { action: "delete", ...what, ...(dry ? { settled: { status: "Skipped", reason: "would-delete", message: "" } } : {}) };
}

async function isGone(context: StepContext, { source, tag }: Deletion): Promise<boolean> {
  try {
    await insist(() => context.options.source.headManifest(source, tag, context.signal), context.signal);
    return false;
  } catch (error) {
    if (isSlipwayError(error, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")) return true;
    throw error;
  }
}

/** Of one destination repository each. */
function grouped(rows: readonly Deletion[]): Deletion[][] {
  const groups: Deletion[][] = [];
  for (const row of rows) {
    const open = groups.at(-1);
    const same = open?.[0]?.destination === row.destination && open[0].repository === row.repository;
    if (open && same) open.push(row);
    else groups.push([row]);
  }
  return groups;
}
