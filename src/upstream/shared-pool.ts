/**
 * Memory of one size that all threads see, used again and again. There is never more of it than the limit: what is wanted beyond is ordinary memory, which costs a copy on its way to
 * another thread. Every thread that saw a piece keeps it until it collects its garbage, so making new ones all the time would hold many times what is in use.
 */
export class SharedPool {
  readonly #bytes: number;
  readonly #max: number;
  readonly #spare: Buffer[] = [];
  /** What nobody gave back is made up for when it is collected. */
  readonly #lost = new FinalizationRegistry<null>(() => {
    this.#made -= 1;
  });
  #made = 0;

  constructor(bytes: number, max: number) {
    this.#bytes = bytes;
    this.#max = max;
  }

  take(): Buffer {
    return this.tryTake() ?? Buffer.allocUnsafeSlow(this.#bytes);
  }

  /** Null at the limit. */
  tryTake(): Buffer | null {
    const spare = this.#spare.pop();
    if (spare) return spare;
    if (this.#made >= this.#max) return null;
    this.#made += 1;
    const memory = new SharedArrayBuffer(this.#bytes);
    this.#lost.register(memory, null);
    return Buffer.from(memory);
  }

  /** The whole of what was taken. */
  give(whole: Buffer): void {
    if (whole.buffer instanceof SharedArrayBuffer) this.#spare.push(whole);
  }
}
