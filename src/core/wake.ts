/** A bell for a loop that works and then waits: what rings while it works is remembered until it waits. */
import { sleep } from "./clock.ts";

export class Wake {
  #resolve: (() => void) | null = null;
  #rung = false;

  /** Forgets what rang before; to be called before the work whose news it is. */
  arm(): void {
    this.#rung = false;
  }

  ring(): void {
    this.#rung = true;
    this.#resolve?.();
  }

  /** True when it rang; false when the time was over or the signal came. */
  async wait(milliseconds: number, signal: AbortSignal): Promise<boolean> {
    if (this.#rung || signal.aborted) return this.#rung;
    const timer = new AbortController();
    const rung = new Promise<void>((resolve) => {
      this.#resolve = resolve;
    });
    try {
      await Promise.race([rung, sleep(milliseconds, AbortSignal.any([signal, timer.signal])).catch(() => undefined)]);
    } finally {
      this.#resolve = null;
      timer.abort();
    }
    return this.#rung;
  }
}
