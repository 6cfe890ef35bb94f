/**
 * What has come of a fill, in memory: readers may have it before it is written, and most clients are right behind the fill, for whom reading back what
 * was just written would cost as much as receiving it. A piece stays until it is in the file, the last ones a little longer.
 */
import { SegmentMap } from "../plan/segments.ts";
import type { Segment } from "../plan/segments.ts";
import { forgetPiece, holdPiece, releasePiece } from "./piece-memory.ts";

interface Piece {
  readonly start: number;
  readonly bytes: Uint8Array;
  isWritten: boolean;
}

const KEPT_WRITTEN = 2;
/** Behind a reader's last position; what is further ahead of it will be old when it comes there. */
const REACH_BYTES = 1024 * 1024;

export class ArrivedPieces {
  #segments: SegmentMap;
  #pieces: Piece[] = [];
  #askedAt = Number.NEGATIVE_INFINITY;

  /** With what the file has already. */
  constructor(written: readonly Segment[]) {
    this.#segments = new SegmentMap(written);
  }

  contiguousFrom(position: number): number {
    return this.#segments.contiguousFrom(position);
  }

  /** Tells when it was written; the bytes given back are those to write, and stay as they are until then. */
  add(start: number, bytes: Uint8Array): { readonly bytes: Uint8Array; written(): void } {
    // Memory of somebody else is valid in this turn only.
    const kept = holdPiece(bytes, { always: true }) ? bytes : Buffer.from(bytes);
    const piece: Piece = { start, bytes: kept, isWritten: false };
    this.#pieces.push(piece);
    this.#segments.add(start, start + kept.length);
    return { bytes: kept, written: () => this.#written(piece) };
  }

  /** What is there from the position on; held until it is released with `releasePiece`. */
  take(position: number): Uint8Array | null {
    this.#askedAt = position;
    const piece = this.#pieces.find(({ start, bytes }) => start <= position && position < start + bytes.length);
    if (!piece) return null;
    // What is not in the file can be had nowhere else.
    if (!holdPiece(piece.bytes, { always: !piece.isWritten }) && piece.isWritten) return null;
    return piece.bytes.subarray(position - piece.start);
  }

  /** Everything that came is thrown away. */
  reset(): void {
    this.#segments = new SegmentMap();
    this.clear();
  }

  clear(): void {
    for (const { bytes } of this.#pieces) releasePiece(bytes);
    this.#pieces = [];
  }

  /** After a failure: what was not written may have been seen by readers, who want to look at it again. */
  abandon(): void {
    for (const { bytes, isWritten } of this.#pieces) {
      if (isWritten) releasePiece(bytes);
      else forgetPiece(bytes);
    }
    this.#pieces = this.#pieces.filter(({ isWritten }) => !isWritten);
  }

  #written(piece: Piece): void {
    piece.isWritten = true;
    const { start } = piece;
    const isNear = start >= this.#askedAt && start <= this.#askedAt + REACH_BYTES;
    const written = this.#pieces.filter(({ isWritten }) => isWritten);
    const dropped = isNear ? written.slice(0, -KEPT_WRITTEN) : [...written.slice(0, -KEPT_WRITTEN - 1), piece];
    for (const { bytes } of dropped) releasePiece(bytes);
    this.#pieces = this.#pieces.filter((one) => !dropped.includes(one));
  }
}
