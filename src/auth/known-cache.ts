/**
 * What a process knows of accounts and roles. An entry is used while no invalidation has named one of its scopes and the channel of
 * invalidations can be trusted; otherwise it is read again. Only when the database is away does an entry that nobody has revoked hold on,
 * for a bounded time.
 */
import { LRUCache } from "lru-cache";
import type { Clock } from "../core/clock.ts";
import { isSlipwayError } from "../core/errors.ts";
import type { Invalidations } from "./invalidations.ts";

export interface KnownCacheOptions {
  readonly invalidations: Invalidations;
  readonly clock: Clock;
  readonly maxEntries: number;
  /** An entry is read again after this time even if no invalidation came. */
  readonly freshMs: number;
  /** How long an entry holds after it was last read while the database is away. */
  readonly staleOnDbErrorMs: number;
}

export interface Loaded<Value> {
  readonly value: Value;
  readonly scopes: readonly string[];
}

interface Entry<Value> extends Loaded<Value> {
  readonly confirmedAt: number;
  /** Counts the times at which messages were lost; what was read before the last loss is not trusted. */
  readonly epoch: number;
}

interface Flight<Value> {
  readonly promise: Promise<Value | null>;
  readonly epoch: number;
  readonly dropped: Set<string>;
  readonly startedAt: number;
}

/** A database that is away makes every question wait: one in this time is enough. */
const ASK_AGAIN_MS = 1_000;

export class KnownCache<Value extends object | number> {
  readonly #options: KnownCacheOptions;
  readonly #entries: LRUCache<string, Entry<Value>>;
  readonly #byScope = new Map<string, Set<string>>();
  /** The newest load of each key, which others may join. */
  readonly #joinable = new Map<string, Flight<Value>>();
  readonly #flights = new Set<Omit<Flight<Value>, "promise">>();
  readonly #unsubscribe: readonly (() => void)[];
  #epoch = 0;
  #hits = 0;
  #loads = 0;
  #staleUses = 0;
  /** Until then the database is not asked where a known value will do. */
  #awayUntil = Number.NEGATIVE_INFINITY;

  constructor(options: KnownCacheOptions) {
    this.#options = options;
    this.#entries = new LRUCache({
      max: options.maxEntries,
      dispose: (entry, key) => this.#forgetScopes(entry.scopes, key),
    });
    this.#unsubscribe = [
      options.invalidations.subscribe((scopes) => this.#invalidate(scopes)),
      options.invalidations.onReset(() => {
        this.#epoch += 1;
      }),
    ];
  }

  /** Synchronous, from memory: undefined when the value must be loaded. */
  peek(key: string): Value | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    if (this.#isFresh(entry)) {
      this.#hits += 1;
      return entry.value;
    }
    return this.#options.clock.now() < this.#awayUntil ? this.#useStale(entry) : undefined;
  }

  /** Null when there is no such thing, which is not remembered. */
  async load(key: string, loader: () => Promise<Loaded<Value> | null>): Promise<Value | null> {
    const known = this.peek(key);
    if (known !== undefined) return known;
    const running = this.#joinable.get(key);
    // A load that began before an invalidation, or before one that has not arrived yet, may bring back what was true then.
    if (running && running.epoch === this.#epoch && running.dropped.size === 0 && this.#options.invalidations.trusted()) {
      return await running.promise;
    }
    return await this.#start(key, loader);
  }

  stats(): { readonly entries: number; readonly hits: number; readonly loads: number; readonly staleUses: number } {
    return { entries: this.#entries.size, hits: this.#hits, loads: this.#loads, staleUses: this.#staleUses };
  }

  close(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.#entries.clear();
  }

  async #start(key: string, loader: () => Promise<Loaded<Value> | null>): Promise<Value | null> {
    this.#loads += 1;
    const dropped = new Set<string>();
    const epoch = this.#epoch;
    const startedAt = this.#options.clock.now();
    const promise = this.#run(key, loader, { dropped, epoch, startedAt });
    const flight: Flight<Value> = { promise, epoch, dropped, startedAt };
    this.#joinable.set(key, flight);
    try {
      return await promise;
    } finally {
      if (this.#joinable.get(key) === flight) this.#joinable.delete(key);
    }
  }

  async #run(key: string, loader: () => Promise<Loaded<Value> | null>, flight: Omit<Flight<Value>, "promise">): Promise<Value | null> {
    this.#flights.add(flight);
    try {
      const loaded = await loader();
      this.#awayUntil = Number.NEGATIVE_INFINITY;
      if (loaded === null) {
        this.#entries.delete(key);
        return null;
      }
      const outdated =
        flight.epoch !== this.#epoch ||
        loaded.scopes.some((scope) => flight.dropped.has(scope)) ||
        flight.startedAt < (this.#entries.peek(key)?.confirmedAt ?? flight.startedAt);
      if (!outdated) this.#store(key, { ...loaded, confirmedAt: flight.startedAt, epoch: flight.epoch });
      return loaded.value;
    } catch (error) {
      if (!isSlipwayError(error, "DATABASE_UNAVAILABLE")) throw error;
      this.#awayUntil = this.#options.clock.now() + ASK_AGAIN_MS;
      const entry = this.#entries.get(key);
      const known = entry === undefined ? undefined : this.#useStale(entry);
      if (known === undefined) throw error;
      return known;
    } finally {
      this.#flights.delete(flight);
    }
  }

  #useStale(entry: Entry<Value>): Value | undefined {
    if (this.#options.clock.now() - entry.confirmedAt > this.#options.staleOnDbErrorMs) return undefined;
    this.#staleUses += 1;
    return entry.value;
  }

  #isFresh(entry: Entry<Value>): boolean {
    const { invalidations, clock, freshMs } = this.#options;
    return entry.epoch === this.#epoch && invalidations.trusted() && clock.now() - entry.confirmedAt < freshMs;
  }

  #store(key: string, entry: Entry<Value>): void {
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    for (const scope of entry.scopes) {
      const keys = this.#byScope.get(scope);
      if (keys) keys.add(key);
      else this.#byScope.set(scope, new Set([key]));
    }
  }

  #forgetScopes(scopes: readonly string[], key: string): void {
    for (const scope of scopes) {
      const keys = this.#byScope.get(scope);
      keys?.delete(key);
      if (keys?.size === 0) this.#byScope.delete(scope);
    }
  }

  #invalidate(scopes: readonly string[]): void {
    for (const scope of scopes) {
      for (const key of this.#byScope.get(scope) ?? []) this.#entries.delete(key);
      for (const flight of this.#flights) flight.dropped.add(scope);
    }
  }
}
