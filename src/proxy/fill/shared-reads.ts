/**
 * Readers of one growing file that come to the same place share what one of them read: many clients pull the same cold blob at once, and a read for each of
 * them would cost more than sending the bytes.
 */
import { hasRoomForPiece, holdPiece, releasePiece, takePiece } from "./piece-memory.ts";

interface Kept {
  readonly start: number;
  readonly bytes: Uint8Array;
}

interface Loading {
  readonly done: Promise<Uint8Array>;
  /** Readers besides the one that reads. */
  waiting: number;
}

type Read = (buffer: Buffer, span: { readonly length: number; readonly position: number }) => Promise<number>;

const KEPT = 2;

export class SharedReads {
  #kept: Kept[] = [];
  #loading = new Map<number, Loading>();
  #isOver = false;

  /** The bytes from the position on, at most `available`, to be released with `releasePiece`; null when too much is in use to share. Empty at the end of the file. */
  async take(position: number, available: number, read: Read): Promise<Uint8Array | null> {
    const kept = this.#kept.find(({ start, bytes }) => start <= position && position < start + bytes.length);
    if (kept && holdPiece(kept.bytes)) return kept.bytes.subarray(position - kept.start);
    const loading = this.#loading.get(position);
    if (loading) {
      loading.waiting += 1;
      return loading.done;
    }
    return hasRoomForPiece() ? this.#load(position, available, read) : null;
  }

  /** The content began anew: what was read so far is of no use any more. */
  clear(): void {
    for (const { bytes } of this.#kept) releasePiece(bytes);
    this.#kept = [];
    this.#loading = new Map();
  }

  /** Nothing is kept from now on: who still reads is the last of its readers. */
  close(): void {
    this.#isOver = true;
    this.clear();
  }

  async #load(position: number, available: number, read: Read): Promise<Uint8Array> {
    const all = this.#loading;
    const piece = takePiece();
    const loading: Loading = {
      waiting: 0,
      done: read(piece, { length: Math.min(piece.length, available), position }).then(
        (count) => {
          const bytes = piece.subarray(0, count);
          for (let reader = 0; reader < loading.waiting; reader += 1) holdPiece(bytes, { always: true });
          // After a new beginning it is no longer what later readers want.
          if (all.delete(position) && all === this.#loading && count > 0) this.#keep(position, bytes);
          return bytes;
        },
        (error: unknown) => {
          all.delete(position);
          releasePiece(piece);
          throw error;
        },
      ),
    };
    all.set(position, loading);
    return loading.done;
  }

  #keep(start: number, bytes: Uint8Array): void {
    if (this.#isOver || !holdPiece(bytes)) return;
    this.#kept.push({ start, bytes });
    const oldest = this.#kept.length > KEPT ? this.#kept.shift() : undefined;
    if (oldest) releasePiece(oldest.bytes);
  }
}
