/**
 * The blocks through which files go to clients. A blocked reader pins one, so the block shrinks as readers grow in number and their sum
 * stays bounded; few readers get the size that is fastest.
 */
const BLOCK_SIZES = [512 * 1024, 256 * 1024, 128 * 1024, 64 * 1024] as const;

export interface BlockPoolOptions {
  /** All blocks in use together aim at staying below this. */
  readonly budgetBytes: number;
  /** Unused blocks of one size that are kept. */
  readonly keep: number;
}

export const DEFAULT_BLOCK_POOL: BlockPoolOptions = { budgetBytes: 24 * 1024 * 1024, keep: 8 };

export class BlockPool {
  readonly #options: BlockPoolOptions;
  readonly #free = new Map<number, Buffer[]>(BLOCK_SIZES.map((size) => [size, []]));
  #readers = 0;
  #bytes = 0;

  constructor(options: BlockPoolOptions = DEFAULT_BLOCK_POOL) {
    this.#options = options;
  }

  enter(): void {
    this.#readers += 1;
  }

  leave(): void {
    this.#readers -= 1;
  }

  /** A block for one read and one write. */
  take(wanted: number): Buffer {
    const size = this.#sizeFor(wanted);
    this.#bytes += size;
    return this.#free.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size);
  }

  /** Only when the kernel has the bytes. */
  give(block: Buffer): void {
    this.#bytes -= block.length;
    const free = this.#free.get(block.length);
    if (free !== undefined && free.length < this.#options.keep) free.push(block);
  }

  /** For a block that a broken connection may still hold: it is left to the garbage collector. */
  drop(block: Buffer): void {
    this.#bytes -= block.length;
  }

  stats(): { readonly readers: number; readonly bytes: number } {
    return { readers: this.#readers, bytes: this.#bytes };
  }

  #sizeFor(wanted: number): number {
    const share = this.#options.budgetBytes / Math.max(1, this.#readers);
    let chosen: number = BLOCK_SIZES[BLOCK_SIZES.length - 1] ?? 65_536;
    for (const size of BLOCK_SIZES) {
      if (size <= share) {
        chosen = size;
        break;
      }
    }
    // The end of a blob needs no more than its length, rounded up to a block that the pool knows.
    let fitting = chosen;
    for (const size of BLOCK_SIZES) if (size >= wanted && size <= chosen) fitting = size;
    return fitting;
  }
}

/**
 * At most so many bytes are handed to the kernel in one turn of the event loop. A hundred transfers that begin together would otherwise
 * fill their send buffers in a row while every other request waits.
 */
export class TurnBudget {
  readonly #bytesPerTurn: number;
  readonly #waiting: { bytes: number; resume: () => void }[] = [];
  #used = 0;
  #scheduled = false;

  constructor(bytesPerTurn: number) {
    this.#bytesPerTurn = bytesPerTurn;
  }

  /** True when the bytes may go now. */
  tryTake(bytes: number): boolean {
    this.#schedule();
    if (this.#waiting.length > 0 || this.#used >= this.#bytesPerTurn) return false;
    this.#used += bytes;
    return true;
  }

  wait(bytes: number): Promise<void> {
    return new Promise((resume) => {
      this.#waiting.push({ bytes, resume });
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#nextTurn());
  }

  #nextTurn(): void {
    this.#scheduled = false;
    this.#used = 0;
    let count = 0;
    for (const entry of this.#waiting) {
      if (this.#used >= this.#bytesPerTurn) break;
      this.#used += entry.bytes;
      count += 1;
      entry.resume();
    }
    this.#waiting.splice(0, count);
    if (this.#waiting.length > 0) this.#schedule();
  }
}
