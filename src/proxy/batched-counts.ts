/** Counts by key in memory, written in batches now and then, so that what is counted costs no statement. */
import type { Logger } from "../telemetry/logger.ts";

export interface BatchedCountsOptions {
  /** For the log. */
  readonly what: string;
  readonly logger: Logger;
  /** Keys in order. */
  readonly write: (batch: readonly (readonly [key: string, count: number])[]) => Promise<unknown>;
}

const FLUSH_MS = 10_000;
/** Further keys are left out until the next flush. */
const MAX_PENDING = 50_000;
const BATCH = 1_000;

export class BatchedCounts {
  readonly #options: BatchedCountsOptions;
  readonly #timer: NodeJS.Timeout;
  #pending = new Map<string, number>();
  dropped = 0;

  constructor(options: BatchedCountsOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.flush(), FLUSH_MS);
    this.#timer.unref();
  }

  add(key: string): void {
    const count = this.#pending.get(key);
    if (count === undefined && this.#pending.size >= MAX_PENDING) this.dropped += 1;
    else this.#pending.set(key, (count ?? 0) + 1);
  }

  async flush(): Promise<void> {
    // In one order everywhere: processes that write the same rows must not wait for each other in a circle.
    const pending = [...this.#pending].toSorted(([a], [b]) => (a < b ? -1 : 1));
    this.#pending = new Map();
    try {
      for (let start = 0; start < pending.length; start += BATCH) await this.#options.write(pending.slice(start, start + BATCH));
    } catch (error) {
      // Losing a few counts only makes decisions a little less sharp.
      this.#options.logger.debug({ error, keys: pending.length }, `${this.#options.what} was not written`);
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
  }
}
