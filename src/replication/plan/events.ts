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
  readonly origin: "push" | "fill" | "replication";
  readonly originRegistry: number | null;
}

export interface NotedChange {
  readonly repository: string;
  /** A tag, or a digest for content without one. */
  readonly reference: string;
  readonly action: "copy" | "delete";
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
    const noted = note(change);
    if (noted === null || (noted.action === "delete" && !policy.deletion)) return [];
    return isSelected(filters, change) ? [noted] : [];
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

function note({ type, repository, digest, tag }: ContentChange): NotedChange | null {
  const reference = tag ?? digest;
  if (reference === null) return null;
  const accessory = ACCESSORY.exec(reference);
  switch (type) {
    case "push":
    case "tag":
      // It goes with what it belongs to.
      if (accessory) return { repository, reference: `${accessory[1]}:${accessory[2]}`, action: "copy", digest: null };
      return { repository, reference, action: "copy", digest };
    case "untag":
    case "delete":
      return accessory ? null : { repository, reference, action: "delete", digest };
    case "delete-repository":
      // Its tags were told one by one.
      return null;
  }
}

function isSelected(filters: CompiledFilters, { repository, tag, digest, mediaType, artifactType }: ContentChange): boolean {
  if (!filters.matchesRepository(repository)) return false;
  if (filters.takesEverything) return true;
  // Whether its parent is selected is known when the run is planned.
  if (tag !== null && ACCESSORY.test(tag)) return true;
  const selector = filters.selector();
  const artifact = { tag, digest, mediaType, artifactType, pushedAt: null, labels: null };
  return selector.offer([artifact]).length > 0 || selector.finish().length > 0;
}
