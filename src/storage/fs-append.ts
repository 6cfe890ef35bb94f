/**
 * Writes a stream to a file at a position. Small chunks are gathered into large writes, one write is in flight while the next is
 * gathered, and the kernel is told to write back every few megabytes, so that the final fsync finds little left to do.
 */
import type { FileHandle } from "node:fs/promises";
import { SlipwayError } from "../core/errors.ts";
import { toStorageError } from "./fs-errors.ts";
import type { AppendOptions, AppendResult } from "./blob-store.ts";

const GATHER_BYTES = 512 * 1024;
const WRITEBACK_BYTES = 32 * 1024 * 1024;

export async function appendToFile(file: FileHandle, source: AsyncIterable<Uint8Array>, options: AppendOptions): Promise<AppendResult> {
  const writer = new GatheringWriter(file, options.offset);
  const limit = options.limit ?? Number.POSITIVE_INFINITY;
  let received = 0;
  let sourceError: unknown;
  try {
    for await (const chunk of abortable(source, options.signal)) {
      received += chunk.length;
      if (received > limit) throw new SlipwayError("PAYLOAD_TOO_LARGE");
      options.onChunk?.(chunk);
      const wait = writer.add(chunk);
      if (wait) await wait;
    }
  } catch (error) {
    if (writer.failure !== undefined) throw toStorageError(writer.failure);
    sourceError = error ?? new Error("the source ended early");
  }
  await writer.finish();
  return { offset: writer.offset, sourceError };
}

async function* abortable(source: AsyncIterable<Uint8Array>, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    signal?.throwIfAborted();
    yield chunk;
  }
}

class GatheringWriter {
  readonly #file: FileHandle;
  #chunks: Uint8Array[] = [];
  #gathered = 0;
  #position: number;
  #flight: Promise<void> | null = null;
  #sinceWriteback = 0;
  #writeback: Promise<void> | null = null;
  failure: unknown;

  constructor(file: FileHandle, offset: number) {
    this.#file = file;
    this.#position = offset;
  }

  /** Bytes that are in the file once finish() returned. */
  get offset(): number {
    return this.#position;
  }

  /** A promise when the caller has to wait before it gives more. */
  add(chunk: Uint8Array): Promise<void> | null {
    this.#chunks.push(chunk);
    this.#gathered += chunk.length;
    return this.#gathered >= GATHER_BYTES ? this.#flush() : null;
  }

  async finish(): Promise<void> {
    try {
      await this.#flush();
      await this.#flight;
      await this.#writeback;
    } catch (error) {
      throw toStorageError(error);
    }
  }

  async #flush(): Promise<void> {
    await this.#flight;
    if (this.failure !== undefined) throw this.failure;
    if (this.#gathered === 0) return;
    const chunks = this.#chunks;
    const size = this.#gathered;
    this.#chunks = [];
    this.#gathered = 0;
    this.#flight = this.#write(chunks, size);
    // A failure shows at the next flush or at the end.
    this.#flight.catch((error: unknown) => {
      this.failure ??= error;
    });
  }

  async #write(chunks: Uint8Array[], size: number): Promise<void> {
    let remaining = chunks;
    let left = size;
    while (left > 0) {
      const { bytesWritten } = await this.#file.writev(remaining, this.#position);
      this.#position += bytesWritten;
      left -= bytesWritten;
      if (left > 0) remaining = dropBytes(remaining, bytesWritten);
    }
    this.#sinceWriteback += size;
    if (this.#sinceWriteback >= WRITEBACK_BYTES && this.#writeback === null) {
      this.#sinceWriteback = 0;
      this.#writeback = this.#file.datasync().finally(() => {
        this.#writeback = null;
      });
      this.#writeback.catch((error: unknown) => {
        this.failure ??= error;
      });
    }
  }
}

function dropBytes(chunks: readonly Uint8Array[], count: number): Uint8Array[] {
  let skip = count;
  const rest: Uint8Array[] = [];
  for (const chunk of chunks) {
    if (skip >= chunk.length) {
      skip -= chunk.length;
    } else {
      rest.push(skip > 0 ? chunk.subarray(skip) : chunk);
      skip = 0;
    }
  }
  return rest;
}
