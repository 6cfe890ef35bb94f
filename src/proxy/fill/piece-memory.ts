/**
 * Memory for pieces of bodies: whoever made a piece and those who still send it hold it together, and the last one gives it back. So bytes that were just written to the
 * growing file go to its readers without being read again. The memory is one that other threads see too: one of them writes and hashes it.
 */
import { recycle } from "../../upstream/read-memory.ts";
import { SharedPool } from "../../upstream/shared-pool.ts";

export const PIECE_BYTES = 256 * 1024;
const MAX_PIECES = 128;
/** From this many pieces in use on, nobody gets a further hold: slow readers take the bytes from the file. */
const MAX_SHARED = 128;

interface Holding {
  holders: number;
  /** What a socket was read into; null for memory of our own. */
  readonly chunk: Uint8Array | null;
}

const memory = new SharedPool(PIECE_BYTES, MAX_PIECES);
const held = new Map<ArrayBufferLike, Holding>();

/** Held by the caller. */
export function takePiece(): Buffer {
  const buffer = memory.take();
  held.set(buffer.buffer, { holders: 1, chunk: null });
  return buffer;
}

/** A chunk as a socket gave it, held by the caller from now on. */
export function adoptPiece(chunk: Uint8Array): Uint8Array {
  held.set(chunk.buffer, { holders: 1, chunk });
  return chunk;
}

export function releasePiece({ buffer }: Uint8Array): void {
  const holding = held.get(buffer);
  if (holding === undefined) return;
  holding.holders -= 1;
  if (holding.holders > 0) return;
  held.delete(buffer);
  if (holding.chunk) recycle(holding.chunk);
  else memory.give(Buffer.from(buffer));
}

/** Left to the garbage collector: somebody may look at it at any time from now on. */
export function forgetPiece({ buffer }: Uint8Array): void {
  held.delete(buffer);
}

/** Whether another piece may be taken that several will hold. */
export function hasRoomForPiece(): boolean {
  return held.size < MAX_SHARED;
}

/** False for memory of others, and, unless it must be, when too much is in use; else it stays as it is until it is released. */
export function holdPiece({ buffer }: Uint8Array, { always = false } = {}): boolean {
  const holding = held.get(buffer);
  if (holding === undefined || (!always && held.size > MAX_SHARED)) return false;
  holding.holders += 1;
  return true;
}
