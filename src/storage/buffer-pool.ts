/** Buffers that are used again: fresh ones for every block cost page faults, and garbage that the resident set shows. */
export class BufferPool {
  readonly size: number;
  readonly #maxIdle: number;
  readonly #idle: Buffer[] = [];

  constructor(size: number, maxIdle: number) {
    this.size = size;
    this.#maxIdle = maxIdle;
  }

  take(): Buffer {
    // Slow: a slab of its own. Pages that are never written are never resident.
    return this.#idle.pop() ?? Buffer.allocUnsafeSlow(this.size);
  }

  give(buffer: Buffer): void {
    if (this.#idle.length < this.#maxIdle) this.#idle.push(buffer);
  }
}
