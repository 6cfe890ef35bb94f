/**
 * One large blob through several ranged reads at once, in order: the first range passes through, the ones behind it fill buffers of their own size
 * and no more.
 */
import { Readable } from "node:stream";

export interface RangeReaderOptions {
  readonly start: number;
  /** After the last byte. */
  readonly end: number;
  readonly rangeBytes: number;
  readonly parallel: number;
  /** Bytes from an offset up to, but without, another. */
  readonly open: (start: number, end: number) => Promise<Readable>;
  /** Asked before each further range: false goes on with one range for the rest. */
  readonly mayDivide: () => boolean;
}

interface Part {
  readonly start: number;
  readonly end: number;
  body: Readable | null;
  readonly buffered: Buffer[];
  ended: boolean;
}

export class RangeReader extends Readable {
  readonly #options: RangeReaderOptions;
  readonly #parts: Part[] = [];
  #next: number;
  #wanted = false;

  constructor(options: RangeReaderOptions) {
    super({ highWaterMark: 256 * 1024 });
    this.#options = options;
    this.#next = options.start;
    this.on("error", () => undefined);
  }

  override _read(): void {
    this.#wanted = true;
    this.#advance();
    this.#parts[0]?.body?.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    for (const part of this.#parts) part.body?.on("error", () => undefined).destroy();
    this.#parts.length = 0;
    callback(error);
  }

  #advance(): void {
    const { parallel, end } = this.#options;
    while (this.#next < end && this.#parts.length < parallel && this.#mayBegin()) this.#begin();
  }

  #mayBegin(): boolean {
    const [first] = this.#parts;
    // The first range shows whether the other side knows ranges at all, before more are asked for.
    return first === undefined || (first.body !== null && this.#options.mayDivide());
  }

  #begin(): void {
    const { end, rangeBytes, mayDivide } = this.#options;
    const start = this.#next;
    const until = mayDivide() ? Math.min(end, start + rangeBytes) : end;
    const part: Part = { start, end: until, body: null, buffered: [], ended: false };
    this.#next = until;
    this.#parts.push(part);
    this.#options.open(start, until).then(
      (body) => this.#attach(part, body),
      (error: unknown) => this.destroy(error instanceof Error ? error : new Error(String(error))),
    );
  }

  #attach(part: Part, body: Readable): void {
    if (this.destroyed) {
      body.on("error", () => undefined).destroy();
      return;
    }
    part.body = body;
    body.on("data", (chunk: Buffer) => this.#take(part, chunk));
    body.once("end", () => {
      part.ended = true;
      this.#drain();
    });
    body.once("error", (error) => this.destroy(error));
    if (part === this.#parts[0] && !this.#wanted) body.pause();
    this.#advance();
  }

  #take(part: Part, chunk: Buffer): void {
    if (part !== this.#parts[0]) {
      part.buffered.push(chunk);
      return;
    }
    if (this.push(chunk)) return;
    this.#wanted = false;
    part.body?.pause();
  }

  /** The first range is through: what the next one has buffered goes on at once. */
  #drain(): void {
    while (this.#parts[0]?.ended) {
      this.#parts.shift();
      const [first] = this.#parts;
      if (first) {
        let room = this.#wanted;
        for (const chunk of first.buffered) room = this.push(chunk);
        first.buffered.length = 0;
        this.#wanted = room;
        if (!room && !first.ended) first.body?.pause();
      } else if (this.#next >= this.#options.end) {
        this.push(null);
        return;
      }
      this.#advance();
    }
  }
}
