/** Reads a stretch of a source repository and keeps what the policy selects. */
import type { Artifact } from "../adapters/adapter.ts";
import { compileFilters } from "../plan/filters.ts";
import type { CompiledFilters } from "../plan/filters.ts";
import { withDetails } from "./artifact-details.ts";
import type { StepContext } from "./step-context.ts";

export interface ReadStretch {
  readonly selected: readonly Artifact[];
  /** Everything that was listed. */
  readonly listed: number;
  readonly next: string | null;
  /** Whether tags that hold referrers were among what was listed. */
  readonly referrerTags: boolean;
}

/** Pages are put together until there is so much: registries page by as little as 100. */
const ARTIFACTS_PER_STRETCH = 1000;
const REFERRER_TAG = /^sha(?:256|512)-[a-f0-9]{64,128}/;

export class StretchReader {
  readonly #context: StepContext;
  /** By tag alone: what it refuses is not worth a request about the rest. */
  readonly #byTag: CompiledFilters;
  /** Selects among all artifacts of a repository, so that it must be read in one go. */
  readonly #whole: boolean;

  constructor(context: StepContext) {
    const { filters } = context.options.policy;
    this.#context = context;
    this.#byTag = compileFilters(filters.filter(({ type }) => type === "tag"));
    this.#whole = filters.some(({ type }) => type === "newest");
  }

  async read(repository: string, from: string | null): Promise<ReadStretch> {
    const { filters } = this.#context.options;
    const selector = filters.selector();
    const selected: Artifact[] = [];
    const seen = new Set<string>();
    let [listed, referrerTags, cursor] = [0, false, from];
    do {
      const page = await this.#context.artifacts(repository, cursor);
      listed += page.artifacts.length;
      referrerTags ||= page.artifacts.some(({ tag }) => tag !== null && REFERRER_TAG.test(tag));
      selected.push(...selector.offer(await this.#detailed(repository, page.artifacts)));
      // A registry that pages in a circle has told all it has.
      cursor = page.next !== null && !seen.has(page.next) ? page.next : null;
      if (cursor !== null) seen.add(cursor);
    } while (cursor !== null && (this.#whole || listed < ARTIFACTS_PER_STRETCH));
    selected.push(...selector.finish());
    return { selected, listed, next: cursor, referrerTags };
  }

  async #detailed(repository: string, artifacts: readonly Artifact[]): Promise<readonly Artifact[]> {
    const { times, mediaTypes, artifactTypes } = this.#context.options.filters.needs;
    if (!times && !mediaTypes && !artifactTypes) return artifacts;
    return await withDetails(this.#context, repository, this.#byTag.selector().offer(artifacts));
  }
}
