/** From verdicts to tasks: stretches of at most so many artifacts, one task for each destination that has something to do. */
import type { Artifact } from "../../adapters/adapter.ts";
import type { ItemDraft, TaskAttrs, TaskDraft, TaskOutcome } from "../../plan/item.ts";
import type { PlannedBatch } from "../../plan/run.ts";

export const ITEMS_PER_TASK = 50;

/** One destination of a source repository. */
export interface Place {
  readonly position: number;
  readonly registryId: number;
  readonly repository: string;
  /** It held nothing when we looked. */
  readonly empty: boolean;
}

export interface WorkItem {
  readonly place: Place;
  readonly item: ItemDraft;
}

/** What is to be done with one artifact at its destinations; an empty list says nothing is. */
export interface ArtifactWork {
  readonly artifact: Pick<Artifact, "mediaType" | "artifactType">;
  readonly items: readonly WorkItem[];
}

/** Tasks that one activity works off together, before they have ids. */
export interface BatchDraft {
  readonly tasks: readonly TaskDraft[];
  /** Artifacts of the source; a batch should not have many more than a task. */
  readonly weight: number;
}

export interface StretchIdentity {
  readonly key: string;
  readonly repository: string;
  readonly operation: TaskAttrs["operation"];
  /** Whether the listing shows tags that hold referrers; absent where it was not seen whole. */
  readonly referrerTags?: boolean;
}

export function draftBatches(stretch: StretchIdentity, work: readonly ArtifactWork[]): BatchDraft[] {
  const busy = work.filter(({ items }) => items.length > 0);
  const batches: BatchDraft[] = [];
  for (let start = 0; start < busy.length; start += ITEMS_PER_TASK) {
    const part = busy.slice(start, start + ITEMS_PER_TASK);
    batches.push({ tasks: draftTasks(stretch, `${stretch.key}#${start / ITEMS_PER_TASK}`, part), weight: part.length });
  }
  return batches;
}

function draftTasks(stretch: StretchIdentity, key: string, work: readonly ArtifactWork[]): TaskDraft[] {
  const places = new Map<number, { place: Place; items: ItemDraft[] }>();
  for (const { place, item } of work.flatMap(({ items }) => items)) {
    const known = places.get(place.position);
    if (known) known.items.push(item);
    else places.set(place.position, { place, items: [item] });
  }
  const type = work.every(({ artifact }) => isNoImage(artifact)) ? "artifact" : "image";
  return [...places.values()]
    .toSorted((a, b) => a.place.position - b.place.position)
    .map(({ place, items }) => ({
      key: `${key}/${place.position}`,
      attrs: attrsOf(stretch, place, { items: items.length, type }),
      items,
      ...outcomeOf(items),
    }));
}

export function attrsOf(
  stretch: StretchIdentity,
  place: Place,
  { items, type }: { readonly items: number; readonly type: TaskAttrs["resource_type"] },
): TaskAttrs {
  return {
    operation: stretch.operation,
    resource_type: type,
    src_resource: `${stretch.repository} [${items} item(s) in total]`,
    dst_resource: `${place.repository} [${items} item(s) in total]`,
    src_repository: stretch.repository,
    dst_repository: place.repository,
    destination: place.position,
    target_registry_id: place.registryId,
    items,
    target_empty: place.empty,
    ...(stretch.referrerTags === undefined ? {} : { referrer_tags: stretch.referrerTags }),
  };
}

/** A task in which nothing is left to do has ended before it began. */
function outcomeOf(items: readonly ItemDraft[]): { outcome?: TaskOutcome } {
  if (items.some(({ settled }) => settled === undefined)) return {};
  const failed = items.find(({ settled }) => settled?.status === "Error")?.settled;
  return { outcome: failed ? { status: "Error", message: failed.message } : { status: "Success", message: "" } };
}

const IMAGE_CONFIGS: ReadonlySet<string> = new Set([
  "application/vnd.oci.image.config.v1+json",
  "application/vnd.docker.container.image.v1+json",
]);

/** Known to be no container image; an index may hold either and counts as one. */
function isNoImage({ mediaType, artifactType }: Pick<Artifact, "mediaType" | "artifactType">): boolean {
  if (mediaType === null || /index|manifest\.list/.test(mediaType)) return false;
  // Harbor has words of its own here.
  return artifactType !== null && artifactType !== "IMAGE" && !IMAGE_CONFIGS.has(artifactType);
}

/** A batch with ids, as it is kept. */
export interface KeptBatch {
  readonly tasks: readonly number[];
  readonly targets: readonly number[];
  readonly weight: number;
}

/**
 * Small batches go together until they are worth an activity, and go first: so most repositories are done soon, and one of few but huge images does not begin when
 * everything else is at its end.
 */
export function joinBatches(batches: readonly KeptBatch[], weight: number): PlannedBatch[] {
  const joined: PlannedBatch[] = [];
  let open: { tasks: number[]; targets: Set<number>; weight: number } | null = null;
  for (const batch of batches.toSorted((a, b) => a.weight - b.weight)) {
    if (open && open.weight + batch.weight > weight) {
      joined.push({ tasks: open.tasks, targets: [...open.targets] });
      open = null;
    }
    open ??= { tasks: [], targets: new Set(), weight: 0 };
    open.tasks.push(...batch.tasks);
    for (const target of batch.targets) open.targets.add(target);
    open.weight += batch.weight;
  }
  if (open) joined.push({ tasks: open.tasks, targets: [...open.targets] });
  return joined;
}
