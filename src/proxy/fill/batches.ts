/**
 * The bytes of a body in larger pieces: while one piece is written, what arrives meanwhile is gathered into the next. A write for each packet cost more
 * than the bytes, and the stream's own iterator joins its chunks into new memory each time.
 */
import type { Readable } from "node:stream";
import { SlipwayError } from "../../core/errors.ts";
import { recycle } from "../../upstream/read-memory.ts";
import { releasePiece, takePiece } from "./piece-memory.ts";

/**
 * Pieces are valid until the next one is asked for, or as long as somebody holds them (piece-memory.ts). What is there is given at once, however little it is. The body's chunks must come from a
 * socket and have no other reader: their memory is given back as soon as they were copied.
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
  #filling = takePiece();
  #lent: Buffer | null = null;
  #length = 0;
  /** What did not fit; the body is paused as long as there is any. */
  #rest: Buffer[] = [];
  #copied: Buffer[] = [];
  #isOver = false;
  #error: Error | null = null;
  #wake: (() => void) | null = null;
  #turn: NodeJS.Immediate | null = null;

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
    while (this.#length === 0) {
      if (this.#error) throw this.#error;
      if (this.#isOver) return null;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#lent = this.#filling;
    const piece = this.#lent.subarray(0, this.#length);
    this.#filling = takePiece();
    this.#length = 0;
    const rest = this.#rest;
    this.#rest = [];
    for (const chunk of rest) this.#gather(chunk);
    if (this.#rest.length === 0) this.#body.resume();
    return piece;
  }

  close(): void {
    this.#body.off("data", this.#onData);
    this.#body.on("error", () => undefined).destroy();
    releasePiece(this.#filling);
    if (this.#lent) releasePiece(this.#lent);
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#gather(chunk);
    if (this.#rest.length > 0) this.#body.pause();
    if (this.#wake === null) return;
    if (this.#rest.length > 0) this.#wakeUp();
    // What the socket has besides comes in the same turn, and belongs to the same piece.
    else this.#turn ??= setImmediate(() => this.#wakeUp());
  };

  #wakeUp(): void {
    if (this.#turn) clearImmediate(this.#turn);
    this.#turn = null;
    this.#wake?.();
    this.#wake = null;
  }

  #gather(chunk: Buffer): void {
    const taken = this.#rest.length > 0 ? 0 : chunk.copy(this.#filling, this.#length);
    this.#length += taken;
    if (taken < chunk.length) this.#rest.push(taken === 0 ? chunk : chunk.subarray(taken));
    else this.#copied.push(chunk);
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
