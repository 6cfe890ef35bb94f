/**
 * The right to write to one upload. Held by a lease in its row, renewed while the holder works; a holder whose lease is lost is told by
 * the signal, and its later writes to the row are refused by the version.
 */
import { SlipwayError } from "../core/errors.ts";
import { sleep } from "../core/clock.ts";
import type { CatalogContext } from "./catalog-context.ts";
import type { UploadRecord, UploadStore } from "./upload-store.ts";

const POLL_MS = 100;

export class UploadHold {
  readonly record: UploadRecord;
  readonly #store: UploadStore;
  readonly #leaseMs: number;
  readonly #lost = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #renewedAt = performance.now();

  constructor(record: UploadRecord, store: UploadStore, leaseMs: number) {
    this.record = record;
    this.#store = store;
    this.#leaseMs = leaseMs;
    this.#timer = setInterval(() => void this.#renew(), leaseMs / 3);
    this.#timer.unref();
  }

  /** Aborts when another may have taken the upload over. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** False when the upload was removed or taken over meanwhile. */
  release(offset: number): Promise<boolean> {
    clearInterval(this.#timer);
    return this.#store.release(this.record.id, this.record.version, offset);
  }

  /** For uploads that are over. */
  drop(): void {
    clearInterval(this.#timer);
  }

  async #renew(): Promise<void> {
    const asked = performance.now();
    try {
      if (await this.#store.renew(this.record.id, this.record.version, this.#leaseMs)) this.#renewedAt = asked;
      else this.#lose();
    } catch {
      // The lease stands until it ends, also while the database is away.
      if (performance.now() - this.#renewedAt > this.#leaseMs) this.#lose();
    }
  }

  #lose(): void {
    clearInterval(this.#timer);
    this.#lost.abort(new SlipwayError("CONFLICT", { message: "the upload was taken over or removed" }));
  }
}

/** Waits a little for another request that writes to the upload (often a cut one that has not ended yet), then CONFLICT. */
export async function holdUpload(
  context: CatalogContext,
  store: UploadStore,
  upload: { id: string; repository: string },
  signal?: AbortSignal,
): Promise<UploadHold> {
  const { uploadLeaseMs, uploadWaitMs } = context.limits;
  const deadline = performance.now() + uploadWaitMs;
  for (;;) {
    const record = await store.lock(upload.id, upload.repository, uploadLeaseMs);
    if (record) return new UploadHold(record, store, uploadLeaseMs);
    if (!(await store.find(upload.id, upload.repository))) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
    if (performance.now() >= deadline) throw new SlipwayError("CONFLICT", { message: "another request writes to this upload" });
    await sleep(POLL_MS, signal);
  }
}
