/** Wakes those who wait for a file to grow. Small steps are told together: with hundreds of readers each call costs more than the bytes. */

const BYTES = 256 * 1024;
const DELAY_MS = 4;

export class Wakeups {
  #waiters = new Set<() => void>();
  #bytes = 0;
  #lastAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | null = null;

  async next(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#waiters.delete(done);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      this.#waiters.add(done);
      signal?.addEventListener("abort", done, { once: true });
    });
    signal?.throwIfAborted();
  }

  soon(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes >= BYTES || performance.now() - this.#lastAt >= DELAY_MS) this.now();
    else this.#timer ??= setTimeout(() => this.now(), DELAY_MS);
  }

  now(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#bytes = 0;
    this.#lastAt = performance.now();
    const waiters = this.#waiters;
    this.#waiters = new Set();
    for (const wake of waiters) wake();
  }

  close(): void {
    this.now();
  }
}
