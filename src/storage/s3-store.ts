/**
 * Blobs on any S3-compatible service. Uploads go to segments below `sessions/` (see s3-session.ts) and are copied inside the service to
 * their place when they are committed: the digest is known only then.
 */
import { randomUUID } from "node:crypto";
import type { Readable } from "node:stream";
import { Gate } from "../core/gate.ts";
import { SlipwayError } from "../core/errors.ts";
import { drainSource, throwIfAborted } from "./append-source.ts";
import type { AppendOptions, AppendResult, BlobStat, BlobStore, ByteRange, ObjectEntry, SessionCommit } from "./blob-store.ts";
import { BufferPool } from "./buffer-pool.ts";
import { blobKey, digestOfBlobKey, objectKey, objectPrefix, requirePage, sessionKey } from "./object-keys.ts";
import { S3Writer } from "./s3-append.ts";
import { assemble } from "./s3-assemble.ts";
import { collectBody, readBody, toReadable } from "./s3-body.ts";
import { S3Bucket } from "./s3-bucket.ts";
import { uploadFile } from "./s3-upload-file.ts";
import { abortUpload, listUploads, S3_MIN_PART } from "./s3-multipart.ts";
import { S3Session } from "./s3-session.ts";
import type { S3StorageConfig } from "./storage-config.ts";

/** Part buffers kept for the next append; more are given back to the system. */
const IDLE_PARTS = 2;
const CHECK_MS = 5_000;

export class S3BlobStore implements BlobStore {
  readonly driver = "s3";
  readonly chunkMinBytes = S3_MIN_PART;
  readonly #bucket: S3Bucket;
  readonly #redirect: boolean;
  readonly #parts: BufferPool;
  readonly #places: Gate;

  private constructor(config: S3StorageConfig) {
    this.#bucket = new S3Bucket(config);
    this.#redirect = config.redirect;
    const { partBytes, appends, appendWaitMs } = this.#bucket.limits;
    this.#parts = new BufferPool(Math.max(partBytes, S3_MIN_PART), IDLE_PARTS);
    this.#places = new Gate({
      places: appends,
      waitMs: appendWaitMs,
      refusal: { message: "too many uploads are running", retryAfterSeconds: 5 },
    });
  }

  static open(config: S3StorageConfig): S3BlobStore {
    return new S3BlobStore(config);
  }

  filePath(): null {
    return null;
  }

  async stat(digest: string, signal?: AbortSignal): Promise<BlobStat | null> {
    const found = await this.#bucket.head(blobKey(digest), signal);
    return found ? { size: found.size } : null;
  }

  async read(digest: string, range?: ByteRange, signal?: AbortSignal): Promise<Readable> {
    if (range && !(range.start >= 0 && range.start <= range.end)) throw new SlipwayError("RANGE_INVALID");
    const found = await this.#bucket.get(blobKey(digest), range, signal);
    if (!found) throw new SlipwayError("BLOB_UNKNOWN");
    return toReadable(readBody(found, this.#bucket.limits.idleMs, signal));
  }

  async readAll(digest: string, maxBytes: number, signal?: AbortSignal): Promise<Buffer> {
    const found = await this.#bucket.get(blobKey(digest), undefined, signal);
    if (!found) throw new SlipwayError("BLOB_UNKNOWN");
    if (found.length > maxBytes) {
      found.stream.destroy();
      throw new SlipwayError("PAYLOAD_TOO_LARGE");
    }
    return await collectBody(found, this.#bucket.limits.idleMs, signal);
  }

  /** Content under a digest never differs, so an object that is there already will do. */
  async put(digest: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    const key = blobKey(digest);
    if ((await this.#bucket.put(key, bytes, { replaces: null }, signal)) !== null) return;
    const present = await this.#bucket.head(key, signal);
    if (present?.size !== bytes.byteLength) await this.#bucket.put(key, bytes, {}, signal);
  }

  async remove(digest: string, signal?: AbortSignal): Promise<void> {
    await this.#bucket.delete(blobKey(digest), signal);
  }

  async redirectUrl(digest: string): Promise<string | null> {
    return this.#redirect ? await this.#bucket.presign(blobKey(digest)) : null;
  }

  async list(after: string | null, limit: number, signal?: AbortSignal): Promise<string[]> {
    requirePage(limit);
    const digests: string[] = [];
    for await (const { key } of this.#bucket.list("blobs/", after === null ? null : blobKey(after), signal)) {
      const digest = digestOfBlobKey(key);
      if (digest !== null) digests.push(digest);
      if (digests.length === limit) break;
    }
    return digests;
  }

  async createSession(id: string, signal?: AbortSignal): Promise<void> {
    await S3Session.create(this.#bucket, sessionKey(id), signal);
  }

  async append(id: string, source: AsyncIterable<Uint8Array>, options: AppendOptions): Promise<AppendResult> {
    return await this.#withPart(options.signal, async (part) => {
      const writer = new S3Writer(this.#bucket, await this.#claim(id, options.offset), part);
      await writer.begin();
      return await this.#fill(writer, source, options);
    });
  }

  async sessionSize(id: string, signal?: AbortSignal): Promise<number | null> {
    const session = await S3Session.load(this.#bucket, sessionKey(id), signal);
    return session ? await session.size(signal) : null;
  }

  async readSession(id: string, signal?: AbortSignal): Promise<Readable> {
    const session = await S3Session.load(this.#bucket, sessionKey(id), signal);
    if (!session) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
    const settled = await session.settle(await session.size(signal));
    return toReadable(this.#readSegments(settled, signal));
  }

  async commitSession(id: string, commit: SessionCommit, signal?: AbortSignal): Promise<void> {
    const target = blobKey(commit.digest);
    const loaded = await S3Session.load(this.#bucket, sessionKey(id), signal);
    if (!loaded) return await this.#requireCommitted(commit, signal);
    const size = await loaded.size(signal);
    if (size !== commit.size) throw new SlipwayError("CONFLICT", { message: "the upload is at another offset", detail: { offset: size } });
    const session = await loaded.settle(commit.size);
    try {
      await assemble(this.#bucket, { segments: session.segments, keyOf: (name) => session.segmentKey(name), target }, signal);
    } catch (error) {
      // The same commit elsewhere may have taken the segments away under us.
      if (!(await S3Session.load(this.#bucket, session.key, signal))) return await this.#requireCommitted(commit, signal);
      throw error;
    }
    // The blob stands; what is left of the session is found by listSessions if this fails.
    await this.#removeSession(session.key).catch(() => undefined);
  }

  async abortSession(id: string, signal?: AbortSignal): Promise<void> {
    const key = sessionKey(id);
    await this.#removeSession(key, signal);
    for await (const upload of listUploads(this.#bucket, `${key}/`, signal)) await abortUpload(this.#bucket, upload);
  }

  async adoptFile(path: string, commit: SessionCommit, signal?: AbortSignal): Promise<void> {
    const key = blobKey(commit.digest);
    await this.#withPart(signal, async (part) => {
      const present = await this.#bucket.head(key, signal);
      await uploadFile(this.#bucket, { path, key, size: commit.size, part, present: present?.size === commit.size }, signal);
    });
  }

  async listSessions(olderThan: number, limit: number, signal?: AbortSignal): Promise<string[]> {
    requirePage(limit);
    const found = new Set<string>();
    let id: string | null = null;
    let touched = 0;
    const close = (): void => {
      if (id !== null && touched < olderThan) found.add(id);
    };
    for await (const entry of this.#bucket.list("sessions/", null, signal)) {
      const entryId = sessionIdOf(entry.key);
      if (entryId === id) touched = Math.max(touched, entry.modifiedAt);
      else {
        close();
        if (found.size >= limit) break;
        id = entryId;
        touched = entry.modifiedAt;
      }
    }
    if (found.size < limit) close();
    if (found.size < limit) await this.#addOrphanUploads({ found, olderThan, limit }, signal);
    return [...found];
  }

  async putObject(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#bucket.put(objectKey(key), bytes, {}, signal);
  }

  async getObject(key: string, signal?: AbortSignal): Promise<Buffer | null> {
    const found = await this.#bucket.get(objectKey(key), undefined, signal);
    return found ? await collectBody(found, this.#bucket.limits.idleMs, signal) : null;
  }

  async removeObject(key: string, signal?: AbortSignal): Promise<void> {
    await this.#bucket.delete(objectKey(key), signal);
  }

  async listObjects(prefix: string, after: string | null, limit: number, signal?: AbortSignal): Promise<ObjectEntry[]> {
    requirePage(limit);
    const found: ObjectEntry[] = [];
    for await (const entry of this.#bucket.list(objectPrefix(prefix), after === null ? null : objectKey(after), signal)) {
      found.push({ ...entry, key: entry.key.slice("objects/".length) });
      if (found.length === limit) break;
    }
    return found;
  }

  space(): Promise<null> {
    return Promise.resolve(null);
  }

  async check(signal?: AbortSignal): Promise<void> {
    const limit = AbortSignal.timeout(CHECK_MS);
    const both = signal ? AbortSignal.any([signal, limit]) : limit;
    const value = randomUUID();
    try {
      await this.#bucket.put("check", Buffer.from(value), {}, both);
      if ((await this.#bucket.head("check", both)) === null) throw new SlipwayError("STORAGE_UNAVAILABLE");
    } catch (error) {
      throwIfAborted(signal);
      if (limit.aborted) throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "the storage service does not answer", cause: error });
      throw error;
    }
  }

  close(): Promise<void> {
    this.#bucket.client.destroy();
    return Promise.resolve();
  }

  async #withPart<Result>(signal: AbortSignal | undefined, work: (part: Buffer) => Promise<Result>): Promise<Result> {
    return this.#places.run(async () => {
      const part = this.#parts.take();
      const result = await work(part);
      // Not after a failure: a request may still be reading it.
      this.#parts.give(part);
      return result;
    }, signal);
  }

  async #claim(id: string, offset: number): Promise<S3Session> {
    const session = await S3Session.load(this.#bucket, sessionKey(id));
    if (!session) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
    const size = await session.size();
    if (size !== offset) throw new SlipwayError("CONFLICT", { message: "the upload is at another offset", detail: { offset: size } });
    return await session.settle(offset);
  }

  async #fill(writer: S3Writer, source: AsyncIterable<Uint8Array>, options: AppendOptions): Promise<AppendResult> {
    let broken = false;
    const write = async (pending: Promise<void>): Promise<void> => {
      try {
        await pending;
      } catch (error) {
        broken = true;
        throw error;
      }
    };
    let sourceError: unknown;
    try {
      sourceError = await drainSource(source, options, (chunk) => {
        const pending = writer.write(chunk);
        return pending && write(pending);
      });
    } catch (error) {
      if (!broken) await writer.finish().catch(() => undefined);
      throw error;
    }
    return { offset: await writer.finish(), sourceError };
  }

  async *#readSegments(session: S3Session, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    for (const segment of session.segments) {
      const found = await this.#bucket.get(session.segmentKey(segment.name), undefined, signal);
      if (!found) throw new SlipwayError("CONFLICT", { message: "another request writes this upload" });
      yield* readBody(found, this.#bucket.limits.idleMs, signal);
    }
  }

  async #removeSession(key: string, signal?: AbortSignal): Promise<void> {
    const open = (await S3Session.load(this.#bucket, key, signal).catch(() => null))?.open;
    // First: without it no append goes on and no commit begins.
    await this.#bucket.delete(`${key}/state`, signal);
    for await (const entry of this.#bucket.list(`${key}/`, null, signal)) await this.#bucket.delete(entry.key, signal);
    if (open) await abortUpload(this.#bucket, { key: `${key}/${open.name}`, uploadId: open.uploadId });
  }

  /** Multipart uploads of sessions of which nothing else is left. */
  async #addOrphanUploads(
    search: { readonly found: Set<string>; readonly olderThan: number; readonly limit: number },
    signal?: AbortSignal,
  ): Promise<void> {
    for await (const upload of listUploads(this.#bucket, "sessions/", signal)) {
      const id = sessionIdOf(upload.key);
      if (upload.startedAt >= search.olderThan || search.found.has(id)) continue;
      const rest = await this.#bucket.list(`sessions/${id}/`, null, signal).next();
      if (rest.done) search.found.add(id);
      if (search.found.size >= search.limit) return;
    }
  }

  async #requireCommitted(commit: SessionCommit, signal?: AbortSignal): Promise<void> {
    const found = await this.stat(commit.digest, signal);
    if (found?.size !== commit.size) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
  }
}

function sessionIdOf(key: string): string {
  return key.split("/")[1] ?? "";
}
