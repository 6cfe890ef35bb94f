/**
 * Finds transfers that drip. Only time spent waiting for the other side counts, so a slow reader of ours is never taken for a slow
 * upstream.
 */
export interface StallLimits {
  readonly minBytesPerSecond: number;
  readonly windowMs: number;
}

export const DEFAULT_STALL_LIMITS: StallLimits = { minBytesPerSecond: 50 * 1024, windowMs: 30_000 };

export class StallWatchdog {
  readonly #limits: StallLimits;
  #waitingSince: number | null = null;
  #waitedMs = 0;
  #bytes = 0;

  constructor(limits: StallLimits) {
    this.#limits = limits;
  }

  waiting(now: number): void {
    this.#waitingSince ??= now;
  }

  paused(now: number): void {
    if (this.#waitingSince !== null) this.#waitedMs += now - this.#waitingSince;
    this.#waitingSince = null;
  }

  received(bytes: number): void {
    this.#bytes += bytes;
  }

  restart(): void {
    this.#waitingSince = null;
    this.#waitedMs = 0;
    this.#bytes = 0;
  }

  /** To be asked now and then; true when a whole window of waiting brought too little. */
  stalled(now: number): boolean {
    const waited = this.#waitedMs + (this.#waitingSince === null ? 0 : now - this.#waitingSince);
    if (waited < this.#limits.windowMs) return false;
    const tooSlow = (this.#bytes * 1000) / waited < this.#limits.minBytesPerSecond;
    if (!tooSlow) {
      if (this.#waitingSince !== null) this.#waitingSince = now;
      this.#waitedMs = 0;
      this.#bytes = 0;
    }
    return tooSlow;
  }
}
