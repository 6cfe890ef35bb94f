/** Wakes those who wait for a file to grow. Small steps are told together: with hundreds of readers each call costs more than the bytes. */

const BYTES = 256 * 1024;
const DELAY_MS = 4;

export class Wakeups {
  #waiters: (() => void)[] = [];
  #bytes = 0;
  #lastAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | null = null;

  /** At the next of them, once. */
  next(wake: () => void): void {
    this.#waiters.push(wake);
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
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  close(): void {
    this.now();
  }
}
