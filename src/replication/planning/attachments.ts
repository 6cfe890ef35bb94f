/**
 * Signatures and the like that came later to what has not changed. Listings that tell them are compared with what was copied along; a registry with the
 * referrers API is asked about each unchanged tag; tags that hold referrers are listed, and go with the tags that are selected.
 */
import { isSlipwayError } from "../../core/errors.ts";
import { referrersTag } from "../../oci/digests.ts";
import type { Artifact } from "../adapters/adapter.ts";
import type { CompiledFilters } from "../plan/filters.ts";
import type { Verdict } from "./plan/compare.ts";
import { insist } from "./retry.ts";
import type { Judged, Seen } from "./sighting.ts";
import { referenceOf } from "./source-pages.ts";
import type { StepContext } from "./step-context.ts";

/** As copying takes along. */
const MOST_REFERRERS = 1_000;
const HOLDER = /^(sha256|sha512)-([a-f0-9]{64,128})/;

/** Unchanged artifacts become copies where something that refers to them was not copied along. */
export async function noticeReferrers(
  context: StepContext,
  repository: string,
  { seen, judged }: { readonly seen: readonly Seen[]; readonly judged: readonly Judged[] },
): Promise<Judged[]> {
  const probe = await probing(context, repository, judged);
  return await Promise.all(
    judged.map(async (one): Promise<Judged> => {
      const { artifact, verdicts } = one;
      if (verdicts === null || artifact.digest === null || !verdicts.includes("unchanged")) return one;
      const referrers = artifact === probe?.artifact ? probe.referrers : await referrersOf(context, repository, artifact);
      if (referrers.length === 0) return one;
      return { artifact, verdicts: verdicts.map((verdict, index) => withReferrers(verdict, { artifact, seen: seen[index], referrers })) };
    }),
  );
}

function withReferrers(
  verdict: Verdict,
  { artifact, seen, referrers }: { readonly artifact: Artifact; readonly seen: Seen | undefined; readonly referrers: readonly string[] },
): Verdict {
  if (verdict !== "unchanged") return verdict;
  const known = seen?.known.get(referenceOf(artifact));
  const copied = known?.digest === artifact.digest ? known.referrers : null;
  return copied !== null && referrers.every((digest) => copied.includes(digest)) ? "unchanged" : "copy";
}

/** One question finds out whether the source has the API; the others wait for it. */
async function probing(
  context: StepContext,
  repository: string,
  judged: readonly Judged[],
): Promise<{ readonly artifact: Artifact; readonly referrers: readonly string[] } | null> {
  const first = judged.find(
    ({ artifact, verdicts }) => artifact.digest !== null && artifact.referrers === undefined && verdicts?.includes("unchanged") === true,
  );
  if (first === undefined || context.options.source.referrersApi !== null) return null;
  return { artifact: first.artifact, referrers: await context.probeReferrers(() => ask(context, repository, first.artifact)) };
}

async function referrersOf(context: StepContext, repository: string, artifact: Artifact): Promise<readonly string[]> {
  if (artifact.referrers !== undefined) return artifact.referrers;
  return context.options.source.referrersApi === true ? await ask(context, repository, artifact) : [];
}

/** Whatever a source has against the question: the artifact is as it was. */
async function ask({ options, sourceHeads, signal }: StepContext, repository: string, { digest }: Artifact): Promise<readonly string[]> {
  try {
    const found = await sourceHeads.run(() => insist(() => options.source.listReferrers(repository, digest ?? "", signal), signal));
    return found.slice(0, MOST_REFERRERS).map((each) => each.digest);
  } catch (error) {
    if (isSlipwayError(error) && !error.retryable && error.code !== "CANCELLED") return [];
    throw error;
  }
}

/** Tags under which signatures and the like stand, with filters that do not select them by themselves. */
export function attachedTags(filters: CompiledFilters, listed: readonly Artifact[]): Artifact[] {
  if (filters.takesEverything) return [];
  return listed.filter(({ tag, subject }) => tag !== null && (HOLDER.test(tag) || (subject !== undefined && subject !== null)));
}

/** Those whose parents are selected: unchanged ones of the same stretch, and in long repositories what is known to have been copied. */
export async function attachedToSelected(
  context: StepContext,
  attached: readonly Artifact[],
  { seen, judged, byTag }: { readonly seen: readonly Seen[]; readonly judged: readonly Judged[]; readonly byTag: CompiledFilters | null },
): Promise<Artifact[]> {
  if (attached.length === 0) return [];
  const unchanged = judged.filter(({ verdicts }) => verdicts?.includes("unchanged") === true);
  const parents = new Set(unchanged.flatMap(({ artifact }) => artifact.digest ?? []));
  if (byTag !== null) {
    const digests = [...new Set(attached.map(parentOf))];
    for (const { target, repository } of seen) {
      const known = await context.options.known.tagsOfDigests(target.destination.registryId, repository, digests);
      for (const { tag, digest } of known) if (byTag.selector().offer([bare(tag)]).length > 0) parents.add(digest);
    }
  }
  const holders = new Set([...parents].map(referrersTag));
  return attached.filter((artifact) => parents.has(parentOf(artifact)) || holders.has((artifact.tag ?? "").split(".")[0] ?? ""));
}

function parentOf({ tag, subject }: Artifact): string {
  const match = HOLDER.exec(tag ?? "");
  return subject ?? (match ? `${match[1]}:${match[2]}` : "");
}

function bare(tag: string): Artifact {
  return { tag, digest: null, mediaType: null, artifactType: null, pushedAt: null, labels: null };
}
