/**
 * Blobs on a local or shared POSIX disk:
 *
 *   blobs/<algorithm>/<2 hex>/<hex>   content, written once, renamed into place after it was synced
 *   sessions/<id>/                    uploads, see fs-session.ts
 *   objects/<key>                     named objects
 *   tmp/                              whatever is being staged or removed
 */
import { randomUUID } from "node:crypto";
import { open, readFile, rename, rm, stat, statfs, unlink, writeFile } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { sleep } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import { Gate } from "../core/gate.ts";
import { drainSource, throwIfAborted } from "./append-source.ts";
import type {
  AppendOptions,
  AppendResult,
  BlobStat,
  BlobStore,
  ByteRange,
  ObjectEntry,
  SessionCommit,
  StorageSpace,
} from "./blob-store.ts";
import { spanOf } from "./byte-range.ts";
import { errnoOf, fsError, isErrno, withFsErrors } from "./fs-errors.ts";
import { ensureDir, moveDurably, removeDir, syncDir, syncFile, writeDurably } from "./fs-files.ts";
import { listBlobKeys, listObjectEntries, listUntouched } from "./fs-list.ts";
import { streamSpan } from "./fs-read.ts";
import { FsSession, openClaimed } from "./fs-session.ts";
import { FsWriter } from "./fs-writer.ts";
import { blobKey, objectKey, objectPrefix, requirePage, sessionKey } from "./object-keys.ts";

/** Staged files this old belong to nobody who lives. */
const STAGING_MAX_AGE_MS = 24 * 3_600_000;
const SWEEP_PAGE = 1000;
/** A disk that hangs (a dead NFS server) must not hang the health check. */
const CHECK_MS = 5_000;
/** Files that are made durable at once: each sync holds a thread of the pool through which all other files are read and written. */
const MOVES = 2;
const MOVE_WAIT_MS = 10 * 60_000;

export class FsBlobStore implements BlobStore {
  readonly driver = "fs";
  readonly chunkMinBytes = 0;
  readonly #root: string;
  readonly #staging: string;
  /** Folders of blobs known to exist: at most one for each of 2 algorithms x 256 shards. */
  readonly #shards = new Set<string>();
  readonly #moves = new Gate({
    places: MOVES,
    waitMs: MOVE_WAIT_MS,
    refusal: { message: "too many files wait for the disk", retryAfterSeconds: 5 },
  });

  private constructor(root: string) {
    this.#root = root;
    this.#staging = join(root, "tmp");
  }

  static async open(root: string): Promise<FsBlobStore> {
    const store = new FsBlobStore(root);
    await withFsErrors(async () => {
      await ensureDir("/", root);
      for (const name of ["blobs", "sessions", "objects", "tmp"]) await ensureDir(root, join(root, name));
      const stale = await listUntouched(store.#staging, Date.now() - STAGING_MAX_AGE_MS, SWEEP_PAGE);
      await Promise.all(stale.map((name) => rm(join(store.#staging, name), { recursive: true, force: true })));
    });
    return store;
  }

  filePath(digest: string): string {
    return join(this.#root, blobKey(digest));
  }

  async stat(digest: string): Promise<BlobStat | null> {
    try {
      const file = await stat(this.filePath(digest));
      return { size: file.size };
    } catch (error) {
      if (isErrno(error, "ENOENT")) return null;
      throw fsError(error);
    }
  }

  async read(digest: string, range?: ByteRange, signal?: AbortSignal): Promise<Readable> {
    throwIfAborted(signal);
    const { handle, size } = await this.#openBlob(digest);
    try {
      return streamSpan(handle, spanOf(range, size), signal);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async readAll(digest: string, maxBytes: number): Promise<Buffer> {
    const { handle, size } = await this.#openBlob(digest);
    try {
      if (size > maxBytes) throw new SlipwayError("PAYLOAD_TOO_LARGE");
      return await handle.readFile();
    } catch (error) {
      throw fsError(error);
    } finally {
      await handle.close();
    }
  }

  async put(digest: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const path = this.filePath(digest);
    await withFsErrors(async () => {
      await this.#ensureShard(path);
      await writeDurably(this.#staging, path, bytes);
    });
  }

  async remove(digest: string): Promise<void> {
    await this.#unlink(this.filePath(digest));
  }

  redirectUrl(): Promise<null> {
    return Promise.resolve(null);
  }

  async list(after: string | null, limit: number): Promise<string[]> {
    requirePage(limit);
    const start = after === null ? null : blobKey(after);
    return await withFsErrors(() => listBlobKeys(this.#root, start, limit));
  }

  async createSession(id: string): Promise<void> {
    await withFsErrors(() => this.#session(id).create());
  }

  async append(id: string, source: AsyncIterable<Uint8Array>, options: AppendOptions): Promise<AppendResult> {
    return await withFsErrors(async () => {
      const claim = await this.#session(id).claim(options.offset);
      let result: AppendResult;
      try {
        const handle = await openClaimed(claim);
        try {
          result = await this.#fill(handle, source, { ...options, confirm: claim.confirm });
        } finally {
          await handle.close();
        }
      } catch (error) {
        // The first error is the one to tell; a session that stays busy is taken over by the next append.
        await claim.release().catch(() => undefined);
        throw error;
      }
      await claim.release();
      return result;
    });
  }

  async sessionSize(id: string): Promise<number | null> {
    const state = await withFsErrors(() => this.#session(id).state());
    return state ? state.size : null;
  }

  async readSession(id: string, signal?: AbortSignal): Promise<Readable> {
    throwIfAborted(signal);
    const session = this.#session(id);
    return await withFsErrors(async () => {
      const state = await session.state();
      if (!state) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
      try {
        return streamSpan(await open(session.path(state), "r"), { start: 0, end: state.size }, signal);
      } catch (error) {
        if (isErrno(error, "ENOENT")) throw new SlipwayError("CONFLICT", { message: "another request writes this upload" });
        throw error;
      }
    });
  }

  async commitSession(id: string, commit: SessionCommit, signal?: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const path = this.filePath(commit.digest);
    const session = this.#session(id);
    await withFsErrors(async () => {
      const state = await session.settle(commit.size);
      if (!state) return this.#requireCommitted(commit);
      if (state.size !== commit.size) {
        throw new SlipwayError("CONFLICT", { message: "the upload is at another offset", detail: { offset: state.size } });
      }
      try {
        await this.#ensureShard(path);
        await syncFile(session.path(state));
        await rename(session.path(state), path);
      } catch (error) {
        if (!isErrno(error, "ENOENT")) throw error;
        // Somebody committed, removed or continued it in this moment.
        if (await session.state()) throw new SlipwayError("CONFLICT", { message: "another request writes this upload" });
        return this.#requireCommitted(commit);
      }
      await syncDir(dirname(path));
      await removeDir(this.#staging, session.dir);
    });
  }

  async abortSession(id: string): Promise<void> {
    await withFsErrors(() => removeDir(this.#staging, this.#session(id).dir));
  }

  async adoptFile(path: string, commit: SessionCommit, signal?: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const target = this.filePath(commit.digest);
    await withFsErrors(async () => {
      const { size } = await stat(path);
      if (size !== commit.size) throw new SlipwayError("SIZE_INVALID", { detail: { expected: commit.size, found: size } });
      await this.#moves.run(async () => {
        await this.#ensureShard(target);
        await moveDurably(this.#staging, path, target);
      }, signal);
    });
  }

  async listSessions(olderThan: number, limit: number): Promise<string[]> {
    requirePage(limit);
    return await withFsErrors(() => listUntouched(join(this.#root, "sessions"), olderThan, limit));
  }

  async putObject(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const path = join(this.#root, objectKey(key));
    try {
      await ensureDir(this.#root, dirname(path));
      await writeDurably(this.#staging, path, bytes);
    } catch (error) {
      if (!isErrno(error, "EISDIR", "ENOTDIR", "EEXIST", "ENOTEMPTY")) throw fsError(error);
      throw new SlipwayError("CONFLICT", { message: "an object's key cannot also be a folder of others", cause: error });
    }
  }

  async getObject(key: string): Promise<Buffer | null> {
    try {
      return await readFile(join(this.#root, objectKey(key)));
    } catch (error) {
      if (isErrno(error, "ENOENT", "ENOTDIR", "EISDIR")) return null;
      throw fsError(error);
    }
  }

  async removeObject(key: string): Promise<void> {
    await this.#unlink(join(this.#root, objectKey(key)));
  }

  async listObjects(prefix: string, after: string | null, limit: number): Promise<ObjectEntry[]> {
    requirePage(limit);
    objectPrefix(prefix);
    if (after !== null) objectKey(after);
    const walk = { root: join(this.#root, "objects"), prefix, after: after ?? "" };
    return await withFsErrors(() => listObjectEntries(walk, limit));
  }

  async space(): Promise<StorageSpace> {
    const found = await withFsErrors(() => statfs(this.#root));
    return { totalBytes: found.blocks * found.bsize, freeBytes: found.bavail * found.bsize };
  }

  async check(signal?: AbortSignal): Promise<void> {
    const timer = new AbortController();
    const limit = sleep(CHECK_MS, signal ? AbortSignal.any([signal, timer.signal]) : timer.signal);
    const late = limit.then(() => {
      throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "the disk does not answer" });
    });
    try {
      await Promise.race([this.#probe(), late]);
    } catch (error) {
      throwIfAborted(signal);
      throw fsError(error);
    } finally {
      timer.abort();
    }
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #session(id: string): FsSession {
    return new FsSession(join(this.#root, sessionKey(id)));
  }

  async #fill(
    handle: FileHandle,
    source: AsyncIterable<Uint8Array>,
    options: AppendOptions & { readonly confirm: () => Promise<void> },
  ): Promise<AppendResult> {
    const writer = new FsWriter(handle, options.offset, options.confirm);
    let sourceError: unknown;
    try {
      sourceError = await drainSource(source, options, (chunk) => writer.write(chunk));
    } catch (error) {
      await writer.finish().catch(() => undefined);
      throw error;
    }
    return { offset: await writer.finish(), sourceError };
  }

  async #openBlob(digest: string): Promise<{ handle: FileHandle; size: number }> {
    let handle: FileHandle;
    try {
      handle = await open(this.filePath(digest), "r");
    } catch (error) {
      if (isErrno(error, "ENOENT")) throw new SlipwayError("BLOB_UNKNOWN");
      throw fsError(error);
    }
    try {
      return { handle, size: (await handle.stat()).size };
    } catch (error) {
      await handle.close();
      throw fsError(error);
    }
  }

  async #ensureShard(path: string): Promise<void> {
    const shard = dirname(path);
    if (this.#shards.has(shard)) return;
    await ensureDir(this.#root, shard);
    this.#shards.add(shard);
  }

  /** The answer to a commit whose first answer was lost. */
  async #requireCommitted(commit: SessionCommit): Promise<void> {
    const found = await this.stat(commit.digest);
    if (found?.size !== commit.size) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
  }

  async #unlink(path: string): Promise<void> {
    try {
      await unlink(path);
    } catch (error) {
      if (isErrno(error, "ENOENT", "ENOTDIR")) return;
      throw fsError(error);
    }
  }

  async #probe(): Promise<void> {
    const path = join(this.#staging, `check-${randomUUID()}`);
    try {
      await writeFile(path, "slipway", { flag: "wx" });
      if ((await readFile(path, "utf8")) !== "slipway") throw new SlipwayError("STORAGE_UNAVAILABLE");
    } finally {
      await rm(path, { force: true }).catch((error: unknown) => void errnoOf(error));
    }
  }
}
