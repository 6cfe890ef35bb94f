/** What one step of planning works with. Everything in it lives as long as the step. */
import type { Clock } from "../../core/clock.ts";
import type { LogDraft, LogLevel } from "../../execution/log-store.ts";
import type { AdapterCapabilities, ArtifactPage, PrepareResult, RegistryAdapter, RepositoryPage } from "../adapters/adapter.ts";
import type { KnownStore } from "../known-store.ts";
import { destinationName } from "../plan/naming.ts";
import type { CompiledFilters } from "../plan/filters.ts";
import type { Destination, Policy } from "../plan/policy.ts";
import type { Run } from "../run-store.ts";
import { Gate } from "./concurrency.ts";
import type { Place } from "./plan/drafts.ts";
import type { Recorder } from "./recorder.ts";
import { insist } from "./retry.ts";
import type { SourcePages } from "./source-pages.ts";
import type { Views } from "./views.ts";

export interface Target {
  readonly destination: Destination;
  readonly adapter: RegistryAdapter;
  readonly capabilities: AdapterCapabilities;
}

export interface StepLimits {
  /** How long a step goes on beginning things. */
  readonly durationMs: number;
  /** Batches after which it begins nothing more. */
  readonly batches: number;
}

export interface StepContextOptions {
  readonly executionId: number;
  readonly run: Run;
  readonly policy: Policy;
  readonly filters: CompiledFilters;
  readonly source: RegistryAdapter;
  readonly targets: readonly Target[];
  readonly known: Pick<KnownStore, "digestsOfTags" | "tagsOfDigests" | "record">;
  readonly views: Views;
  readonly pages: SourcePages;
  readonly recorder: Recorder;
  readonly log: (drafts: readonly LogDraft[]) => Promise<void>;
  /** Stretches that an earlier try of this step recorded. */
  readonly recorded: ReadonlySet<string>;
  readonly limits: StepLimits;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Repositories that are looked at together; requests are bounded by the gate of each side. */
const HEADS_AT_ONCE = 64;

export class StepContext {
  readonly options: StepContextOptions;
  readonly sourceHeads = new Gate(HEADS_AT_ONCE);
  readonly targetHeads = new Gate(HEADS_AT_ONCE);
  readonly #startedAt: number;
  readonly #noted = new Set<string>();
  readonly #prepared = new Map<string, Promise<PrepareResult>>();
  #probe: Promise<readonly string[]> | null = null;
  #page: { readonly cursor: string | null; readonly page: RepositoryPage } | null = null;

  constructor(options: StepContextOptions) {
    this.options = options;
    this.#startedAt = options.clock.now();
  }

  get signal(): AbortSignal {
    return this.options.signal;
  }

  /** What refers to an artifact can be told, and is compared with what was copied. */
  get tellsReferrers(): boolean {
    const { source } = this.options;
    return source.capabilities.listsDigests || source.referrersApi !== false;
  }

  /** The step has done its share. */
  isFull(): boolean {
    const { clock, limits, recorder } = this.options;
    return clock.now() - this.#startedAt >= limits.durationMs || recorder.batches >= limits.batches;
  }

  /** Repositories of the source that the policy is about; the last page is remembered for the phase that comes next. */
  async repositories(cursor: string | null): Promise<RepositoryPage> {
    if (this.#page?.cursor === cursor) return this.#page.page;
    const { source, filters } = this.options;
    const query = { names: filters.names, namespaces: filters.namespaces };
    const listed = await insist(() => source.listRepositories(query, cursor, this.signal), this.signal);
    const names = [...new Set(listed.repositories)].filter((name) => filters.matchesRepository(name));
    const page = { repositories: names, next: listed.next === cursor ? null : listed.next };
    this.#page = { cursor, page };
    return page;
  }

  async artifacts(repository: string, cursor: string | null): Promise<ArtifactPage> {
    return await insist(() => this.options.source.listArtifacts(repository, cursor, this.signal), this.signal);
  }

  /** Asks what nobody else is asking already; the answer is for the first, the others only wait. */
  async probeReferrers(ask: () => Promise<readonly string[]>): Promise<readonly string[]> {
    if (this.#probe) {
      await this.#probe.catch(() => undefined);
      return this.options.source.referrersApi === true ? await ask() : [];
    }
    this.#probe = ask();
    return await this.#probe;
  }

  /** A line of the planning's log, once in a step. */
  async note(line: string, level: LogLevel = "INFO"): Promise<void> {
    if (this.#noted.has(line)) return;
    this.#noted.add(line);
    await this.options.log([say(line, level)]);
  }

  placeOf(target: Target, source: string, empty: boolean): Place {
    const { position, registryId } = target.destination;
    return { position, registryId, repository: destinationName(source, target.destination), empty };
  }

  /** Makes the project of a destination; once for each. */
  async prepare(target: Target, repository: { readonly source: string; readonly destination: string }): Promise<PrepareResult> {
    const { position } = target.destination;
    const key = JSON.stringify([position, repository.destination.split("/")[0]]);
    let preparing = this.#prepared.get(key);
    if (!preparing) {
      preparing = insist(async () => {
        const isPublic = await this.options.source.isPublic(repository.source, this.signal);
        return await target.adapter.prepare(repository.destination, { public: isPublic }, this.signal);
      }, this.signal);
      this.#prepared.set(key, preparing);
    }
    return await preparing;
  }
}

export function say(line: string, level: LogLevel = "INFO"): LogDraft {
  return { taskId: null, level, line };
}
