/**
 * What destinations have of the artifacts of one stretch, at the least cost: what is not in their listing is absent, what was seen there within a day is
 * believed, and only the rest is asked for, as is the source where its listing tells no digests.
 */
import { isSlipwayError } from "../../core/errors.ts";
import type { Artifact } from "../adapters/adapter.ts";
import type { KnownTag } from "../known-store.ts";
import { isFresh, judge } from "./plan/compare.ts";
import type { Sight, Verdict } from "./plan/compare.ts";
import { insist } from "./retry.ts";
import { referenceOf } from "./source-pages.ts";
import type { StepContext, Target } from "./step-context.ts";

/** What is known of a destination repository by itself. */
export interface DestinationTags {
  /** What it does not show is not there. */
  readonly complete: boolean;
  readonly empty: boolean;
  /** Undefined: not there. Null: there as far as we know, and what it is has to be asked. */
  digestOf(tag: string): string | null | undefined;
  hasUntagged(digest: string): boolean;
}

/** One destination of the repository, as it was found. */
export interface Seen {
  readonly target: Target;
  readonly repository: string;
  /** Null: the destination could not be asked, so everything is handed to copying, which asks again when it is back. */
  readonly view: DestinationTags | null;
  readonly known: ReadonlyMap<string, KnownTag>;
}

export interface Judged {
  readonly artifact: Artifact;
  /** In the order of the destinations; null when the artifact is gone from the source. */
  readonly verdicts: readonly Verdict[] | null;
}

export class Sighting {
  readonly #context: StepContext;
  readonly #source: string;
  readonly #seen: readonly Seen[];
  readonly #confirmed = new Map<Seen, { repository: string; tag: string; digest: string }[]>();

  constructor(context: StepContext, source: string, seen: readonly Seen[]) {
    this.#context = context;
    this.#source = source;
    this.#seen = seen;
  }

  async judge(artifacts: readonly Artifact[]): Promise<Judged[]> {
    const judged = await Promise.all(artifacts.map((artifact) => this.#judgeOne(artifact)));
    for (const [seen, drafts] of this.#confirmed) await this.#context.options.known.record(seen.target.destination.registryId, drafts);
    return judged;
  }

  async #judgeOne(listed: Artifact): Promise<Judged> {
    const there = this.#seen.map((seen) => this.#presence(seen, listed));
    // Nothing to compare with: the copier reads the manifest anyway.
    if (!there.some((presence) => presence.there)) return { artifact: listed, verdicts: there.map(() => "copy") };
    const artifact = await this.#withDigest(listed);
    if (artifact === null) return { artifact: listed, verdicts: null };
    const verdicts = await Promise.all(
      this.#seen.map(async (seen, index): Promise<Verdict> => {
        const presence = there[index] ?? { there: false };
        const target = presence.there ? await this.#settle(seen, artifact, presence) : presence;
        return judge({ source: artifact.digest, target }, this.#context.options.policy.override);
      }),
    );
    return { artifact, verdicts };
  }

  #presence(seen: Seen, artifact: Artifact): Sight["target"] & { readonly known?: boolean } {
    const reference = referenceOf(artifact);
    const known = seen.known.get(reference);
    const fresh = known !== undefined && isFresh(known.verifiedAt, this.#context.options.clock.now());
    if (seen.view === null) return { there: false };
    if (artifact.tag === null) {
      if (seen.view.hasUntagged(reference)) return { there: true, digest: reference };
      // By digest it cannot be something else, but listing does not show it.
      return seen.view.complete && seen.target.capabilities.listsDigests
        ? { there: false }
        : { there: true, digest: fresh ? reference : null, known: fresh };
    }
    const digest = seen.view.digestOf(artifact.tag);
    if (digest === undefined) return { there: false };
    return { there: true, digest: digest ?? (fresh ? known.digest : null), known: digest === null && fresh };
  }

  /** Asks the destination where it has to be asked: nothing is known, or what is known would keep us from copying. */
  async #settle(seen: Seen, artifact: Artifact, presence: Sight["target"] & { readonly known?: boolean }): Promise<Sight["target"]> {
    if (!presence.there) return presence;
    const differs = presence.digest !== artifact.digest;
    const { override } = this.#context.options.policy;
    if (presence.digest !== null && !(presence.known === true && differs && !override)) return presence;
    const reference = referenceOf(artifact);
    const digest = await this.#headTarget(seen, reference);
    if (digest === undefined) return { there: false };
    // Only what we would have put there is remembered: a mirror deletes by this memory.
    if (digest !== null && digest === artifact.digest) this.#confirm(seen, reference, digest);
    return { there: true, digest };
  }

  #confirm(seen: Seen, tag: string, digest: string): void {
    const drafts = this.#confirmed.get(seen) ?? [];
    drafts.push({ repository: seen.repository, tag, digest });
    this.#confirmed.set(seen, drafts);
  }

  /** Null when the source lists what it does not have. */
  async #withDigest(artifact: Artifact): Promise<Artifact | null> {
    if (artifact.digest !== null) return artifact;
    const { source } = this.#context.options;
    const { signal, sourceHeads } = this.#context;
    try {
      const head = await sourceHeads.run(() => insist(() => source.headManifest(this.#source, referenceOf(artifact), signal), signal));
      return { ...artifact, digest: head.digest, mediaType: artifact.mediaType ?? head.mediaType };
    } catch (error) {
      if (isSlipwayError(error, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")) return null;
      // What the registry has against this one artifact is told by its item.
      if (isSlipwayError(error) && !error.retryable && error.code !== "CANCELLED") return artifact;
      throw error;
    }
  }

  /** Undefined: not there after all. Null: it did not say. */
  async #headTarget(seen: Seen, reference: string): Promise<string | null | undefined> {
    const { signal, targetHeads } = this.#context;
    try {
      const head = await targetHeads.run(() => insist(() => seen.target.adapter.headManifest(seen.repository, reference, signal), signal));
      return head.digest;
    } catch (error) {
      if (isSlipwayError(error, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")) return undefined;
      if (isSlipwayError(error, "CANCELLED") || !isSlipwayError(error)) throw error;
      return null;
    }
  }
}
