/**
 * The bytes of a body in larger pieces: what is small is gathered. A write for each packet cost more than the bytes, and so did the stream's own iterator, with its promises
 * and its new memory for each chunk.
 */
import type { Readable } from "node:stream";
import { SlipwayError } from "../../core/errors.ts";
import { isReused, recycle } from "../../upstream/read-memory.ts";
import { adoptPiece, releasePiece, takePiece } from "./piece-memory.ts";

/** From this size on a chunk is a piece as it came; smaller ones are copied together. */
const DIRECT_BYTES = 128 * 1024;
/** So much may be ready while somebody is waited for; then the body waits too. */
const READY_BYTES = 512 * 1024;

/** The beginning of a body is given as it comes, later a little is waited for more: a client hardly notices the time, and each piece costs as much as hundreds of its kilobytes. */
const EAGER_BYTES = 64 * 1024;
const GATHER_MS = 4;

/** Nothing further is given before it is resolved. Pieces are valid during the call, or as long as somebody holds them (piece-memory.ts). */
export type TakePiece = (piece: Uint8Array) => Promise<void> | null;

/**
 * Resolves at the end of the body, which is destroyed when it fails or `take` throws. The body's chunks must come from a socket and have no other reader: their
 * memory is given back as soon as nobody looks at it any more.
 */
export function eachPiece(body: Readable, take: TakePiece): Promise<void> {
  return new Promise((resolve, reject) => {
    const gathering = new Gathering(body, take, (error) => (error === null ? resolve() : reject(error)));
    gathering.begin();
  });
}

class Gathering {
  readonly #body: Readable;
  readonly #take: TakePiece;
  readonly #done: (error: Error | null) => void;
  readonly #ready: Uint8Array[] = [];
  #readyBytes = 0;
  #filling: Buffer | null = null;
  #length = 0;
  #copied: Buffer[] = [];
  #turn: NodeJS.Immediate | null = null;
  #timer: NodeJS.Timeout | null = null;
  #received = 0;
  /** Whoever takes wants a pause. */
  #isWaiting = false;
  /** The body has ended so. */
  #end: { readonly error: Error | null } | null = null;
  #isClosed = false;

  constructor(body: Readable, take: TakePiece, done: (error: Error | null) => void) {
    this.#body = body;
    this.#take = take;
    this.#done = done;
  }

  begin(): void {
    const body = this.#body;
    body.on("data", this.#onData);
    body.once("end", () => this.#ended(null));
    body.once("error", (error) => this.#ended(error));
    body.once("close", () => this.#ended(new SlipwayError("CANCELLED")));
    // It may have been destroyed before anybody listened.
    if (body.destroyed) this.#ended(body.errored ?? new SlipwayError("CANCELLED"));
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#received += chunk.length;
    if (chunk.length >= DIRECT_BYTES && isReused(chunk)) {
      this.#finishPiece();
      this.#addReady(adoptPiece(chunk));
    } else this.#gather(chunk);
    this.#give();
    if (this.#isClosed) return;
    if (this.#readyBytes >= READY_BYTES) this.#body.pause();
    if (this.#length === 0 && this.#copied.length === 0) return;
    // What the socket has besides comes in the same turn, and belongs to the same piece.
    if (this.#received <= EAGER_BYTES) this.#turn ??= setImmediate(() => this.#flush());
    else this.#timer ??= setTimeout(() => this.#flush(), GATHER_MS);
  };

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
  }

  #addReady(piece: Uint8Array): void {
    this.#ready.push(piece);
    this.#readyBytes += piece.length;
  }

  /** What was gathered has waited long enough. While somebody is waited for it grows on. */
  #flush(): void {
    this.#stopTimers();
    this.#recycleCopied();
    if (!this.#isWaiting) this.#finishPiece();
    this.#give();
  }

  #give(): void {
    while (!this.#isWaiting && !this.#isClosed) {
      const piece = this.#ready.shift();
      if (piece === undefined) break;
      this.#readyBytes -= piece.length;
      try {
        this.#waitFor(this.#take(piece));
      } catch (error) {
        this.#close(error as Error);
      } finally {
        releasePiece(piece);
      }
    }
    if (this.#end !== null && this.#ready.length === 0 && !this.#isWaiting) this.#close(this.#end.error);
  }

  #waitFor(pause: Promise<void> | null): void {
    if (pause === null) return;
    this.#isWaiting = true;
    pause.then(
      () => {
        this.#isWaiting = false;
        if (this.#timer === null && this.#turn === null) this.#finishPiece();
        this.#give();
        if (this.#readyBytes < READY_BYTES) this.#body.resume();
      },
      (error: unknown) => this.#close(error as Error),
    );
  }

  /** What came before is given all the same. */
  #ended(error: Error | null): void {
    if (this.#end !== null) return;
    this.#end = { error };
    this.#recycleCopied();
    this.#finishPiece();
    this.#give();
  }

  #close(error: Error | null): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#stopTimers();
    this.#body.off("data", this.#onData);
    this.#body.on("error", () => undefined).destroy();
    if (this.#filling) releasePiece(this.#filling);
    for (const piece of this.#ready.splice(0)) releasePiece(piece);
    this.#done(error);
  }

  /** Not in the turn in which they came: the parser that gave a chunk still looks at it. */
  #recycleCopied(): void {
    for (const chunk of this.#copied) recycle(chunk);
    this.#copied = [];
  }

  #stopTimers(): void {
    if (this.#turn) clearImmediate(this.#turn);
    if (this.#timer) clearTimeout(this.#timer);
    this.#turn = null;
    this.#timer = null;
  }
}
