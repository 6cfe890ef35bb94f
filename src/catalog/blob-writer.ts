/**
 * The one road on which bytes become a stored digest and a link: reserve the row, move the bytes, then stored and linked in one statement.
 * Collection may be at work on the same digest; then it is waited for.
 */
import { SlipwayError, isSlipwayError } from "../core/errors.ts";
import { sleep } from "../core/clock.ts";
import { BlobRecordStore } from "./blob-record-store.ts";
import { type CatalogContext, announce, timestamp } from "./catalog-context.ts";
import { linkRecord } from "./content-records.ts";
import { type StoredBlob, cacheScopes } from "./registry.ts";
import { RepositoryStore } from "./repository-store.ts";

export interface VerifiedBytes {
  readonly digest: string;
  readonly size: number;
  /** Puts the verified bytes in their place. Not called when they are there already. */
  readonly promote: (signal?: AbortSignal) => Promise<void>;
}

export interface BlobLinkTarget {
  readonly projectId: number;
  readonly repository: string;
}

const BUSY_POLL_MS = 100;
/** A repository removed between two steps is made again; more often than this is no coincidence. */
const LINK_ATTEMPTS = 3;

export class BlobWriter {
  readonly #context: CatalogContext;
  readonly #records: BlobRecordStore;
  readonly #repositories: RepositoryStore;
  #deduplicated = 0;

  constructor(context: CatalogContext) {
    this.#context = context;
    this.#records = new BlobRecordStore(context.database);
    this.#repositories = new RepositoryStore(context.database);
  }

  /** Blobs whose bytes were there already. */
  get deduplicated(): number {
    return this.#deduplicated;
  }

  /** The caller holds the bytes and has verified digest and size; that possession is what the link rests on. */
  async storeAndLink(target: BlobLinkTarget, bytes: VerifiedBytes, signal?: AbortSignal): Promise<StoredBlob> {
    for (let attempt = 0; attempt < LINK_ATTEMPTS; attempt += 1) {
      const present = await this.ensureStored(bytes, signal).catch((error: unknown) => {
        // Bytes can be promoted once. Taken between that and the link (a grace time shorter than a push), they must come again.
        if (attempt > 0 && isSlipwayError(error, "BLOB_UPLOAD_UNKNOWN")) throw busy();
        throw error;
      });
      const repositoryId = await this.#repositories.ensure(target.projectId, target.repository);
      const request = this.#request(repositoryId, target.repository, bytes);
      const linked = await this.#records.completeAndLink(request);
      if (!linked) continue;
      if (present) this.#deduplicated += 1;
      if (linked.created) await announce(this.#context, cacheScopes.blobs(target.repository));
      return { digest: bytes.digest, size: bytes.size, bytes: null };
    }
    throw busy();
  }

  /** Links a digest that is stored. With `via`, only while that repository holds it. Null when it cannot be had. */
  async linkStored(target: BlobLinkTarget, digest: string, via: string | null): Promise<StoredBlob | null> {
    const repositoryId = await this.#repositories.ensure(target.projectId, target.repository);
    const linked = await this.#records.linkStored(this.#request(repositoryId, target.repository, { digest }), via);
    if (!linked) return null;
    if (linked.created) await announce(this.#context, cacheScopes.blobs(target.repository));
    return { digest, size: linked.size, bytes: null };
  }

  /** Reserves the digest and brings its bytes; true when they were there. The caller makes a row depend on it at once. */
  async ensureStored(bytes: VerifiedBytes, signal?: AbortSignal): Promise<boolean> {
    const deadline = this.#context.clock.now() + this.#context.limits.collectionWaitMs;
    for (;;) {
      const reservation = await this.#records.reserve(bytes.digest, bytes.size);
      if (reservation === "busy") {
        if (this.#context.clock.now() >= deadline) throw busy();
        await sleep(BUSY_POLL_MS, signal);
        continue;
      }
      // A look at storage heals a blob whose bytes were lost: this caller has them in hand.
      if (reservation === "stored" && (await this.#context.store.stat(bytes.digest, signal))?.size === bytes.size) return true;
      await bytes.promote(signal);
      return false;
    }
  }

  #request(repositoryId: number, repository: string, blob: { digest: string; size?: number }) {
    const record = linkRecord({
      op: "add",
      target: "blob",
      repository,
      digest: blob.digest,
      ...(blob.size !== undefined && { size: blob.size }),
      at: timestamp(this.#context),
    });
    return { repositoryId, digest: blob.digest, outbox: [record] };
  }
}

function busy(): SlipwayError {
  return new SlipwayError("STORAGE_UNAVAILABLE", { message: "this content is just being collected", retryAfterSeconds: 2 });
}
