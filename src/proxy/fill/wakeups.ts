/** Wakes those who wait for a file to grow. Small steps are told together: with hundreds of readers each call costs more than the bytes. */

const BYTES = 256 * 1024;
const DELAY_MS = 4;

export class Wakeups {
  #waiters: (() => void)[] = [];
  #bytes = 0;
  /** Of the last step that was told; what is told without a step does not make the next one wait. */
  #steppedAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | null = null;

  /** At the next of them, once. */
  next(wake: () => void): void {
    this.#waiters.push(wake);
  }

  soon(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes >= BYTES || performance.now() - this.#steppedAt >= DELAY_MS) this.#step();
    else this.#timer ??= setTimeout(() => this.#step(), DELAY_MS);
  }

  now(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#bytes = 0;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  #step(): void {
    this.#steppedAt = performance.now();
    this.now();
  }

  close(): void {
    this.now();
  }
}
