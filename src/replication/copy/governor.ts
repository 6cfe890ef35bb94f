/**
 * The ceiling of a policy's pace over all workers. The budget of each second is a counter that all of them take slices from; while the
 * key-value service is away, each keeps to its share.
 */
import { sleep } from "../../core/clock.ts";
import type { Kv } from "../../kv/kv.ts";

export interface GovernorOptions {
  readonly kv: Pick<Kv, "increment">;
  /** Names the budget. */
  readonly key: string;
  /** Live workers, for the share while the counter cannot be asked. */
  readonly workers: () => number;
}

const SECOND_MS = 1_000;
const COUNTER_TTL_MS = 10_000;
const SMALLEST_SLICE = 16 * 1024;
const SLICES = 16;
/** A policy's speed is in kilobits of 1,024 bits. */
const BYTES_PER_KILOBIT = 128;
const LONGEST_WAIT_MS = 5_000;

export class Governor {
  readonly #options: GovernorOptions;
  #rate = 0;
  #tokens = 0;
  #turn: Promise<void> = Promise.resolve();
  #localSecond = 0;
  #localSpent = 0;

  constructor(options: GovernorOptions) {
    this.#options = options;
  }

  /** Holds from the next bytes on; 0 is unlimited. */
  setSpeed(speedKb: number): void {
    const rate = Math.max(0, speedKb) * BYTES_PER_KILOBIT;
    if (rate !== this.#rate) this.#tokens = Math.min(this.#tokens, 0);
    this.#rate = rate;
  }

  get limited(): boolean {
    return this.#rate > 0;
  }

  /** Null when the bytes may go on at once; they are taken either way, so that a late refill pays for them. */
  take(bytes: number, signal: AbortSignal): Promise<void> | null {
    if (this.#rate === 0) return null;
    this.#tokens -= bytes;
    if (this.#tokens >= 0) return null;
    this.#turn = this.#turn.then(() => this.#refill(signal)).catch(() => undefined);
    return this.#turn;
  }

  async #refill(signal: AbortSignal): Promise<void> {
    while (this.#tokens < 0 && this.#rate > 0) {
      const granted = await this.#slice();
      this.#tokens += granted;
      // Short enough to notice a new speed.
      if (granted === 0) await sleep(Math.min(LONGEST_WAIT_MS, SECOND_MS - (Date.now() % SECOND_MS) + 5), signal);
    }
  }

  async #slice(): Promise<number> {
    const rate = this.#rate;
    const second = Math.floor(Date.now() / SECOND_MS);
    const wanted = Math.min(rate, Math.max(SMALLEST_SLICE, Math.ceil(rate / SLICES)));
    try {
      const taken = await this.#options.kv.increment(`copy-speed:${this.#options.key}:${second}`, wanted, COUNTER_TTL_MS);
      return Math.max(0, Math.min(wanted, rate - (taken - wanted)));
    } catch {
      return this.#localSlice(second, wanted, rate);
    }
  }

  #localSlice(second: number, wanted: number, rate: number): number {
    if (second !== this.#localSecond) {
      this.#localSecond = second;
      this.#localSpent = 0;
    }
    const share = Math.max(1, Math.floor(rate / Math.max(1, this.#options.workers())));
    const granted = Math.max(0, Math.min(wanted, share - this.#localSpent));
    this.#localSpent += granted;
    return granted;
  }
}
