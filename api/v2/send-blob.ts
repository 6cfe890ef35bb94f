/**
 * Bytes of a blob to a client. From a local disk: a loop that reads into one reused block and writes it, which took less than half of the
 * CPU of streams; else a stream with backpressure, or a redirect. A transfer that cannot be completed is broken, never ended.
 */
import { close, fstat, open, read } from "node:fs";
import type { ServerResponse } from "node:http";
import type { Readable } from "node:stream";
import type { StoredBlob } from "../../src/catalog/registry.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import { BlockPool } from "./block-pool.ts";
import type { Exchange } from "./exchange.ts";
import { TurnBudget } from "./turn-budget.ts";

export interface BlobAnswer {
  readonly blob: StoredBlob;
  readonly status: 200 | 206;
  readonly headers: readonly string[];
  /** First byte, and the one behind the last. */
  readonly start: number;
  readonly end: number;
}

export interface BlobSenderOptions {
  readonly store: BlobStore;
  readonly redirectMinBytes: number;
  readonly pool?: BlockPool;
}

const BYTES_PER_TURN = 4 * 1024 * 1024;

export class BlobSender {
  readonly #store: BlobStore;
  readonly #redirectMinBytes: number;
  readonly #pool: BlockPool;
  readonly #turn = new TurnBudget(BYTES_PER_TURN);

  constructor(options: BlobSenderOptions) {
    this.#store = options.store;
    this.#redirectMinBytes = options.redirectMinBytes;
    this.#pool = options.pool ?? new BlockPool();
  }

  /** For others that send bytes of blobs. */
  get blocks(): BlockPool {
    return this.#pool;
  }

  stats(): ReturnType<BlockPool["stats"]> {
    return this.#pool.stats();
  }

  async send(exchange: Exchange, answer: BlobAnswer): Promise<void> {
    const { blob, status, start, end } = answer;
    const headers = [...answer.headers, "Content-Length", String(end - start)];
    if (exchange.isHead || end === start) {
      exchange.begin(status, headers);
      exchange.res.end();
      return;
    }
    if (blob.bytes !== null) {
      exchange.begin(status, headers);
      exchange.bytes += end - start;
      exchange.res.end(start === 0 && end === blob.size ? blob.bytes : blob.bytes.subarray(start, end));
      return;
    }
    const path = this.#store.filePath(blob.digest);
    if (path !== null) {
      await this.#sendFile(exchange, answer, { path, headers });
      return;
    }
    if (blob.size >= this.#redirectMinBytes && (await this.#redirected(exchange, blob.digest))) return;
    await this.#sendStream(exchange, answer, headers);
  }

  async #redirected(exchange: Exchange, digest: string): Promise<boolean> {
    const location = await this.#store.redirectUrl(digest, exchange.signal);
    if (location === null) return false;
    exchange.send(307, ["Location", location, "Cache-Control", "no-store", "Docker-Content-Digest", digest]);
    return true;
  }

  async #sendFile(exchange: Exchange, answer: BlobAnswer, { path, headers }: { path: string; headers: readonly string[] }): Promise<void> {
    const { blob, start, end } = answer;
    const fd = await openBlob(path, blob);
    this.#pool.enter();
    try {
      exchange.begin(answer.status, headers);
      await this.#copy(exchange, { fd, start, end });
      exchange.res.end();
    } finally {
      this.#pool.leave();
      close(fd, () => undefined);
    }
  }

  async #copy(exchange: Exchange, { fd, start, end }: { fd: number; start: number; end: number }): Promise<void> {
    const write = blockWriter(exchange.res);
    for (let position = start; position < end;) {
      const wanted = end - position;
      const block = this.#pool.take(wanted);
      try {
        const { buffer } = block;
        const count = await readBlock(fd, buffer, { length: Math.min(buffer.length, wanted), position });
        if (count === 0) throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "the stored file is shorter than the blob" });
        if (!this.#turn.tryTake(count)) await this.#turn.wait(count);
        await write(count === buffer.length ? buffer : buffer.subarray(0, count));
        position += count;
        exchange.bytes += count;
      } finally {
        this.#pool.give(block);
      }
    }
  }

  async #sendStream(exchange: Exchange, answer: BlobAnswer, headers: readonly string[]): Promise<void> {
    const { blob, start, end } = answer;
    const whole = start === 0 && end === blob.size;
    const source: Readable = await this.#store.read(blob.digest, whole ? undefined : { start, end: end - 1 }, exchange.signal);
    try {
      exchange.begin(answer.status, headers);
      const write = blockWriter(exchange.res);
      let left = end - start;
      for await (const chunk of source as AsyncIterable<Uint8Array>) {
        left -= chunk.length;
        if (left < 0) break;
        await write(chunk);
        exchange.bytes += chunk.length;
      }
      if (left !== 0) throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "storage sent another length than the blob has" });
      exchange.res.end();
    } finally {
      source.destroy();
    }
  }
}

/** The file of a blob, of the size that the catalog knows; found out before the head is sent. */
function openBlob(path: string, blob: StoredBlob): Promise<number> {
  return new Promise((resolve, reject) => {
    open(path, "r", (openError, fd) => {
      if (openError) {
        const missing = openError.code === "ENOENT";
        reject(new SlipwayError(missing ? "BLOB_UNKNOWN" : "STORAGE_UNAVAILABLE", { cause: openError, detail: { digest: blob.digest } }));
        return;
      }
      fstat(fd, (statError, stats) => {
        if (!statError && stats.size === blob.size) {
          resolve(fd);
          return;
        }
        close(fd, () => undefined);
        reject(new SlipwayError("STORAGE_UNAVAILABLE", { message: "the stored file has another size than the blob", cause: statError }));
      });
    });
  });
}

function readBlock(fd: number, block: Buffer, { length, position }: { length: number; position: number }): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, block, 0, length, position, (error, count) => {
      if (error) reject(new SlipwayError("STORAGE_UNAVAILABLE", { cause: error }));
      else resolve(count);
    });
  });
}

/**
 * Writes that settle when nothing reads from the block any more: the kernel has the bytes, or the connection is closed and its pending
 * writes are cancelled. After a disconnect the callback may never come, hence the listener.
 */
export function blockWriter(res: ServerResponse): (block: Uint8Array) => Promise<void> {
  let settle: ((error?: Error | null) => void) | null = null;
  res.once("close", () => settle?.(new SlipwayError("CANCELLED")));
  return (block) =>
    new Promise((resolve, reject) => {
      if (res.destroyed) {
        reject(new SlipwayError("CANCELLED"));
        return;
      }
      settle = (error) => {
        settle = null;
        if (error) reject(new SlipwayError("CANCELLED", { cause: error }));
        else resolve();
      };
      res.write(block, settle);
    });
}
