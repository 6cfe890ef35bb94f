/**
 * Writes an upload to its file: small chunks are gathered into blocks, one block is written while the next one fills, and writeback is
 * begun early, so that the sync at commit finds little left to do.
 *
 * Blocks go out strictly one after the other: whatever size the file has, the bytes before it never change again. Taking over from a
 * dead writer rests on that.
 */
import type { FileHandle } from "node:fs/promises";
import { BufferPool } from "./buffer-pool.ts";

export const FS_WRITE_LIMITS = {
  /** Two blocks are the memory of one running append: wide ones while few run, narrow ones when many do. */
  wideBytes: 512 * 1024,
  narrowBytes: 128 * 1024,
  wideWriters: 8,
  idleBlocks: 16,
  /** Written bytes after which writeback is begun in the background. */
  syncBytes: 32 * 1024 * 1024,
  /** Background syncs of a process; more would take the thread pool away from reads. */
  syncs: 1,
} as const;

const wide = new BufferPool(FS_WRITE_LIMITS.wideBytes, FS_WRITE_LIMITS.idleBlocks);
const narrow = new BufferPool(FS_WRITE_LIMITS.narrowBytes, FS_WRITE_LIMITS.idleBlocks);
let runningWriters = 0;
let runningSyncs = 0;

export class FsWriter {
  readonly #handle: FileHandle;
  readonly #onSync: () => Promise<void>;
  readonly #blocks: BufferPool;
  #position: number;
  #block: Buffer | null = null;
  #filled = 0;
  #writing: Promise<void> | null = null;
  #syncing: Promise<void> | null = null;
  #unsynced = 0;
  #failure: { readonly error: unknown } | null = null;

  /** `onSync` runs along with every background sync; its error ends the append. */
  constructor(handle: FileHandle, position: number, onSync: () => Promise<void>) {
    this.#handle = handle;
    this.#position = position;
    this.#onSync = onSync;
    this.#blocks = runningWriters < FS_WRITE_LIMITS.wideWriters ? wide : narrow;
    runningWriters += 1;
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    const block = (this.#block ??= this.#blocks.take());
    if (this.#filled + chunk.byteLength < block.byteLength) {
      block.set(chunk, this.#filled);
      this.#filled += chunk.byteLength;
      return undefined;
    }
    return this.#writeLong(chunk);
  }

  /** Everything is in the file (not yet on disk); gives the new size. To be called exactly once, also after a failure. */
  async finish(): Promise<number> {
    try {
      if (!this.#failure && this.#filled > 0) await this.#flush();
      await this.#writing;
      await this.#syncing;
      if (this.#failure) throw this.#failure.error;
      return this.#position;
    } finally {
      await this.#writing;
      await this.#syncing;
      if (this.#block) this.#blocks.give(this.#block);
      this.#block = null;
      runningWriters -= 1;
    }
  }

  async #writeLong(chunk: Uint8Array): Promise<void> {
    for (let from = 0; from < chunk.byteLength;) {
      const block = (this.#block ??= this.#blocks.take());
      const part = chunk.subarray(from, from + block.byteLength - this.#filled);
      block.set(part, this.#filled);
      this.#filled += part.byteLength;
      from += part.byteLength;
      if (this.#filled === block.byteLength) await this.#flush();
    }
  }

  async #flush(): Promise<void> {
    await this.#writing;
    if (this.#failure) throw this.#failure.error;
    const block = this.#block;
    if (!block) return;
    const length = this.#filled;
    this.#block = null;
    this.#filled = 0;
    this.#writing = this.#writeBlock(block, length);
  }

  async #writeBlock(block: Buffer, length: number): Promise<void> {
    try {
      for (let done = 0; done < length;) {
        const { bytesWritten } = await this.#handle.write(block, done, length - done, this.#position);
        done += bytesWritten;
        this.#position += bytesWritten;
      }
      this.#unsynced += length;
      if (this.#unsynced >= FS_WRITE_LIMITS.syncBytes && !this.#syncing && runningSyncs < FS_WRITE_LIMITS.syncs)
        this.#syncing = this.#sync();
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      this.#blocks.give(block);
    }
  }

  async #sync(): Promise<void> {
    this.#unsynced = 0;
    runningSyncs += 1;
    try {
      await this.#onSync();
      await this.#handle.datasync();
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      runningSyncs -= 1;
      this.#syncing = null;
    }
  }
}
