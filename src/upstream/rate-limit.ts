/**
 * The pull budget that a registry announces (`ratelimit-limit: 100;w=21600`). Its last part is kept for interactive pulls. What was
 * learnt ages: after a while one call may pass to look again, else a budget once seen empty would stay empty for ever.
 */
import type { Clock } from "../core/clock.ts";

export interface RateObservation {
  readonly limit: number | null;
  readonly remaining: number;
  readonly windowSeconds: number | null;
}

const MAX_TRUST_MS = 15 * 60_000;

function parseCount(value: string | undefined): { count: number; windowSeconds: number | null } | null {
  if (value === undefined) return null;
  const match = /^\s*(\d{1,12})/.exec(value);
  if (!match?.[1]) return null;
  const window = /;\s*w\s*=\s*"?(\d{1,9})/i.exec(value);
  return { count: Number(match[1]), windowSeconds: window?.[1] ? Number(window[1]) : null };
}

export function parseRateLimit(header: (name: string) => string | undefined): RateObservation | null {
  const remaining = parseCount(header("ratelimit-remaining") ?? header("x-ratelimit-remaining"));
  if (!remaining) return null;
  const limit = parseCount(header("ratelimit-limit") ?? header("x-ratelimit-limit"));
  return {
    limit: limit?.count ?? null,
    remaining: remaining.count,
    windowSeconds: remaining.windowSeconds ?? limit?.windowSeconds ?? null,
  };
}

export interface RateBudgetOptions {
  readonly clock: Clock;
  /** Part of the limit that only interactive calls may use. */
  readonly reserveShare?: number;
}

export class RateBudget {
  readonly #clock: Clock;
  readonly #share: number;
  #seen: (RateObservation & { at: number }) | null = null;

  constructor(options: RateBudgetOptions) {
    this.#clock = options.clock;
    this.#share = options.reserveShare ?? 0.2;
  }

  observe(observation: RateObservation): void {
    this.#seen = { ...observation, at: this.#clock.now() };
  }

  get remaining(): number | null {
    return this.#seen?.remaining ?? null;
  }

  get limit(): number | null {
    return this.#seen?.limit ?? null;
  }

  /** 0 when the call may go, else the milliseconds until it is worth asking again. */
  waitFor(interactive: boolean): number {
    const seen = this.#seen;
    // An interactive call at zero still tries: the registry's own 429 decides, with its own Retry-After.
    if (!seen || interactive) return 0;
    const trustMs = Math.min((seen.windowSeconds ?? 3600) * 1000, MAX_TRUST_MS);
    const left = seen.at + trustMs - this.#clock.now();
    if (left <= 0) return 0;
    if (seen.remaining > Math.ceil((seen.limit ?? 0) * this.#share)) return 0;
    return left;
  }

  /** Several calls run between two answers; each takes its share at once. */
  spend(): void {
    if (this.#seen && this.#seen.remaining > 0) this.#seen = { ...this.#seen, remaining: this.#seen.remaining - 1 };
  }
}
