/** One blob into one repository of a target: in one go, or in chunks that another process may continue. Each failure is answered as far as the protocol lets. */
import type { Readable } from "node:stream";
import { LRUCache } from "lru-cache";
import { sleep } from "../../core/clock.ts";
import { isSlipwayError } from "../../core/errors.ts";
import type { PutResult, UploadSession } from "../../upstream/types.ts";
import type { RegistryAdapter } from "../adapters/adapter.ts";
import { LOCAL_REGISTRY_ID } from "../plan/policy.ts";
import { atTarget } from "./at-side.ts";
import type { BlobBytes } from "./blob-bytes.ts";
import { Feed } from "./feed.ts";
import type { Governor } from "./governor.ts";
import type { BlobRef } from "./plan/content.ts";
import { quickRetryMs, unwrap } from "./plan/failure.ts";
import type { UploadKey, UploadStore } from "./upload-store.ts";

export interface UploadTuning {
  /** Larger blobs go in chunks of this size. */
  readonly chunkBytes: number;
  readonly stallMs: number;
}

export const UPLOAD_TUNING: UploadTuning = { chunkBytes: 16 * 1024 * 1024, stallMs: 60_000 };

export interface UploadJob {
  readonly target: RegistryAdapter;
  readonly repository: string;
  readonly blob: BlobRef;
  readonly bytes: BlobBytes;
  /** One that a refused mount opened. */
  readonly session: UploadSession | null;
}

export interface UploaderOptions {
  readonly governor: Governor;
  readonly uploads: UploadStore;
  readonly chunkless: Chunkless;
  readonly tuning: UploadTuning;
  readonly executionId: number;
  readonly onBytes: (count: number) => void;
  readonly signal: AbortSignal;
}

/** Hosts that would not take chunks, for a while. */
export class Chunkless {
  readonly #hosts = new LRUCache<string, true>({ max: 1000, ttl: 3_600_000 });

  has(target: RegistryAdapter): boolean {
    return !target.capabilities.resumesUploads || this.#hosts.has(target.host);
  }

  note(target: RegistryAdapter): void {
    this.#hosts.set(target.host, true);
  }
}

const DIRECT_BYTES = 1024 * 1024;
const FRUITLESS = 4;
const RESTARTS = 2;

/** The registry does not take this blob in chunks. */
class ChunksRefused extends Error {
  override readonly name = "ChunksRefused";
}

export class Uploader {
  readonly #options: UploaderOptions;

  constructor(options: UploaderOptions) {
    this.#options = options;
  }

  async upload(job: UploadJob): Promise<PutResult> {
    const { chunkless, tuning, onBytes } = this.#options;
    if (job.blob.size > tuning.chunkBytes && !chunkless.has(job.target)) {
      try {
        return await new ChunkedUpload(this.#options, job).run();
      } catch (error) {
        if (!(error instanceof ChunksRefused)) throw error;
        chunkless.note(job.target);
      }
    }
    const result = await this.#whole(job);
    onBytes(job.blob.size);
    return result;
  }

  async #whole(job: UploadJob): Promise<PutResult> {
    const { target, repository, blob, bytes } = job;
    const { signal } = this.#options;
    const opened: Readable[] = [];
    const open = async (): Promise<Readable> => {
      const stream = await bytes.open(0);
      stream.on("error", () => undefined);
      opened.push(stream);
      return stream;
    };
    // The source is asked while the session is opened: that saves a round trip of every small blob.
    let first: Promise<Readable> | null = open();
    first.catch(() => undefined);
    try {
      const session = job.session ?? (await this.#session(job));
      const content = {
        ...blob,
        open: async (): Promise<Readable> => {
          const stream = await (first ?? open());
          first = null;
          return await this.#feed(stream, blob.size);
        },
      };
      return await atTarget(target, () => target.putBlob(repository, content, session, signal));
    } finally {
      await first?.catch(() => undefined);
      for (const stream of opened) if (!stream.readableEnded) stream.destroy();
    }
  }

  /** The local registry needs none for a blob that comes in one go. */
  #session({ target, repository, blob }: UploadJob): Promise<UploadSession | null> {
    if (target.registryId === LOCAL_REGISTRY_ID) return Promise.resolve(null);
    return atTarget(target, () => target.startUpload(repository, blob.digest, this.#options.signal));
  }

  async #feed(source: Readable, size: number): Promise<Readable> {
    const { governor, tuning, signal } = this.#options;
    if (size > DIRECT_BYTES) return new Feed({ source, size, governor, signal, stallMs: tuning.stallMs });
    // Too small for a turn at every chunk.
    await governor.take(size, signal);
    return source;
  }
}

class ChunkedUpload {
  readonly #options: UploaderOptions;
  readonly #job: UploadJob;
  readonly #key: UploadKey;
  #saving: Promise<void> = Promise.resolve();
  #fruitless = 0;
  #restarts = 0;

  constructor(options: UploaderOptions, job: UploadJob) {
    this.#options = options;
    this.#job = job;
    const { target, repository, blob } = job;
    this.#key = { registryId: target.registryId, host: target.host, repository, digest: blob.digest };
  }

  async run(): Promise<PutResult> {
    const { uploads } = this.#options;
    let session = (await this.#kept()) ?? this.#job.session ?? (await this.#start());
    for (;;) {
      try {
        const result = await this.#send(session, (next) => (session = next));
        await this.#saving;
        await uploads.remove(this.#key);
        return result;
      } catch (error) {
        await this.#saving;
        const next = await this.#recover(session, error);
        if ("result" in next) return next.result;
        session = next.session;
      }
    }
  }

  async #send(from: UploadSession, onSession: (session: UploadSession) => void): Promise<PutResult> {
    const { target, repository, blob, bytes } = this.#job;
    const { signal } = this.#options;
    let session = from;
    let reader: Readable | null = null;
    try {
      while (session.offset < blob.size) {
        reader ??= (await bytes.open(session.offset)).on("error", () => undefined);
        const next = await this.#chunk(session, reader);
        if (next.offset !== session.offset + this.#sizeAt(session)) {
          reader.destroy();
          reader = null;
        }
        this.#advanced(session, next);
        session = next;
        onSession(session);
      }
      const last = session;
      return await atTarget(target, () => target.finishUpload(repository, { session: last, digest: blob.digest }, signal));
    } finally {
      reader?.destroy();
    }
  }

  #sizeAt(session: UploadSession): number {
    const chunk = Math.max(this.#options.tuning.chunkBytes, session.minChunkBytes);
    return Math.min(chunk, this.#job.blob.size - session.offset);
  }

  async #chunk(session: UploadSession, source: Readable): Promise<UploadSession> {
    const { target, repository } = this.#job;
    const { governor, tuning, signal } = this.#options;
    const size = this.#sizeAt(session);
    const bytes = new Feed({ source, size, governor, signal, stallMs: tuning.stallMs });
    try {
      return await atTarget(target, () => target.uploadChunk(repository, { session, bytes, size }, signal));
    } finally {
      bytes.destroy();
    }
  }

  #advanced(before: UploadSession, after: UploadSession): void {
    const { uploads, onBytes, executionId } = this.#options;
    if (after.offset > before.offset) {
      this.#fruitless = 0;
      onBytes(after.offset - before.offset);
    }
    // Not waited for: what is kept is confirmed with the registry before it is used again.
    this.#saving = this.#saving.then(() => uploads.save(this.#key, after, executionId)).catch(() => undefined);
  }

  /** An upload that an earlier attempt or another process began, with the offset that the registry confirms. */
  async #kept(): Promise<UploadSession | null> {
    const kept = await this.#options.uploads.find(this.#key);
    if (!kept) return null;
    try {
      const confirmed = await this.#status(kept);
      if (confirmed.offset <= this.#job.blob.size) return confirmed;
    } catch (error) {
      if (!isGone(error)) throw error;
    }
    await this.#options.uploads.remove(this.#key);
    return null;
  }

  async #start(): Promise<UploadSession> {
    const { target, repository, blob } = this.#job;
    const { uploads, executionId, signal } = this.#options;
    const session = await atTarget(target, () => target.startUpload(repository, blob.digest, signal));
    await uploads.save(this.#key, session, executionId);
    return session;
  }

  #status(session: UploadSession): Promise<UploadSession> {
    const { target, repository } = this.#job;
    return atTarget(target, () => target.uploadStatus(repository, session, this.#options.signal));
  }

  /** Where to go on after a failure: at what the registry says it has, else from the beginning; throws when that makes no sense. */
  async #recover(session: UploadSession, failure: unknown): Promise<{ session: UploadSession } | { result: PutResult }> {
    const { target, repository, blob } = this.#job;
    const { uploads, signal } = this.#options;
    const error = unwrap(failure);
    if (error.code === "DIGEST_INVALID" || error.code === "DIGEST_MISMATCH") await uploads.remove(this.#key);
    if (error.code === "UNSUPPORTED") return await this.#refused();
    const about = isGone(failure) || error.code === "RANGE_INVALID";
    if (error.code === "CANCELLED" || (!about && !error.retryable)) throw failure;
    this.#fruitless += 1;
    const wait = about ? 0 : quickRetryMs(failure, 1);
    if (about && this.#fruitless > FRUITLESS) return await this.#refused();
    if (wait === null || this.#fruitless > FRUITLESS) throw failure;
    await sleep(wait * this.#fruitless, signal);
    // The answer to the last request may have been lost after the registry took it.
    if (session.offset >= blob.size && (await atTarget(target, () => target.hasBlob(repository, blob.digest, signal)))) {
      await uploads.remove(this.#key);
      return { result: { digest: blob.digest, subject: null } };
    }
    try {
      const confirmed = await this.#status(session);
      if (error.code === "RANGE_INVALID" && confirmed.offset === session.offset) return await this.#refused();
      if (confirmed.offset <= blob.size) return { session: confirmed };
    } catch (statusError) {
      if (unwrap(statusError).code === "UNSUPPORTED") return await this.#refused();
      if (!isGone(statusError)) throw statusError;
    }
    this.#restarts += 1;
    if (this.#restarts > RESTARTS) return await this.#refused();
    return { session: await this.#start() };
  }

  async #refused(): Promise<never> {
    await this.#options.uploads.remove(this.#key);
    throw new ChunksRefused();
  }
}

/** Sessions that a registry does not know any more, or holds in a state that cannot be continued. */
function isGone(failure: unknown): boolean {
  return isSlipwayError(unwrap(failure), "BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "NAME_UNKNOWN");
}
