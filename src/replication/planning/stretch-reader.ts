/** Reads a stretch of a source repository and keeps what the policy selects. */
import type { Artifact } from "../adapters/adapter.ts";
import { compileFilters } from "../plan/filters.ts";
import type { CompiledFilters } from "../plan/filters.ts";
import { withDetails } from "./artifact-details.ts";
import { attachedTags } from "./attachments.ts";
import { referenceOf } from "./source-pages.ts";
import type { StepContext } from "./step-context.ts";

export interface ReadStretch {
  readonly selected: readonly Artifact[];
  /** Signatures and the like under tags of their own, which go with what is selected. */
  readonly attached: readonly Artifact[];
  /** Everything that was listed. */
  readonly listed: number;
  readonly next: string | null;
  /** Whether tags that hold referrers were among what was listed. */
  readonly referrerTags: boolean;
}

/** Where a repository goes on: a page of its listing, and the last of it that is done. */
interface Position {
  readonly page: string | null;
  readonly after: string | null;
}

interface Part {
  readonly artifacts: readonly Artifact[];
  readonly next: Position | null;
}

/** Pages are put together until there is so much: registries page by as little as 100. */
const ARTIFACTS_PER_STRETCH = 1000;
const REFERRER_TAG = /^sha(?:256|512)-[a-f0-9]{64,128}/;

export class StretchReader {
  readonly #context: StepContext;
  /** By tag alone: what it refuses is not worth a request about the rest. */
  readonly byTag: CompiledFilters;
  /** Selects among all artifacts of a repository, so that it must be read in one go. */
  readonly #whole: boolean;

  constructor(context: StepContext) {
    const { filters } = context.options.policy;
    this.#context = context;
    this.byTag = compileFilters(filters.filter(({ type }) => type === "tag"));
    this.#whole = filters.some(({ type }) => type === "newest");
  }

  async read(repository: string, from: string | null): Promise<ReadStretch> {
    const selector = this.#context.options.filters.selector();
    const selected: Artifact[] = [];
    const attached: Artifact[] = [];
    const seen = new Set<string>();
    let [listed, referrerTags] = [0, false];
    let at: Position | null = from === null ? { page: null, after: null } : (JSON.parse(from) as Position);
    do {
      const part: Part = await this.#part(repository, at, this.#whole ? Number.POSITIVE_INFINITY : ARTIFACTS_PER_STRETCH - listed);
      listed += part.artifacts.length;
      referrerTags ||= part.artifacts.some(({ tag }) => tag !== null && REFERRER_TAG.test(tag));
      attached.push(...attachedTags(this.#context.options.filters, part.artifacts));
      for (const artifact of selector.offer(await this.#detailed(repository, part.artifacts))) selected.push(artifact);
      // A registry that pages in a circle has told all it has.
      const next: string = JSON.stringify(part.next);
      at = seen.has(next) ? null : part.next;
      seen.add(next);
    } while (at !== null && (this.#whole || listed < ARTIFACTS_PER_STRETCH));
    for (const artifact of selector.finish()) selected.push(artifact);
    return { selected, attached, listed, next: at === null ? null : JSON.stringify(at), referrerTags };
  }

  /** As much of a page as there is room for; a page that is larger is kept for the stretches that follow. */
  async #part(repository: string, at: Position, room: number): Promise<Part> {
    const { executionId, pages } = this.#context.options;
    const key = { executionId, repository, cursor: at.page };
    const page = pages.find(key) ?? (await this.#context.artifacts(repository, at.page));
    const left = after(page.artifacts, at.after);
    if (left.length > room) {
      pages.keep(key, page);
      const artifacts = left.slice(0, room);
      const last = artifacts.at(-1);
      return { artifacts, next: { page: at.page, after: last ? referenceOf(last) : at.after } };
    }
    pages.drop(key);
    return { artifacts: left, next: page.next === null ? null : { page: page.next, after: null } };
  }

  async #detailed(repository: string, artifacts: readonly Artifact[]): Promise<readonly Artifact[]> {
    const { times, mediaTypes, artifactTypes } = this.#context.options.filters.needs;
    if (!times && !mediaTypes && !artifactTypes) return artifacts;
    return await withDetails(this.#context, repository, this.byTag.selector().offer(artifacts));
  }
}

/** Should it be gone from the list meanwhile: what comes after it in order, since long lists are sorted. */
function after(artifacts: readonly Artifact[], last: string | null): readonly Artifact[] {
  if (last === null) return artifacts;
  const at = artifacts.findIndex((artifact) => referenceOf(artifact) === last);
  return at === -1 ? artifacts.filter((artifact) => referenceOf(artifact) > last) : artifacts.slice(at + 1);
}
