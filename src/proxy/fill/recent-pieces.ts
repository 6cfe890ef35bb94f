/**
 * The pieces that were written last, for readers who are right behind the fill: most clients are, and reading back what was just written costs as much as receiving it.
 */
import { holdPiece, releasePiece } from "./piece-memory.ts";

interface Recent {
  readonly start: number;
  readonly bytes: Uint8Array;
}

const KEPT = 2;
/** Behind a reader's last position; what is further ahead of it will be old when it comes there. */
const REACH_BYTES = 1024 * 1024;

export class RecentPieces {
  #pieces: Recent[] = [];
  #askedAt = Number.NEGATIVE_INFINITY;

  /** The bytes are in the file at this position. */
  add(start: number, bytes: Uint8Array): void {
    if (start < this.#askedAt || start > this.#askedAt + REACH_BYTES || !holdPiece(bytes)) return;
    this.#pieces.push({ start, bytes });
    if (this.#pieces.length > KEPT) this.#drop(this.#pieces.shift());
  }

  /** What is there from the position on; held until it is released with `releasePiece`. */
  take(position: number): Uint8Array | null {
    this.#askedAt = position;
    const piece = this.#pieces.find(({ start, bytes }) => start <= position && position < start + bytes.length);
    if (!piece || !holdPiece(piece.bytes)) return null;
    return piece.bytes.subarray(position - piece.start);
  }

  clear(): void {
    for (const piece of this.#pieces) this.#drop(piece);
    this.#pieces = [];
  }

  #drop(piece: Recent | undefined): void {
    if (piece) releasePiece(piece.bytes);
  }
}
