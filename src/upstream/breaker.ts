/**
 * Circuit breaker of one host. While it is open every call fails at once; somebody probes every few seconds. A probe that worked closes it,
 * but a host that answers pings and nothing else must not get a full set of hanging calls again: one failure reopens it until a call worked.
 */
import type { Clock } from "../core/clock.ts";

export type BreakerState = "closed" | "open" | "half-open";

export interface BreakerOptions {
  readonly clock: Clock;
  readonly threshold?: number;
  readonly probeIntervalMs?: number;
}

export class Breaker {
  readonly #clock: Clock;
  readonly #threshold: number;
  readonly probeIntervalMs: number;
  #state: BreakerState = "closed";
  #strikes = 0;
  #probeAt = 0;

  constructor(options: BreakerOptions) {
    this.#clock = options.clock;
    this.#threshold = options.threshold ?? 3;
    this.probeIntervalMs = options.probeIntervalMs ?? 3000;
  }

  get state(): BreakerState {
    return this.#state;
  }

  get allowsCalls(): boolean {
    return this.#state === "closed";
  }

  /** Milliseconds until the next probe is due. */
  get retryInMs(): number {
    return this.#state === "closed" ? 0 : Math.max(0, this.#probeAt - this.#clock.now());
  }

  success(): void {
    // A late answer to a call from before says little about a host that was found dead since.
    if (this.#state === "closed") this.#strikes = 0;
  }

  /** True when this failure opened the breaker. A timeout weighs more than a refusal: each one costs somebody a long wait. */
  failure(weight: 1 | 2 = 1): boolean {
    if (this.#state !== "closed") return false;
    this.#strikes += weight;
    if (this.#strikes < this.#threshold) return false;
    this.open();
    return true;
  }

  open(): void {
    this.#state = "open";
    this.#probeAt = this.#clock.now() + this.probeIntervalMs;
  }

  /** One caller at a time gets true, when the probe is due. */
  beginProbe(): boolean {
    if (this.#state !== "open" || this.#clock.now() < this.#probeAt) return false;
    this.#state = "half-open";
    return true;
  }

  endProbe(worked: boolean): void {
    if (worked) this.close();
    else this.open();
  }

  close(): void {
    this.#state = "closed";
    this.#strikes = this.#threshold - 1;
  }
}
