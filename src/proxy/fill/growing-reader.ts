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
import { readableEnd } from "./growing.ts";
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

export interface ReaderOptions {
  readonly blocks?: BlockSource | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class GrowingReader {
  readonly #start: number;
  readonly #end: number;
  readonly #blocks: BlockSource;
  readonly #signal: AbortSignal | undefined;
  #file: PositionedFile | null = null;
  #epoch = "";
  #position: number;
  /** Of what was handed out last. */
  #giveBack: (() => void) | null = null;
  #wake: (() => void) | null = null;

  constructor(range: { start: number; end: number }, { blocks = FRESH_BLOCKS, signal }: ReaderOptions) {
    this.#start = range.start;
    this.#end = range.end;
    this.#position = range.start;
    this.#blocks = blocks;
    this.#signal = signal;
    signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get position(): number {
    return this.#position;
  }

  /** Valid until the next call; null at the end. Throws when the source fails; it may then be continued with another. */
  async next(growing: Growing): Promise<Uint8Array | null> {
    this.#settle();
    while (this.#position < this.#end) {
      if (growing.epoch !== "" && (this.#file === null || this.#epoch !== growing.epoch)) await this.#attach(growing);
      const recent = this.#takeRecent(growing);
      if (recent !== null) return recent;
      const file = this.#epoch === growing.epoch ? this.#file : null;
      const stored = Math.min(this.#available(growing), readableEnd(growing, this.#position) - this.#position);
      if (file !== null && stored > 0) return this.#fromFile(file, growing, stored);
      if (growing.state === "failed") throw growing.failure ?? new SlipwayError("UPSTREAM_INVALID");
      if (growing.state === "done" && this.#file === null) throw new MovedAway();
      await this.#changed(growing);
    }
    return null;
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
      const stored = Math.min(buffer.length, wanted, readableEnd(growing, position) - position);
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
    this.#settle();
    this.#signal?.removeEventListener("abort", this.#onAbort);
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }

  readonly #onAbort = (): void => this.#wake?.();

  /** Without a listener for each wait: there are as many as pieces. */
  async #changed(growing: Growing): Promise<void> {
    this.#signal?.throwIfAborted();
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      growing.whenChanged(resolve);
    });
    this.#wake = null;
    this.#signal?.throwIfAborted();
  }

  /** What is in memory just now; null when there is nothing. */
  #takeRecent(growing: Growing): Uint8Array | null {
    if (this.#file === null || this.#epoch !== growing.epoch) return null;
    const available = this.#available(growing);
    const piece = available > 0 ? (growing.takeRecent?.(this.#position) ?? null) : null;
    return piece === null ? null : this.#hand(piece, available);
  }

  #available(growing: Growing): number {
    return Math.min(growing.visibleEnd(this.#position), this.#end) - this.#position;
  }

  #settle(): void {
    this.#giveBack?.();
    this.#giveBack = null;
  }

  async #fromFile(file: PositionedFile, { reads }: Growing, stored: number): Promise<Uint8Array> {
    const piece = (await reads?.take(this.#position, stored, (buffer, span) => file.read(buffer, span))) ?? null;
    return piece === null ? this.#chunk(file, stored) : this.#hand(piece, stored);
  }

  #hand(piece: Uint8Array, available: number): Uint8Array {
    this.#giveBack = () => releasePiece(piece);
    const bytes = piece.length > available ? piece.subarray(0, available) : piece;
    if (bytes.length === 0) throw tooShort();
    this.#position += bytes.length;
    return bytes;
  }

  async #chunk(file: PositionedFile, available: number): Promise<Uint8Array> {
    const block = this.#blocks.take(available);
    this.#giveBack = () => this.#blocks.give(block);
    const bytesRead = await file.read(block.buffer, { length: Math.min(block.buffer.length, available), position: this.#position });
    if (bytesRead === 0) throw tooShort();
    this.#position += bytesRead;
    return block.buffer.subarray(0, bytesRead);
  }

  async #attach(growing: Growing): Promise<void> {
    const { epoch } = growing;
    const file = growing.share?.() ?? (await openAt(growing.path));
    if (file === null) {
      // Moved into storage, or replaced by a new beginning: the next look tells.
      if (growing.epoch !== epoch) return;
      if (growing.state !== "running") throw new MovedAway();
      await this.#changed(growing);
      return;
    }
    const before = this.#file;
    if (before !== null && this.#position > this.#start) {
      try {
        await this.#compare({ before, after: file, growing, epoch });
      } catch (error) {
        await file.close();
        throw error;
      }
    }
    this.#file = file;
    this.#epoch = epoch;
    await before?.close();
  }

  async #compare({
    before,
    after,
    growing,
    epoch,
  }: {
    before: PositionedFile;
    after: PositionedFile;
    growing: Growing;
    epoch: string;
  }): Promise<void> {
    const buffer = Buffer.allocUnsafe(COMPARE_BYTES);
    for (let position = this.#start; position < this.#position;) {
      const available = Math.min(growing.visibleEnd(position), this.#position) - position;
      if (growing.epoch !== epoch) throw mixed();
      if (available <= 0) {
        if (growing.state === "failed") throw growing.failure ?? new SlipwayError("UPSTREAM_INVALID");
        await this.#changed(growing);
        continue;
      }
      const bytesRead = await after.read(buffer, { length: Math.min(buffer.length, available), position });
      if (bytesRead === 0 || !(await isSame(before, buffer.subarray(0, bytesRead), position))) throw mixed();
      position += bytesRead;
    }
  }
}

/** Null when it is not there. */
async function openAt(path: string | null): Promise<PositionedFile | null> {
  if (path === null) return null;
  return PositionedFile.open(path, "r").catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return null;
    throw error;
  });
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
