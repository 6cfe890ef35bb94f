/**
 * One reader of a growing blob. It keeps the file open, so it does not matter when the file is moved or replaced, and it may go on from another
 * source when its own ends. Whenever the content is another than it began with, what was already handed out is compared first: two halves of
 * different origin never become one answer.
 */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { SlipwayError } from "../../core/errors.ts";
import { isErrno } from "../../storage/fs-errors.ts";
import { PositionedFile } from "../../storage/fs-io.ts";
import type { Growing } from "./growing.ts";
import { releasePiece } from "./piece-memory.ts";

/** Where buffers for reading come from; each is given back when its bytes were taken. */
export interface BlockSource {
  take(wanted: number): Block;
  give(block: Block): void;
}

export interface Block {
  readonly buffer: Buffer;
}

const READ_BYTES = 64 * 1024;
const COMPARE_BYTES = 256 * 1024;

export const FRESH_BLOCKS: BlockSource = {
  take: (wanted) => ({ buffer: Buffer.allocUnsafe(Math.min(READ_BYTES, Math.max(1, wanted))) }),
  give: () => undefined,
};

/** The file was moved away before it could be opened: the blob is complete and in storage. */
export class MovedAway extends Error {
  override readonly name = "MovedAway";
}

export class GrowingReader {
  readonly #start: number;
  readonly #end: number;
  readonly #blocks: BlockSource;
  #file: PositionedFile | null = null;
  #epoch = "";
  #position: number;

  constructor(range: { start: number; end: number }, blocks: BlockSource) {
    this.#start = range.start;
    this.#end = range.end;
    this.#position = range.start;
    this.#blocks = blocks;
  }

  get position(): number {
    return this.#position;
  }

  /** Chunks are valid until the next one is asked for. Throws when the source fails; it may then be continued with another. */
  async *read(growing: Growing, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    while (this.#position < this.#end) {
      if (growing.path !== null && (this.#file === null || this.#epoch !== growing.epoch)) await this.#attach(growing, signal);
      const available = Math.min(growing.visibleEnd(this.#position), this.#end) - this.#position;
      if (available > 0 && this.#file !== null && this.#epoch === growing.epoch) {
        const recent = growing.takeRecent?.(this.#position) ?? null;
        if (recent !== null) {
          yield* this.#piece(recent, available);
          continue;
        }
        const stored = Math.min(available, growing.storedEnd(this.#position) - this.#position);
        if (stored > 0) {
          const piece = await this.#shared(this.#file, growing, stored);
          if (piece === null) yield* this.#chunk(this.#file, stored);
          else yield* this.#piece(piece, stored);
          continue;
        }
      }
      if (growing.state === "failed") throw growing.failure ?? new SlipwayError("UPSTREAM_INVALID");
      if (growing.state === "done" && this.#file === null) throw new MovedAway();
      await growing.change(signal);
    }
  }

  /** The verified blob has what was handed out already. */
  async continueWith(
    whole: (range: { start: number; end: number }) => Promise<AsyncIterable<Uint8Array>>,
  ): Promise<AsyncIterable<Uint8Array>> {
    if (this.#file !== null && this.#position > this.#start) {
      let position = this.#start;
      for await (const chunk of await whole({ start: this.#start, end: this.#position })) {
        if (!(await isSame(this.#file, chunk, position))) throw mixed();
        position += chunk.length;
      }
    }
    return whole({ start: this.#position, end: this.#end });
  }

  /** Over what was handed out of it, which must begin with the blob. */
  async hashSoFar(algorithm: string, growing: Growing): Promise<Hash> {
    const hash = createHash(algorithm);
    const buffer = Buffer.allocUnsafe(COMPARE_BYTES);
    for (let position = this.#start; position < this.#position && this.#file !== null;) {
      const wanted = this.#position - position;
      const stored = Math.min(buffer.length, wanted, growing.storedEnd(position) - position);
      if (stored > 0) {
        const bytesRead = await this.#file.read(buffer, { length: stored, position });
        if (bytesRead === 0) throw mixed();
        hash.update(buffer.subarray(0, bytesRead));
        position += bytesRead;
        continue;
      }
      // Handed out and never written.
      const piece = growing.takeRecent?.(position) ?? null;
      if (piece === null) throw mixed();
      hash.update(piece.subarray(0, wanted));
      position += Math.min(wanted, piece.length);
      releasePiece(piece);
    }
    return hash;
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }

  async #shared(file: PositionedFile, { reads }: Growing, available: number): Promise<Uint8Array | null> {
    return (await reads?.take(this.#position, available, (buffer, span) => file.read(buffer, span))) ?? null;
  }

  *#piece(piece: Uint8Array, available: number): Generator<Uint8Array> {
    const bytes = piece.subarray(0, available);
    this.#position += bytes.length;
    try {
      if (bytes.length === 0) throw tooShort();
      yield bytes;
    } finally {
      releasePiece(piece);
    }
  }

  async *#chunk(file: PositionedFile, available: number): AsyncGenerator<Uint8Array> {
    const block = this.#blocks.take(available);
    try {
      const bytesRead = await file.read(block.buffer, { length: Math.min(block.buffer.length, available), position: this.#position });
      if (bytesRead === 0) throw tooShort();
      this.#position += bytesRead;
      yield block.buffer.subarray(0, bytesRead);
    } finally {
      this.#blocks.give(block);
    }
  }

  async #attach(growing: Growing, signal?: AbortSignal): Promise<void> {
    const { path, epoch } = growing;
    if (path === null) return;
    const file = await PositionedFile.open(path, "r").catch((error: unknown) => {
      if (isErrno(error, "ENOENT")) return null;
      throw error;
    });
    if (file === null) {
      // Moved into storage, or replaced by a new beginning: the next look tells.
      if (growing.epoch !== epoch) return;
      if (growing.state !== "running") throw new MovedAway();
      await growing.change(signal);
      return;
    }
    const before = this.#file;
    if (before !== null && this.#position > this.#start) {
      try {
        await this.#compare({ before, after: file, growing, epoch }, signal);
      } catch (error) {
        await file.close();
        throw error;
      }
    }
    this.#file = file;
    this.#epoch = epoch;
    await before?.close();
  }

  async #compare(
    { before, after, growing, epoch }: { before: PositionedFile; after: PositionedFile; growing: Growing; epoch: string },
    signal?: AbortSignal,
  ): Promise<void> {
    const buffer = Buffer.allocUnsafe(COMPARE_BYTES);
    for (let position = this.#start; position < this.#position;) {
      const available = Math.min(growing.visibleEnd(position), this.#position) - position;
      if (growing.epoch !== epoch) throw mixed();
      if (available <= 0) {
        if (growing.state === "failed") throw growing.failure ?? new SlipwayError("UPSTREAM_INVALID");
        await growing.change(signal);
        continue;
      }
      const bytesRead = await after.read(buffer, { length: Math.min(buffer.length, available), position });
      if (bytesRead === 0 || !(await isSame(before, buffer.subarray(0, bytesRead), position))) throw mixed();
      position += bytesRead;
    }
  }
}

async function isSame(file: PositionedFile, expected: Uint8Array, position: number): Promise<boolean> {
  const buffer = Buffer.allocUnsafe(expected.length);
  let done = 0;
  while (done < expected.length) {
    const bytesRead = await file.read(buffer.subarray(done), { length: expected.length - done, position: position + done });
    if (bytesRead === 0) return false;
    done += bytesRead;
  }
  return buffer.equals(expected);
}

function tooShort(): SlipwayError {
  return new SlipwayError("STORAGE_UNAVAILABLE", { message: "the staged blob is shorter than it should be" });
}

function mixed(): SlipwayError {
  return new SlipwayError("DIGEST_MISMATCH", { message: "what was sent so far is not part of the right content" });
}
