/** Where a body ends on its connection: after a told length, with its last chunk, or with the connection. Pure. */
import { malformed } from "./wire-error.ts";

export interface BodyFraming {
  /** Nothing of the body is to come. */
  readonly isOver: boolean;
  /** Gives what belongs to the body, in order; the number of bytes that belong to this answer at all. */
  take(bytes: Buffer, give: (data: Buffer) => void): number;
}

export class LengthBody implements BodyFraming {
  #left: number;

  constructor(length: number) {
    this.#left = length;
  }

  get isOver(): boolean {
    return this.#left === 0;
  }

  take(bytes: Buffer, give: (data: Buffer) => void): number {
    const data = bytes.length > this.#left ? bytes.subarray(0, this.#left) : bytes;
    this.#left -= data.length;
    if (data.length > 0) give(data);
    return data.length;
  }
}

export class OpenEndedBody implements BodyFraming {
  readonly isOver = false;

  take(bytes: Buffer, give: (data: Buffer) => void): number {
    if (bytes.length > 0) give(bytes);
    return bytes.length;
  }
}

const MAX_LINE_BYTES = 8 * 1024;
const SIZE_LINE = /^([0-9a-f]{1,12})[\t ]*(?:;.*)?$/i;

export class ChunkedBody implements BodyFraming {
  #expects: "size" | "data" | "end of data" | "trailer" | "nothing" = "size";
  #line = "";
  #left = 0;

  get isOver(): boolean {
    return this.#expects === "nothing";
  }

  take(bytes: Buffer, give: (data: Buffer) => void): number {
    let at = 0;
    while (at < bytes.length && !this.isOver) at = this.#expects === "data" ? this.#takeData(bytes, at, give) : this.#takeLine(bytes, at);
    return at;
  }

  #takeData(bytes: Buffer, at: number, give: (data: Buffer) => void): number {
    const data = bytes.subarray(at, at + this.#left);
    this.#left -= data.length;
    if (this.#left === 0) this.#expects = "end of data";
    give(data);
    return at + data.length;
  }

  #takeLine(bytes: Buffer, at: number): number {
    const end = bytes.indexOf("\n", at);
    this.#line += bytes.toString("latin1", at, end < 0 ? bytes.length : end);
    if (this.#line.length > MAX_LINE_BYTES) throw malformed("a line between chunks is too long");
    if (end < 0) return bytes.length;
    if (!this.#line.endsWith("\r")) throw malformed("a line between chunks does not end as it should");
    this.#endLine(this.#line.slice(0, -1));
    this.#line = "";
    return end + 1;
  }

  #endLine(line: string): void {
    if (this.#expects === "trailer") {
      if (line === "") this.#expects = "nothing";
    } else if (this.#expects === "end of data") {
      if (line !== "") throw malformed("a chunk is longer than it says");
      this.#expects = "size";
    } else {
      const [, size] = SIZE_LINE.exec(line) ?? [];
      if (size === undefined) throw malformed("the size of a chunk is malformed");
      this.#left = Number.parseInt(size, 16);
      this.#expects = this.#left === 0 ? "trailer" : "data";
    }
  }
}
