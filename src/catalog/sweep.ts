/**
 * The part of collection that touches bytes. A sweeper leases marked digests, removes their bytes well within the lease, and then the rows
 * that are still its own; writers of a leased digest wait. A sweeper that dies leaves a lease that ends.
 */
import type { CatalogContext } from "./catalog-context.ts";
import type { CollectedBatch } from "./collection.ts";

interface Leased {
  readonly digest: string;
  readonly bytes: number;
  readonly until: string;
}

const PARALLEL = 8;
/** Share of the lease in which bytes may be removed; the rest is for a removal that storage finishes late. */
const WORKING_SHARE = 0.5;

export class Sweeper {
  readonly #context: CatalogContext;

  constructor(context: CatalogContext) {
    this.#context = context;
  }

  async sweep(limit: number, signal?: AbortSignal): Promise<CollectedBatch> {
    const leaseMs = this.#context.limits.sweepLeaseMs;
    const deadline = AbortSignal.timeout(leaseMs * WORKING_SHARE);
    const leased = await this.#lease(limit, leaseMs);
    const removed = await this.#removeBytes(leased, signal ? AbortSignal.any([signal, deadline]) : deadline);
    await this.#removeRows(removed);
    const bytes = removed.reduce((total, blob) => total + blob.bytes, 0);
    return { items: removed.length, bytes, next: leased.length < limit ? null : "more" };
  }

  async adoptOrphans(options: { limit: number; after: string | null }, signal?: AbortSignal): Promise<CollectedBatch> {
    const { database, store } = this.#context;
    const digests = await store.list(options.after, options.limit, signal);
    // A row first: from then on no sweeper removes the bytes, and only then a look at storage counts.
    const made = await database.query<{ digest: string }>(
      "INSERT INTO blobs (digest, size) SELECT d, 0 FROM unnest($1::text[]) d ON CONFLICT (digest) DO NOTHING RETURNING digest",
      [digests],
    );
    let bytes = 0;
    for (const { digest } of made.rows) {
      const found = await store.stat(digest, signal);
      if (!found) continue;
      bytes += found.size;
      await database.query("UPDATE blobs SET stored = true, size = $2 WHERE digest = $1 AND state = 'live' AND NOT stored", [
        digest,
        found.size,
      ]);
    }
    return { items: made.rows.length, bytes, next: digests.length < options.limit ? null : (digests.at(-1) ?? null) };
  }

  async #lease(limit: number, leaseMs: number): Promise<Leased[]> {
    const leased = await this.#context.database.query<Leased>(
      `UPDATE blobs SET deleting_until = clock_timestamp() + $2 * interval '1 millisecond'
       WHERE digest IN (
         SELECT digest FROM blobs WHERE state = 'deleting' AND (deleting_until IS NULL OR deleting_until < now())
         ORDER BY digest LIMIT $1 FOR UPDATE SKIP LOCKED)
       RETURNING digest, CASE WHEN stored THEN size ELSE 0 END AS bytes, deleting_until::text AS until`,
      [limit, leaseMs],
    );
    return leased.rows;
  }

  /** Those whose bytes are surely gone. What time or an error left over keeps its lease and is taken up by a later sweep. */
  async #removeBytes(leased: readonly Leased[], signal: AbortSignal): Promise<Leased[]> {
    const waiting = [...leased];
    const removed: Leased[] = [];
    const worker = async (): Promise<void> => {
      for (let blob = waiting.shift(); blob && !signal.aborted; blob = waiting.shift()) {
        try {
          await this.#context.store.remove(blob.digest, signal);
          removed.push(blob);
        } catch (error) {
          if (!signal.aborted) this.#context.log.warn({ err: error, digest: blob.digest }, "bytes could not be removed");
        }
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, worker));
    return removed;
  }

  async #removeRows(removed: readonly Leased[]): Promise<void> {
    if (removed.length === 0) return;
    await this.#context.database.query(
      `DELETE FROM blobs b USING unnest($1::text[], $2::text[]) AS s (digest, until)
       WHERE b.digest = s.digest AND b.state = 'deleting' AND b.deleting_until = s.until::timestamptz`,
      [removed.map((blob) => blob.digest), removed.map((blob) => blob.until)],
    );
  }
}
