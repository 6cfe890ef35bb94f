/**
 * Bearer tokens by origin, credential and scope. Callers that need the same token at once share one request; one that gives up does not
 * take it from the others. Lifetimes run from the local receipt, because clocks of token services are not ours.
 */
import { LRUCache } from "lru-cache";
import { SlipwayError } from "../core/errors.ts";
import type { Clock } from "../core/clock.ts";

export interface FreshToken {
  readonly token: string;
  readonly expiresInSeconds: number | null;
}

interface Kept {
  readonly token: string;
  readonly renewAt: number;
}

interface Failure {
  readonly error: SlipwayError;
  readonly until: number;
}

export interface TokenCacheOptions {
  readonly clock: Clock;
  readonly maxTokens?: number;
}

export interface TokenStats {
  fetched: number;
  coalesced: number;
  hits: number;
  failed: number;
}

const DEFAULT_LIFE_S = 60;
const FLOOR_S = 60;
const MAX_LIFE_S = 12 * 3600;
const FAILURE_MS = 1000;

export class TokenCache {
  readonly #clock: Clock;
  readonly #tokens: LRUCache<string, Kept>;
  readonly #failures: LRUCache<string, Failure>;
  readonly #running = new Map<string, Promise<string>>();
  readonly stats: TokenStats = { fetched: 0, coalesced: 0, hits: 0, failed: 0 };

  constructor(options: TokenCacheOptions) {
    this.#clock = options.clock;
    const max = options.maxTokens ?? 10_000;
    this.#tokens = new LRUCache<string, Kept>({ max });
    this.#failures = new LRUCache<string, Failure>({ max });
  }

  /** A token that is good for a while yet, without asking anybody. */
  peek(key: string): string | null {
    const kept = this.#tokens.get(key);
    return kept && kept.renewAt > this.#clock.now() ? kept.token : null;
  }

  async get(key: string, fetchToken: () => Promise<FreshToken>, signal?: AbortSignal): Promise<string> {
    const known = this.peek(key);
    if (known !== null) {
      this.stats.hits += 1;
      return known;
    }
    const failure = this.#failures.get(key);
    if (failure && failure.until > this.#clock.now()) throw failure.error;
    let running = this.#running.get(key);
    if (running) this.stats.coalesced += 1;
    else {
      running = this.#fetch(key, fetchToken).finally(() => this.#running.delete(key));
      this.#running.set(key, running);
    }
    return await abandonable(running, signal);
  }

  /** Only the token that was refused: another caller may have renewed it meanwhile. */
  drop(key: string, token: string): void {
    if (this.#tokens.get(key)?.token === token) this.#tokens.delete(key);
  }

  async #fetch(key: string, fetchToken: () => Promise<FreshToken>): Promise<string> {
    this.stats.fetched += 1;
    try {
      const fresh = await fetchToken();
      const life = Math.min(MAX_LIFE_S, Math.max(FLOOR_S, fresh.expiresInSeconds ?? DEFAULT_LIFE_S)) * 1000;
      this.#tokens.set(key, { token: fresh.token, renewAt: this.#clock.now() + life - Math.min(life * 0.2, 30_000) });
      this.#failures.delete(key);
      return fresh.token;
    } catch (error) {
      this.stats.failed += 1;
      if (error instanceof SlipwayError) {
        const wait = error.retryAfterSeconds === undefined ? FAILURE_MS : Math.min(error.retryAfterSeconds, 600) * 1000;
        this.#failures.set(key, { error, until: this.#clock.now() + wait });
      }
      throw error;
    }
  }
}

function abandonable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(new SlipwayError("CANCELLED", { cause: signal.reason }));
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
