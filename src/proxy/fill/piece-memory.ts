/**
 * Memory for pieces of bodies: whoever made a piece and those who still send it hold it together, and the last one gives it back. So bytes that were just written to the
 * growing file go to its readers without being read again.
 */

export const PIECE_BYTES = 256 * 1024;
/** Kept for the next bodies. */
const MAX_SPARE = 32;
/** From this many pieces in use on, nobody gets a further hold: slow readers take the bytes from the file. */
const MAX_SHARED = 64;

const spare: Buffer[] = [];
const holders = new Map<ArrayBufferLike, number>();

/** Held by the caller. */
export function takePiece(): Buffer {
  const buffer = spare.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
  holders.set(buffer.buffer, 1);
  return buffer;
}

export function releasePiece({ buffer }: Uint8Array): void {
  const count = holders.get(buffer);
  if (count === undefined) return;
  if (count > 1) {
    holders.set(buffer, count - 1);
    return;
  }
  holders.delete(buffer);
  if (spare.length < MAX_SPARE) spare.push(Buffer.from(buffer));
}

/** False for memory of others, and when too much is in use; else it stays as it is until it is released. */
export function holdPiece({ buffer }: Uint8Array): boolean {
  const count = holders.get(buffer);
  if (count === undefined || holders.size > MAX_SHARED) return false;
  holders.set(buffer, count + 1);
  return true;
}
