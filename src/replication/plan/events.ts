/** Which changes of local content concern a policy, and what it has to carry out. Pure. */
import { compileFilters } from "./filters.ts";
import type { CompiledFilters } from "./filters.ts";
import type { Policy } from "./policy.ts";

/** A change as the catalog tells it. */
export interface ContentChange {
  readonly type: "push" | "tag" | "delete" | "untag" | "delete-repository";
  readonly repository: string;
  readonly digest: string | null;
  readonly tag: string | null;
  readonly mediaType: string | null;
  readonly artifactType: string | null;
  /** Absent from what was told before subjects were. */
  readonly subject?: string | null;
  readonly origin: "push" | "fill" | "replication";
  readonly originRegistry: number | null;
}

export interface NotedChange {
  readonly repository: string;
  /** A tag, or a digest for content without one. */
  readonly reference: string;
  readonly action: "copy" | "delete";
  /** Null for the copy of a digest: it stays as it is, and something that refers to it is new. */
  readonly digest: string | null;
}

/** Signatures and the like beside what they belong to. */
const ACCESSORY = /^(sha256|sha512)-([a-f0-9]{64,128})(?:\.(?:sig|att|sbom))?$/;

export function changesFor(policy: Policy, changes: readonly ContentChange[]): NotedChange[] {
  // Labels, ages and counts are looked at when the run is planned; here names and tags decide whether there is a run at all.
  const filters = compileFilters(policy.filters.filter(({ type }) => type === "name" || type === "tag"));
  return changes.flatMap((change) => {
    if (!mayFollow(policy, change) || !filters.matchesRepository(change.repository)) return [];
    if (change.type === "push" && changes.some((other) => isTagOf(other, change))) return [];
    return note(change, filters).filter(({ action }) => action === "copy" || policy.deletion);
  });
}

/** Fills are no changes of ours; what came from a registry is not carried back there. */
function mayFollow(policy: Policy, { origin, originRegistry }: ContentChange): boolean {
  if (origin === "fill") return false;
  return originRegistry === null || policy.destinations.every(({ registryId }) => registryId !== originRegistry);
}

/** A push by tag tells of the manifest and of the tag; the tag is what is carried out. */
function isTagOf(other: ContentChange, push: ContentChange): boolean {
  return other.type === "tag" && other.repository === push.repository && other.digest === push.digest;
}

function note(change: ContentChange, filters: CompiledFilters): NotedChange[] {
  const { type, repository, digest, tag } = change;
  const reference = tag ?? digest;
  // The tags of a repository that is gone were told one by one.
  if (reference === null || type === "delete-repository") return [];
  const subject = subjectOf(change);
  if (type === "untag" || type === "delete") {
    return subject === null && isSelected(filters, change) ? [{ repository, reference, action: "delete", digest }] : [];
  }
  const own: NotedChange = { repository, reference, action: "copy", digest };
  if (subject === null) return isSelected(filters, change) ? [own] : [];
  // It goes with what it belongs to; whether that is selected is known when the run is planned.
  const attached: NotedChange = { repository, reference: subject, action: "copy", digest: null };
  return tag !== null && !ACCESSORY.test(tag) && filters.takesEverything ? [attached, own] : [attached];
}

function subjectOf({ subject, tag }: ContentChange): string | null {
  if (subject !== undefined && subject !== null) return subject;
  const accessory = tag === null ? null : ACCESSORY.exec(tag);
  return accessory ? `${accessory[1]}:${accessory[2]}` : null;
}

function isSelected(filters: CompiledFilters, { tag, digest, mediaType, artifactType }: ContentChange): boolean {
  if (filters.takesEverything) return true;
  const selector = filters.selector();
  const artifact = { tag, digest, mediaType, artifactType, pushedAt: null, labels: null };
  return selector.offer([artifact]).length > 0 || selector.finish().length > 0;
}
