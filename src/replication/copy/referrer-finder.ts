/**
 * What refers to a digest at the source, at next to no cost: the API is asked where the source has it; where it has none, the tags of a repository
 * are listed once, and only digests that have a tag of their own are asked about.
 */
import { LRUCache } from "lru-cache";
import { isSlipwayError } from "../../core/errors.ts";
import { referrersTag } from "../../oci/digests.ts";
import type { Descriptor } from "../../upstream/types.ts";
import type { ArtifactPage, RegistryAdapter } from "../adapters/adapter.ts";
import { atSource } from "./at-side.ts";
import type { HostLanes } from "./lanes.ts";

export interface ReferrerQuestion {
  readonly source: RegistryAdapter;
  readonly lanes: HostLanes;
  readonly repository: string;
  readonly digest: string;
  /** False when the listing showed no tag that holds referrers; undefined when nobody looked. */
  readonly tagsShown: boolean | undefined;
}

export interface Attached {
  readonly descriptors: readonly Descriptor[];
  /** Tags such as `sha256-<digest>.sig`. */
  readonly tags: readonly string[];
}

const LISTING_TTL_MS = 120_000;
const MAX_REPOSITORIES = 500;
const MAX_PAGES = 200;
const MAX_REFERRERS = 1_000;
const HOLDS_REFERRERS = /^sha(?:256|512)-[a-f0-9]{64}/;

export class ReferrerFinder {
  readonly #listings = new LRUCache<string, Promise<readonly string[]>>({ max: MAX_REPOSITORIES, ttl: LISTING_TTL_MS });
  readonly #probes = new Map<number, Promise<unknown>>();

  async find(question: ReferrerQuestion, signal: AbortSignal): Promise<Attached> {
    const { source, digest } = question;
    const tags = question.tagsShown === false ? [] : await this.#tags(question, signal);
    const prefix = referrersTag(digest);
    const attached = tags.filter((tag) => tag.startsWith(`${prefix}.`));
    // One of many asks a source that is not known yet.
    const probing = source.referrersApi === null ? this.#probes.get(source.registryId) : undefined;
    if (probing) await probing.catch(() => undefined);
    if (source.referrersApi === false && !tags.includes(prefix)) return { descriptors: [], tags: attached };
    const asked = this.#ask(question, signal);
    if (source.referrersApi === null) this.#probe(source.registryId, asked);
    return { descriptors: (await asked).slice(0, MAX_REFERRERS), tags: attached };
  }

  #ask({ source, lanes, repository, digest }: ReferrerQuestion, signal: AbortSignal): Promise<readonly Descriptor[]> {
    return lanes.small.run(0, () => atSource(source, () => source.listReferrers(repository, digest, signal)), signal);
  }

  #probe(registryId: number, asked: Promise<unknown>): void {
    if (this.#probes.has(registryId)) return;
    this.#probes.set(registryId, asked);
    const forget = (): void => void this.#probes.delete(registryId);
    asked.then(forget, forget);
  }

  /** Those of a repository that hold referrers; asked once for many batches. */
  async #tags(question: ReferrerQuestion, signal: AbortSignal): Promise<readonly string[]> {
    const key = `${question.source.registryId} ${question.repository}`;
    let listing = this.#listings.get(key);
    if (!listing) {
      listing = this.#list(question, signal);
      this.#listings.set(key, listing);
      listing.catch(() => this.#listings.delete(key));
    }
    try {
      return await listing;
    } catch (error) {
      // Another batch's end must not be ours.
      if (signal.aborted || !isSlipwayError(error, "CANCELLED")) throw error;
      return await this.#list(question, signal);
    }
  }

  async #list({ source, lanes, repository }: ReferrerQuestion, signal: AbortSignal): Promise<readonly string[]> {
    const found: string[] = [];
    let cursor: string | null = null;
    for (let pages = 0; pages < MAX_PAGES; pages += 1) {
      const at: string | null = cursor;
      const page: ArtifactPage = await lanes.small.run(
        0,
        () => atSource(source, () => source.listArtifacts(repository, at, signal)),
        signal,
      );
      for (const { tag } of page.artifacts) if (tag !== null && HOLDS_REFERRERS.test(tag)) found.push(tag);
      cursor = page.next;
      if (cursor === null) break;
    }
    return found;
  }
}
