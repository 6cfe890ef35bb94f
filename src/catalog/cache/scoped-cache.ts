/**
 * A bounded cache in memory whose entries belong to scopes. A look is one map access and two comparisons; a load is shared by all who ask meanwhile,
 * has a deadline of its own, and is not kept when its scope was invalidated while it ran. Entries near their end are loaded anew
 * behind the answer, so that a hot name never waits.
 */
import { LRUCache } from "lru-cache";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";

export interface ScopedCacheOptions<Value> {
  readonly name: string;
  readonly maxBytes: number;
  readonly ttlMs: number;
  /** Beyond the TTL it is served while it is loaded anew. */
  readonly staleMs: number;
  readonly negativeTtlMs: number;
  readonly loadTimeoutMs: number;
  readonly maxConcurrentLoads: number;
  /** How long what no invalidation has dropped is valid while the database is away. */
  readonly staleOnDbErrorMs: number;
  readonly sizeOf: (value: Value) => number;
}

/** What the cache needs of the invalidation bus. */
export interface CacheBus {
  trusted(): boolean;
  subscribe(listener: (scopes: readonly string[]) => void): () => void;
  onReset(listener: () => void): () => void;
}

interface Entry<Value> {
  /** Null: known to be absent. */
  readonly value: Value | null;
  readonly scope: string;
  readonly freshUntil: number;
  readonly loadedAt: number;
}

interface Flight<Value> {
  readonly promise: Promise<Value | null>;
  readonly scope: string;
  isDirty: boolean;
}

export interface CacheStats {
  readonly hits: number;
  readonly misses: number;
  readonly stale: number;
  readonly negative: number;
  readonly coalesced: number;
  readonly staleOnError: number;
  readonly entries: number;
  readonly bytes: number;
}

const NEGATIVE_BYTES = 128;
const JITTER = 0.1;

export class ScopedCache<Value> {
  readonly #options: ScopedCacheOptions<Value>;
  readonly #bus: CacheBus;
  readonly #entries: LRUCache<string, Entry<Value>>;
  readonly #keysOf = new Map<string, Set<string>>();
  readonly #flights = new Map<string, Flight<Value>>();
  readonly #unsubscribe: (() => void)[];
  #hits = 0;
  #misses = 0;
  #stale = 0;
  #negative = 0;
  #coalesced = 0;
  #staleOnError = 0;

  constructor(options: ScopedCacheOptions<Value>, bus: CacheBus) {
    this.#options = options;
    this.#bus = bus;
    this.#entries = new LRUCache<string, Entry<Value>>({
      maxSize: Math.max(1, options.maxBytes),
      sizeCalculation: (entry) => (entry.value === null ? NEGATIVE_BYTES : Math.max(1, options.sizeOf(entry.value))),
      dispose: (entry, key) => this.#forget(entry.scope, key),
    });
    this.#unsubscribe = [
      bus.subscribe((scopes) => {
        for (const scope of scopes) this.invalidateScope(scope);
      }),
      bus.onReset(() => this.clear()),
    ];
  }

  /** Hot path: fresh and trusted, or undefined. An entry that is fresh still but not for long is best asked for by load. */
  peek(key: string): Value | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || entry.value === null || performance.now() >= entry.freshUntil || !this.#bus.trusted()) return undefined;
    this.#hits += 1;
    return entry.value;
  }

  async load(key: string, scope: string, loader: (signal: AbortSignal) => Promise<Value | null>): Promise<Value | null> {
    const entry = this.#entries.get(key);
    if (entry !== undefined && this.#bus.trusted()) {
      const age = performance.now() - entry.freshUntil;
      if (age < 0) {
        if (entry.value === null) this.#negative += 1;
        else this.#hits += 1;
        return entry.value;
      }
      if (age < this.#options.staleMs && entry.value !== null) {
        this.#stale += 1;
        this.#share(key, scope, loader).catch(() => undefined);
        return entry.value;
      }
    }
    this.#misses += 1;
    try {
      return await this.#share(key, scope, loader);
    } catch (error) {
      return this.#known(key, error);
    }
  }

  set(key: string, scope: string, value: Value | null): void {
    const { ttlMs, negativeTtlMs } = this.#options;
    const ttl = (value === null ? negativeTtlMs : ttlMs) * (1 - JITTER + 2 * JITTER * Math.random());
    const loadedAt = performance.now();
    this.#entries.delete(key);
    this.#entries.set(key, { value, scope, freshUntil: loadedAt + ttl, loadedAt });
    if (!this.#entries.has(key)) return;
    const keys = this.#keysOf.get(scope);
    if (keys) keys.add(key);
    else this.#keysOf.set(scope, new Set([key]));
  }

  invalidateScope(scope: string): void {
    for (const flight of this.#flights.values()) if (flight.scope === scope) flight.isDirty = true;
    for (const key of [...(this.#keysOf.get(scope) ?? [])]) this.#entries.delete(key);
  }

  clear(): void {
    for (const flight of this.#flights.values()) flight.isDirty = true;
    this.#entries.clear();
    this.#keysOf.clear();
  }

  stats(): CacheStats {
    return {
      hits: this.#hits,
      misses: this.#misses,
      stale: this.#stale,
      negative: this.#negative,
      coalesced: this.#coalesced,
      staleOnError: this.#staleOnError,
      entries: this.#entries.size,
      bytes: this.#entries.calculatedSize,
    };
  }

  close(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.clear();
  }

  #share(key: string, scope: string, loader: (signal: AbortSignal) => Promise<Value | null>): Promise<Value | null> {
    const running = this.#flights.get(key);
    // A load that began before an invalidation may bring back what was true then.
    if (running && !running.isDirty && this.#bus.trusted()) {
      this.#coalesced += 1;
      return running.promise;
    }
    if (this.#flights.size >= this.#options.maxConcurrentLoads * 16) throw new SlipwayError("OVERLOADED", { retryAfterSeconds: 1 });
    const flight: { promise: Promise<Value | null>; scope: string; isDirty: boolean } = {
      promise: Promise.resolve(null),
      scope,
      isDirty: false,
    };
    flight.promise = this.#run(key, loader, flight).finally(() => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    });
    this.#flights.set(key, flight);
    return flight.promise;
  }

  async #run(
    key: string,
    loader: (signal: AbortSignal) => Promise<Value | null>,
    flight: { readonly scope: string; readonly isDirty: boolean },
  ): Promise<Value | null> {
    const deadline = new AbortController();
    const timer = setTimeout(
      () =>
        deadline.abort(new SlipwayError("DATABASE_UNAVAILABLE", { message: "looking something up took too long", retryAfterSeconds: 2 })),
      this.#options.loadTimeoutMs,
    );
    const late = new Promise<never>((_, reject) => {
      deadline.signal.addEventListener("abort", () => reject(deadline.signal.reason), { once: true });
    });
    try {
      const value = await Promise.race([loader(deadline.signal), late]);
      if (!flight.isDirty) this.set(key, flight.scope, value);
      return value;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The database is away: what nobody has revoked holds on for a bounded time. */
  #known(key: string, error: unknown): Value | null {
    const entry = this.#entries.get(key);
    const isAway = isSlipwayError(error, "DATABASE_UNAVAILABLE");
    if (!isAway || entry === undefined || entry.value === null || performance.now() - entry.loadedAt > this.#options.staleOnDbErrorMs)
      throw error;
    this.#staleOnError += 1;
    return entry.value;
  }

  #forget(scope: string, key: string): void {
    const keys = this.#keysOf.get(scope);
    keys?.delete(key);
    if (keys?.size === 0) this.#keysOf.delete(scope);
  }
}
