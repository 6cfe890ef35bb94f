/** Blobs on a local disk: staged, synced, renamed. A folder may be shared by any number of processes. */
import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat, statfs, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { SlipwayError } from "../core/errors.ts";
import { appendToFile } from "./fs-append.ts";
import { isMissing, toStorageError } from "./fs-errors.ts";
import { listBlobDigests, listFiles } from "./fs-list.ts";
import { blobKey, objectKey, sessionKey } from "./object-keys.ts";
import type { AppendOptions, AppendResult, BlobStat, BlobStore, ByteRange, ObjectEntry, SessionCommit } from "./blob-store.ts";

const READ_BYTES = 256 * 1024;

export class FsStore implements BlobStore {
  readonly driver = "fs";
  readonly chunkMinBytes = 0;
  readonly #root: string;
  /** Sessions that this process appends to just now; the row's version keeps other processes away. */
  readonly #appending = new Set<string>();
  readonly #madeFolders = new Set<string>();

  constructor(root: string) {
    this.#root = root;
  }

  async open(): Promise<void> {
    for (const folder of ["blobs", "sessions", "objects", "staging"]) await mkdir(join(this.#root, folder), { recursive: true });
  }

  async stat(digest: string): Promise<BlobStat | null> {
    try {
      const { size } = await stat(this.filePath(digest));
      return { size };
    } catch (error) {
      if (isMissing(error)) return null;
      throw toStorageError(error);
    }
  }

  async read(digest: string, range?: ByteRange, signal?: AbortSignal): Promise<Readable> {
    const file = await this.#openForReading(this.filePath(digest), "BLOB_UNKNOWN");
    return createReadStream("", {
      fd: file,
      highWaterMark: READ_BYTES,
      ...(range && { start: range.start, end: range.end }),
      ...(signal && { signal }),
    });
  }

  async readAll(digest: string, maxBytes: number): Promise<Buffer> {
    const file = await this.#openForReading(this.filePath(digest), "BLOB_UNKNOWN");
    try {
      const { size } = await file.stat();
      if (size > maxBytes) throw new SlipwayError("PAYLOAD_TOO_LARGE", { detail: { size, maxBytes } });
      return await file.readFile();
    } catch (error) {
      throw toStorageError(error);
    } finally {
      await file.close();
    }
  }

  filePath(digest: string): string {
    return join(this.#root, blobKey(digest));
  }

  async put(digest: string, bytes: Uint8Array): Promise<void> {
    if (await this.stat(digest)) return;
    await this.#writeAtomically(this.filePath(digest), bytes);
  }

  async remove(digest: string): Promise<void> {
    await rm(this.filePath(digest), { force: true }).catch(rethrow);
  }

  redirectUrl(): Promise<null> {
    return Promise.resolve(null);
  }

  list(after: string | null, limit: number): Promise<string[]> {
    return listBlobDigests(join(this.#root, "blobs"), after, limit);
  }

  async createSession(id: string): Promise<void> {
    const path = join(this.#root, sessionKey(id));
    try {
      const file = await open(path, "wx", 0o600);
      await file.close();
    } catch (error) {
      throw toStorageError(error);
    }
  }

  async append(id: string, source: AsyncIterable<Uint8Array>, options: AppendOptions): Promise<AppendResult> {
    const path = join(this.#root, sessionKey(id));
    if (this.#appending.has(id)) throw new SlipwayError("CONFLICT", { message: "another request appends to this upload" });
    this.#appending.add(id);
    try {
      const file = await this.#openSession(path);
      try {
        const { size } = await file.stat();
        if (size !== options.offset)
          throw new SlipwayError("CONFLICT", { message: "the upload has another length", detail: { offset: size } });
        return await appendToFile(file, source, options);
      } finally {
        await file.close();
      }
    } finally {
      this.#appending.delete(id);
    }
  }

  async sessionSize(id: string): Promise<number | null> {
    try {
      return (await stat(join(this.#root, sessionKey(id)))).size;
    } catch (error) {
      if (isMissing(error)) return null;
      throw toStorageError(error);
    }
  }

  async readSession(id: string, signal?: AbortSignal): Promise<Readable> {
    const file = await this.#openForReading(join(this.#root, sessionKey(id)), "BLOB_UPLOAD_UNKNOWN");
    return createReadStream("", { fd: file, highWaterMark: READ_BYTES, ...(signal && { signal }) });
  }

  async commitSession(id: string, commit: SessionCommit): Promise<void> {
    const path = join(this.#root, sessionKey(id));
    await this.adoptFile(path, commit);
  }

  /** Takes a finished file on the same file system; a blob that is already there wins and the file goes. */
  async adoptFile(path: string, commit: SessionCommit): Promise<void> {
    const target = this.filePath(commit.digest);
    try {
      const file = await open(path, "r+");
      try {
        const { size } = await file.stat();
        if (size !== commit.size) throw new SlipwayError("SIZE_INVALID", { detail: { expected: commit.size, found: size } });
        await file.datasync();
      } finally {
        await file.close();
      }
      await this.#makeFolder(dirname(target));
      await rename(path, target);
      await syncFolder(dirname(target));
    } catch (error) {
      if (isMissing(error)) {
        // Another closed the same session first; the blob is what counts.
        if ((await this.stat(commit.digest))?.size === commit.size) return;
        throw new SlipwayError("BLOB_UPLOAD_UNKNOWN", { cause: error });
      }
      throw toStorageError(error);
    }
  }

  async abortSession(id: string): Promise<void> {
    await rm(join(this.#root, sessionKey(id)), { force: true }).catch(rethrow);
  }

  async listSessions(olderThan: number, limit: number): Promise<string[]> {
    const folder = join(this.#root, "sessions");
    const old: string[] = [];
    for (const name of await readdir(folder).catch(rethrow)) {
      if (old.length >= limit) break;
      const found = await stat(join(folder, name)).catch(() => null);
      if (found && found.mtimeMs < olderThan) old.push(name);
    }
    return old;
  }

  async putObject(key: string, bytes: Uint8Array): Promise<void> {
    await this.#writeAtomically(join(this.#root, objectKey(key)), bytes);
  }

  async getObject(key: string): Promise<Buffer | null> {
    try {
      return await readFile(join(this.#root, objectKey(key)));
    } catch (error) {
      if (isMissing(error)) return null;
      throw toStorageError(error);
    }
  }

  async removeObject(key: string): Promise<void> {
    await rm(join(this.#root, objectKey(key)), { force: true }).catch(rethrow);
  }

  listObjects(prefix: string, after: string | null, limit: number): Promise<ObjectEntry[]> {
    return listFiles(join(this.#root, "objects"), { prefix, after, limit });
  }

  async check(): Promise<void> {
    const path = join(this.#root, "staging", `check-${process.pid}-${randomUUID()}`);
    try {
      const file = await open(path, "wx");
      await file.write(Buffer.alloc(4096));
      await file.close();
    } catch (error) {
      throw toStorageError(error);
    } finally {
      await rm(path, { force: true }).catch(() => undefined);
    }
  }

  /** Bytes that an ordinary user could still write, and the whole. */
  async space(): Promise<{ freeBytes: number; totalBytes: number }> {
    const { bavail, blocks, bsize } = await statfs(this.#root);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #openForReading(path: string, missing: "BLOB_UNKNOWN" | "BLOB_UPLOAD_UNKNOWN"): ReturnType<typeof open> {
    try {
      return await open(path, "r");
    } catch (error) {
      if (isMissing(error)) throw new SlipwayError(missing, { cause: error });
      throw toStorageError(error);
    }
  }

  async #openSession(path: string): ReturnType<typeof open> {
    try {
      return await open(path, "r+");
    } catch (error) {
      if (isMissing(error)) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN", { cause: error });
      throw toStorageError(error);
    }
  }

  async #writeAtomically(target: string, bytes: Uint8Array): Promise<void> {
    const staged = join(this.#root, "staging", randomUUID());
    try {
      await this.#makeFolder(dirname(target));
      const file = await open(staged, "wx", 0o600);
      try {
        await file.writeFile(bytes);
        await file.datasync();
      } finally {
        await file.close();
      }
      await rename(staged, target);
      await syncFolder(dirname(target));
    } catch (error) {
      await unlink(staged).catch(() => undefined);
      throw toStorageError(error);
    }
  }

  async #makeFolder(folder: string): Promise<void> {
    if (this.#madeFolders.has(folder)) return;
    await mkdir(folder, { recursive: true });
    await syncFolder(dirname(folder));
    if (this.#madeFolders.size > 4096) this.#madeFolders.clear();
    this.#madeFolders.add(folder);
  }
}

/** A rename is durable only once the folder is. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function rethrow(error: unknown): never {
  throw toStorageError(error);
}
