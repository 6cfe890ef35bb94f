/**
 * Uploads from start to finish. State is in the row and in the storage session, so any process that shares both can go on with an upload;
 * only the running hash is local, and is made again where it is missing.
 */
import { randomUUID } from "node:crypto";
import { SlipwayError } from "../core/errors.ts";
import type { Principal } from "../auth/principal.ts";
import { type DigestAlgorithm, isDigestAlgorithm, requireDigest } from "../oci/digests.ts";
import type { BlobWriter } from "./blob-writer.ts";
import type { CatalogContext } from "./catalog-context.ts";
import type { BlobUpload, StoredBlob, UploadAppend, UploadFinish, UploadState } from "./registry.ts";
import { UploadHasher, UploadHashers } from "./upload-hashers.ts";
import { type UploadHold, holdUpload } from "./upload-hold.ts";
import { type UploadPosition, currentPosition, receiveBody } from "./upload-receive.ts";
import { UploadStore } from "./upload-store.ts";

export class Uploads {
  readonly #context: CatalogContext;
  readonly #blobs: BlobWriter;
  readonly #rows: UploadStore;
  readonly #hashers: UploadHashers;
  #rehashedBytes = 0;

  constructor(context: CatalogContext, blobs: BlobWriter) {
    this.#context = context;
    this.#blobs = blobs;
    this.#rows = new UploadStore(context.database);
    this.#hashers = new UploadHashers(context.limits.uploadHashers);
  }

  stats(): { hashers: number; hashersDropped: number; rehashedBytes: number } {
    return { hashers: this.#hashers.size, hashersDropped: this.#hashers.dropped, rehashedBytes: this.#rehashedBytes };
  }

  async start(options: { repository: string; principal: Principal; algorithm: string | null }): Promise<UploadState> {
    const { repository, principal, algorithm } = options;
    if (algorithm !== null && !isDigestAlgorithm(algorithm))
      throw new SlipwayError("DIGEST_INVALID", {
        message: "the digest algorithm is not served",
        detail: { algorithm: algorithm.slice(0, 32) },
      });
    const id = randomUUID();
    await this.#rows.create({ id, repository, principal: principal.key, algorithm });
    try {
      await this.#context.store.createSession(id);
    } catch (error) {
      await this.#rows.remove(id, repository);
      throw error;
    }
    return { id, repository, offset: 0 };
  }

  async find(id: string, repository: string): Promise<UploadState | null> {
    const record = await this.#rows.find(id, repository);
    if (!record) return null;
    if (record.locked) return { id, repository, offset: record.offset };
    const size = await this.#context.store.sessionSize(id);
    return size === null ? null : { id, repository, offset: size };
  }

  async append(append: UploadAppend, signal?: AbortSignal): Promise<UploadState> {
    const hold = await holdUpload(this.#context, this.#rows, append, signal);
    const position = await this.#receive(hold, append, signal);
    await this.#putDown(hold, position);
    return { id: append.id, repository: append.repository, offset: position.offset };
  }

  async finish(finish: UploadFinish, signal?: AbortSignal): Promise<StoredBlob> {
    const { algorithm } = requireDigest(finish.digest);
    const hold = await holdUpload(this.#context, this.#rows, finish, signal);
    const position = await this.#receive(hold, finish, signal);
    try {
      const computed = await this.#digestOf(hold, position, algorithm, signal);
      if (computed !== finish.digest) {
        await this.#discard(hold, finish.repository);
        throw new SlipwayError("DIGEST_INVALID", { detail: { digest: finish.digest, computed } });
      }
      const stored = await this.#store(hold, finish, position.offset, signal);
      await this.#discard(hold, finish.repository).catch(() => {
        // The content is stored and linked; leftovers of the upload expire.
      });
      return stored;
    } catch (error) {
      hold.drop();
      await this.#putDown(hold, position).catch(() => {
        // Already gone, or the database is away: the lease ends by itself.
      });
      throw error;
    }
  }

  async cancel(id: string, repository: string): Promise<boolean> {
    if (!(await this.#rows.remove(id, repository))) return false;
    this.#hashers.forget(id);
    await this.#context.store.abortSession(id);
    return true;
  }

  async whole(upload: BlobUpload, signal?: AbortSignal): Promise<StoredBlob> {
    const { algorithm } = requireDigest(upload.digest);
    const { id } = await this.start({ repository: upload.repository, principal: upload.principal, algorithm });
    try {
      return await this.finish({ ...upload, id, start: null }, signal);
    } catch (error) {
      await this.cancel(id, upload.repository).catch(() => {
        // The first error tells more; what is left expires.
      });
      throw error;
    }
  }

  /** Leaves the upload consistent whatever happens; throws when the body was not what was announced. */
  async #receive(hold: UploadHold, append: UploadAppend, signal?: AbortSignal): Promise<UploadPosition> {
    let position: UploadPosition | null = null;
    try {
      position = await currentPosition(this.#context, this.#hashers, hold);
      if (append.length === 0 && append.start === null) return position;
      const received = await receiveBody(this.#context, hold, { append, position, ...(signal && { signal }) });
      position = received.position;
      if (received.failure) throw received.failure;
      return position;
    } catch (error) {
      await this.#recover(hold, position, error);
      throw error;
    }
  }

  async #recover(hold: UploadHold, position: UploadPosition | null, error: unknown): Promise<void> {
    // A refused chunk or a cut body leaves a known position; after trouble of storage only storage knows it.
    const known = position !== null && error instanceof SlipwayError && error.status < 500;
    const offset = known ? position.offset : await this.#context.store.sessionSize(hold.record.id).catch(() => hold.record.offset);
    await this.#putDown(hold, { offset: offset ?? 0, hasher: known ? position.hasher : null }).catch(() => {
      // The first error tells more; the lease ends by itself.
    });
  }

  async #putDown(hold: UploadHold, position: UploadPosition): Promise<void> {
    const { id, version } = hold.record;
    if (await hold.release(position.offset)) {
      if (position.hasher) this.#hashers.put(id, version, position.hasher);
      return;
    }
    // Cancelled or taken over while it ran. Only who finds no row at all may remove the bytes.
    if (!(await this.#rows.existing([id])).has(id)) await this.#context.store.abortSession(id);
    throw new SlipwayError("BLOB_UPLOAD_UNKNOWN", { message: "the upload was cancelled or taken over" });
  }

  async #digestOf(hold: UploadHold, position: UploadPosition, algorithm: DigestAlgorithm, signal?: AbortSignal): Promise<string> {
    if (position.hasher?.algorithm === algorithm) return position.hasher.digest();
    const hasher = new UploadHasher(algorithm);
    const stream = await this.#context.store.readSession(hold.record.id, signal);
    for await (const chunk of stream as AsyncIterable<Uint8Array>) hasher.update(chunk);
    this.#rehashedBytes += hasher.bytes;
    if (hasher.bytes !== position.offset)
      throw new SlipwayError("SIZE_INVALID", { message: "the upload changed while it was closed", detail: { offset: hasher.bytes } });
    return hasher.digest();
  }

  #store(hold: UploadHold, finish: UploadFinish, size: number, signal?: AbortSignal): Promise<StoredBlob> {
    const { digest, project, repository } = finish;
    const target = { projectId: project.id, repository };
    const promote = (abort?: AbortSignal): Promise<void> => this.#context.store.commitSession(hold.record.id, { digest, size }, abort);
    return this.#blobs.storeAndLink(target, { digest, size, promote }, signal);
  }

  async #discard(hold: UploadHold, repository: string): Promise<void> {
    hold.drop();
    this.#hashers.forget(hold.record.id);
    await this.#rows.remove(hold.record.id, repository);
    await this.#context.store.abortSession(hold.record.id);
  }
}
