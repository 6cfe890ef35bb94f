/**
 * The blocks through which files go to clients, cut from a fixed number of slabs: memory neither grows with the number of readers nor
 * becomes garbage. A blocked reader pins its block, so blocks shrink as readers grow in number; few readers get the size that is fastest.
 */
const BLOCK_SIZES = [512 * 1024, 256 * 1024, 128 * 1024, 64 * 1024] as const;
const SLAB_BYTES = BLOCK_SIZES[0];
const SMALLEST = BLOCK_SIZES[3];

/** Blocks from outside the slabs that are kept for the next. */
const SPARE_BLOCKS = 48;

export const DEFAULT_BLOCK_BYTES = 4 * 1024 * 1024;

/** A part of the pool for one read and one write. */
export interface Block {
  readonly buffer: Buffer;
  /** Null for a block from outside the slabs. */
  readonly slab: Slab | null;
}

/** Cut into blocks of one size as long as any of them is in use. */
interface Slab {
  readonly memory: Buffer;
  size: number;
  used: number;
  free: Buffer[];
}

export class BlockPool {
  readonly #maxSlabs: number;
  readonly #idle: Slab[] = [];
  /** Slabs with a free block, by its size. */
  readonly #open = new Map<number, Set<Slab>>(BLOCK_SIZES.map((size) => [size, new Set()]));
  readonly #spare: Buffer[] = [];
  #slabs = 0;
  #readers = 0;
  #bytes = 0;
  #outside = 0;

  constructor(bytes: number = DEFAULT_BLOCK_BYTES) {
    this.#maxSlabs = Math.max(1, Math.floor(bytes / SLAB_BYTES));
  }

  enter(): void {
    this.#readers += 1;
  }

  leave(): void {
    this.#readers -= 1;
  }

  take(wanted: number): Block {
    const block = this.#fromSlab(this.#sizeFor(wanted)) ?? this.#fromOutside();
    this.#bytes += block.buffer.length;
    return block;
  }

  /** Only when nothing reads from the block any more: the kernel has the bytes, or the connection is closed. */
  give({ buffer, slab }: Block): void {
    this.#bytes -= buffer.length;
    if (slab === null) {
      if (this.#spare.length < SPARE_BLOCKS) this.#spare.push(buffer);
      return;
    }
    slab.free.push(buffer);
    slab.used -= 1;
    if (slab.used > 0) {
      this.#open.get(slab.size)?.add(slab);
      return;
    }
    this.#open.get(slab.size)?.delete(slab);
    this.#idle.push(slab);
  }

  /** `outside` counts the blocks made because the slabs had no room. */
  stats(): { readonly readers: number; readonly bytes: number; readonly outside: number } {
    return { readers: this.#readers, bytes: this.#bytes, outside: this.#outside };
  }

  #fromOutside(): Block {
    const spare = this.#spare.pop();
    if (spare !== undefined) return { buffer: spare, slab: null };
    this.#outside += 1;
    return { buffer: Buffer.allocUnsafeSlow(SMALLEST), slab: null };
  }

  #fromSlab(size: number): Block | null {
    const open = this.#open.get(size);
    const slab = first(open) ?? this.#newSlab(size);
    if (slab === null) return size > SMALLEST ? this.#fromSlab(size / 2) : null;
    const buffer = slab.free.pop();
    if (buffer === undefined) return null;
    slab.used += 1;
    if (slab.free.length === 0) open?.delete(slab);
    else open?.add(slab);
    return { buffer, slab };
  }

  #newSlab(size: number): Slab | null {
    let slab = this.#idle.pop();
    if (slab === undefined) {
      if (this.#slabs >= this.#maxSlabs) return null;
      this.#slabs += 1;
      slab = { memory: Buffer.allocUnsafeSlow(SLAB_BYTES), size: 0, used: 0, free: [] };
    }
    if (slab.size !== size) {
      slab.size = size;
      slab.free = [];
      for (let start = 0; start < SLAB_BYTES; start += size) slab.free.push(slab.memory.subarray(start, start + size));
    }
    return slab;
  }

  /** The fair share, and no more than the rest of the blob needs. */
  #sizeFor(wanted: number): number {
    const share = (this.#maxSlabs * SLAB_BYTES) / Math.max(1, this.#readers);
    let size: number = SLAB_BYTES;
    while (size > SMALLEST && (size > share || size / 2 >= wanted)) size /= 2;
    return size;
  }
}

function first(slabs: ReadonlySet<Slab> | undefined): Slab | null {
  for (const slab of slabs ?? []) return slab;
  return null;
}
