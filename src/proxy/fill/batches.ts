/**
 * The bytes of a body in larger pieces: while one piece is written, what arrives meanwhile makes the next ones. A write for each packet cost more
 * than the bytes, and the stream's own iterator joins its chunks into new memory each time.
 */
import type { Readable } from "node:stream";
import { SlipwayError } from "../../core/errors.ts";
import { isReused, recycle } from "../../upstream/read-memory.ts";
import { adoptPiece, releasePiece, takePiece } from "./piece-memory.ts";

/** From this size on a chunk is a piece as it came; smaller ones are copied together. */
const DIRECT_BYTES = 128 * 1024;
/** So much may be ready besides the piece that is looked at; then the body waits. */
const READY_BYTES = 512 * 1024;

/** The beginning of a body is given as it comes, later a little is waited for more: a client hardly notices the time, and each piece costs as much as hundreds of its kilobytes. */
const EAGER_BYTES = 64 * 1024;
const GATHER_MS = 4;

/**
 * Pieces are valid until the next one is asked for, or as long as somebody holds them (piece-memory.ts). The body's chunks must come from a
 * socket and have no other reader: their memory is given back as soon as nobody looks at it any more.
 */
export async function* inBatches(body: Readable): AsyncGenerator<Uint8Array> {
  const gathered = new Gathering(body);
  try {
    for (let piece = await gathered.next(); piece !== null; piece = await gathered.next()) yield piece;
  } finally {
    gathered.close();
  }
}

class Gathering {
  readonly #body: Readable;
  readonly #ready: Uint8Array[] = [];
  #readyBytes = 0;
  #filling: Buffer | null = null;
  #length = 0;
  #lent: Uint8Array | null = null;
  #copied: Buffer[] = [];
  #isOver = false;
  #error: Error | null = null;
  #wake: (() => void) | null = null;
  #turn: NodeJS.Immediate | null = null;
  #timer: NodeJS.Timeout | null = null;
  #received = 0;
  /** What is gathered has waited long enough. */
  #isDue = false;

  constructor(body: Readable) {
    this.#body = body;
    body.on("data", this.#onData);
    body.once("end", () => this.#end(null));
    body.once("error", (error) => this.#end(error));
    body.once("close", () => this.#isOver || this.#end(new SlipwayError("CANCELLED")));
    // It may have been destroyed before anybody listened.
    if (body.destroyed) this.#end(body.errored ?? new SlipwayError("CANCELLED"));
  }

  async next(): Promise<Uint8Array | null> {
    this.#free();
    if (this.#lent) releasePiece(this.#lent);
    this.#lent = null;
    while (!this.#hasPiece()) {
      if (this.#error) throw this.#error;
      if (this.#isOver) return null;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#ready.length === 0) this.#finishPiece();
    const piece = this.#ready.shift() as Uint8Array;
    this.#readyBytes -= piece.length;
    this.#lent = piece;
    if (this.#readyBytes < READY_BYTES) this.#body.resume();
    return piece;
  }

  close(): void {
    if (this.#turn) clearImmediate(this.#turn);
    if (this.#timer) clearTimeout(this.#timer);
    this.#body.off("data", this.#onData);
    this.#body.on("error", () => undefined).destroy();
    if (this.#filling) releasePiece(this.#filling);
    if (this.#lent) releasePiece(this.#lent);
    for (const piece of this.#ready) releasePiece(piece);
  }

  readonly #onData = (chunk: Buffer): void => {
    if (chunk.length >= DIRECT_BYTES && isReused(chunk)) {
      this.#finishPiece();
      this.#addReady(adoptPiece(chunk));
    } else this.#gather(chunk);
    this.#received += chunk.length;
    const isFull = this.#readyBytes >= READY_BYTES;
    if (isFull) this.#body.pause();
    if (isFull) this.#wakeUp();
    // What the socket has besides comes in the same turn, and belongs to the same piece.
    else if (this.#ready.length > 0 || this.#received <= EAGER_BYTES) this.#turn ??= setImmediate(() => this.#wakeUp());
    else this.#timer ??= setTimeout(() => this.#wakeUp(), GATHER_MS);
  };

  #hasPiece(): boolean {
    return this.#ready.length > 0 || (this.#length > 0 && (this.#isDue || this.#isOver));
  }

  #wakeUp(): void {
    if (this.#turn) clearImmediate(this.#turn);
    if (this.#timer) clearTimeout(this.#timer);
    this.#turn = null;
    this.#timer = null;
    this.#isDue = this.#length > 0;
    this.#wake?.();
    this.#wake = null;
  }

  #gather(chunk: Buffer): void {
    for (let taken = 0; taken < chunk.length;) {
      this.#filling ??= takePiece();
      const count = chunk.copy(this.#filling, this.#length, taken);
      taken += count;
      this.#length += count;
      if (this.#length === this.#filling.length) this.#finishPiece();
    }
    this.#copied.push(chunk);
  }

  #finishPiece(): void {
    if (this.#filling === null || this.#length === 0) return;
    this.#addReady(this.#filling.subarray(0, this.#length));
    this.#filling = null;
    this.#length = 0;
    this.#isDue = false;
  }

  #addReady(piece: Uint8Array): void {
    this.#ready.push(piece);
    this.#readyBytes += piece.length;
  }

  /** Not at once: the parser that gave a chunk still looks at it until its turn is over. */
  #free(): void {
    for (const chunk of this.#copied) recycle(chunk);
    this.#copied = [];
  }

  #end(error: Error | null): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#error = error;
    this.#wakeUp();
  }
}
