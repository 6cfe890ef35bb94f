/**
 * A bounded cache in memory whose entries belong to scopes. A look costs one map access and a few comparisons. A load is shared by all who
 * ask meanwhile, runs under its own deadline whoever goes away, and is kept only when no invalidation came while it ran. What has passed
 * its TTL is served while it is loaded anew, so that a hot name never waits.
 */
import { LRUCache } from "lru-cache";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import { Gate } from "../../core/gate.ts";
import type { Generations, Ticket } from "./generations.ts";

export interface ScopedCacheOptions<V> {
  readonly name: string;
  readonly maxBytes: number;
  readonly maxEntries?: number;
  /** Of the value alone; key and bookkeeping are added. */
  readonly sizeOf: (value: V) => number;
  readonly ttlMs: number;
  /** How long after its TTL a value is served while it is loaded anew. */
  readonly staleMs: number;
  /** How long it is remembered that there is no such thing. */
  readonly negativeTtlMs: number;
  readonly loadTimeoutMs: number;
  readonly maxConcurrentLoads: number;
  /** How long after its last load a value that no invalidation has dropped is served while the database is away. */
  readonly staleOnDbErrorMs: number;
}

/** What a cache needs of the invalidation bus. */
export interface CacheGuard {
  readonly generations: Generations;
  trusted(now?: number): boolean;
}

/** A scope, or all scopes that the value depends on. */
export type Scopes = string | readonly string[];

export type Loader<V> = (signal: AbortSignal) => Promise<V | null>;

export interface ScopedCacheStats {
  readonly hits: number;
  readonly misses: number;
  readonly stale: number;
  readonly negative: number;
  readonly coalesced: number;
  readonly loads: number;
  readonly failures: number;
  /** Loads whose result was outdated when it came. */
  readonly conflicts: number;
  readonly staleOnError: number;
  readonly entries: number;
  readonly bytes: number;
}

interface Entry<V> {
  readonly value: V | null;
  readonly ticket: Ticket;
  readonly loadedAt: number;
  readonly freshUntil: number;
  readonly size: number;
}

interface Flight<V> {
  readonly ticket: Ticket;
  readonly result: Promise<V | null>;
  /** Begins when this one has ended, for those who may not share it. */
  next: Promise<V | null> | null;
}

const JITTER = 0.1;
const ENTRY_BYTES = 250;
/** While the database is away one load in this time asks for it; the others take what is known. */
const AWAY_MS = 1_000;
const WAITING_LOADS_PER_RUNNING = 64;

export class ScopedCache<V> {
  readonly name: string;
  readonly #options: ScopedCacheOptions<V>;
  readonly #guard: CacheGuard;
  readonly #generations: Generations;
  readonly #entries: LRUCache<string, Entry<V>>;
  readonly #flights = new Map<string, Flight<V>>();
  /** A cold cache must not take every connection to the database. */
  readonly #gate: Gate;
  #clears = 0;
  #awayUntil = 0;
  #hits = 0;
  #misses = 0;
  #stale = 0;
  #negative = 0;
  #coalesced = 0;
  #loads = 0;
  #failures = 0;
  #conflicts = 0;
  #staleOnError = 0;

  constructor(options: ScopedCacheOptions<V>, guard: CacheGuard) {
    this.name = options.name;
    this.#options = options;
    this.#guard = guard;
    this.#generations = guard.generations;
    this.#gate = new Gate({
      places: options.maxConcurrentLoads,
      maxWaiting: options.maxConcurrentLoads * WAITING_LOADS_PER_RUNNING,
      refusal: { retryAfterSeconds: 1 },
    });
    this.#entries = new LRUCache<string, Entry<V>>({
      maxSize: Math.max(1, options.maxBytes),
      sizeCalculation: (entry) => entry.size,
      ...(options.maxEntries !== undefined && { max: options.maxEntries }),
    });
  }

  /** Hot path: the value when it is fresh, current and to be trusted. */
  peek(key: string): V | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || entry.value === null) return undefined;
    const now = performance.now();
    if (now >= entry.freshUntil || !this.#guard.trusted(now) || !this.#generations.isCurrent(entry.ticket)) return undefined;
    this.#hits += 1;
    return entry.value;
  }

  /** Null when there is no such thing. The loader gets a signal of its own: it works for everybody who waits. */
  load(key: string, scopes: Scopes, loader: Loader<V>): Promise<V | null> {
    const now = performance.now();
    const entry = this.#current(key);
    if (entry && this.#guard.trusted(now)) {
      if (now < entry.freshUntil) {
        if (entry.value === null) this.#negative += 1;
        else this.#hits += 1;
        return Promise.resolve(entry.value);
      }
      if (entry.value !== null && now < entry.freshUntil + this.#options.staleMs) {
        this.#stale += 1;
        if (now >= this.#awayUntil) this.#share(key, scopes, loader).catch(() => undefined);
        return Promise.resolve(entry.value);
      }
    }
    if (now < this.#awayUntil) {
      const known = this.#known(key, now);
      if (known !== undefined) return Promise.resolve(known);
    } else if (this.#awayUntil > 0) {
      // This one asks whether the database is back; the others need not wait for the answer.
      this.#awayUntil = now + this.#options.loadTimeoutMs + AWAY_MS;
    }
    this.#misses += 1;
    return this.#share(key, scopes, loader).catch((error: unknown) => this.#fallBack(key, error));
  }

  /** To be taken before reading what is then given to set. */
  ticket(scopes: Scopes): Ticket {
    return this.#generations.ticket(scopes);
  }

  /** Keeps a value that was read after the ticket was taken; false when it is outdated already. */
  set(key: string, ticket: Ticket, value: V | null): boolean {
    if (!this.#generations.isCurrent(ticket)) return false;
    const { ttlMs, negativeTtlMs, sizeOf } = this.#options;
    const ttl = (value === null ? negativeTtlMs : ttlMs) * (1 - JITTER + 2 * JITTER * Math.random());
    const loadedAt = performance.now();
    const size = ENTRY_BYTES + 2 * key.length + (value === null ? 0 : Math.max(0, sizeOf(value)));
    this.#entries.set(key, { value, ticket, loadedAt, freshUntil: loadedAt + ttl, size });
    return true;
  }

  /** In this process only; what changes for all is published on the bus. */
  invalidateScope(scope: string): void {
    this.#generations.bump(scope);
  }

  /** Also what is being loaded is not kept. */
  clear(): void {
    this.#clears += 1;
    this.#entries.clear();
    this.#flights.clear();
  }

  stats(): ScopedCacheStats {
    return {
      hits: this.#hits,
      misses: this.#misses,
      stale: this.#stale,
      negative: this.#negative,
      coalesced: this.#coalesced,
      loads: this.#loads,
      failures: this.#failures,
      conflicts: this.#conflicts,
      staleOnError: this.#staleOnError,
      entries: this.#entries.size,
      bytes: this.#entries.calculatedSize,
    };
  }

  /** What no invalidation has dropped; what one has dropped gives its memory back. */
  #current(key: string): Entry<V> | undefined {
    const entry = this.#entries.get(key);
    if (!entry || this.#generations.isCurrent(entry.ticket)) return entry;
    this.#entries.delete(key);
    return undefined;
  }

  /** One load for all who ask, unless it began before something that this asker must see. */
  #share(key: string, scopes: Scopes, loader: Loader<V>): Promise<V | null> {
    const flight = this.#flights.get(key);
    if (!flight || !this.#generations.isCurrent(flight.ticket)) return this.#start(key, scopes, loader);
    this.#coalesced += 1;
    if (this.#guard.trusted()) return flight.result;
    // An invalidation may be on its way here: only a load that begins from now on is sure to see what it is about.
    flight.next ??= flight.result.then(
      () => this.#start(key, scopes, loader),
      () => this.#start(key, scopes, loader),
    );
    return flight.next;
  }

  #start(key: string, scopes: Scopes, loader: Loader<V>): Promise<V | null> {
    const ticket = this.#generations.ticket(scopes);
    const result = this.#run(key, ticket, loader).finally(() => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    });
    const flight: Flight<V> = { ticket, result, next: null };
    this.#flights.set(key, flight);
    return result;
  }

  async #run(key: string, ticket: Ticket, loader: Loader<V>): Promise<V | null> {
    const clears = this.#clears;
    const deadline = new AbortController();
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      const error = new SlipwayError("DATABASE_UNAVAILABLE", { message: `${this.name}: a lookup took too long`, retryAfterSeconds: 2 });
      deadline.abort(error);
      late.reject(error);
    }, this.#options.loadTimeoutMs);
    this.#loads += 1;
    try {
      const work = this.#gate.run(() => loader(deadline.signal), deadline.signal);
      const value = await Promise.race([work, late.promise]);
      this.#awayUntil = 0;
      if (clears !== this.#clears || !this.set(key, ticket, value)) this.#conflicts += 1;
      return value;
    } catch (error) {
      this.#failures += 1;
      if (isSlipwayError(error, "DATABASE_UNAVAILABLE")) this.#awayUntil = performance.now() + AWAY_MS;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #fallBack(key: string, error: unknown): V {
    const known = isSlipwayError(error, "DATABASE_UNAVAILABLE") ? this.#known(key, performance.now()) : undefined;
    if (known === undefined) throw error;
    return known;
  }

  /** For the time that the database is away. */
  #known(key: string, now: number): V | undefined {
    const entry = this.#current(key);
    if (!entry || entry.value === null || now > entry.loadedAt + this.#options.staleOnDbErrorMs) return undefined;
    this.#staleOnError += 1;
    return entry.value;
  }
}
