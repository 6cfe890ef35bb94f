/** What the parts of the catalog share: where rows and bytes are kept, who is told of changes, and the bounds. */
import type { Clock } from "../core/clock.ts";
import type { Database } from "../db/pool.ts";
import type { BlobStore } from "../storage/blob-store.ts";
import type { Invalidator } from "./registry.ts";

export interface CatalogLimits {
  /** How long a holder of an upload may be silent before another takes over. */
  readonly uploadLeaseMs: number;
  /** How long a request waits for an upload that another request holds. */
  readonly uploadWaitMs: number;
  /** Running hashes kept in memory; an upload whose hash was dropped is hashed from storage. */
  readonly uploadHashers: number;
  /** Largest blob; null for no limit. */
  readonly blobBytes: number | null;
  /** How long a push waits while collection removes the digest it brings. */
  readonly collectionWaitMs: number;
  /** How long a sweeper owns the digests that it removes. */
  readonly sweepLeaseMs: number;
  /** A reserved digest without stored bytes is left alone at least this long. */
  readonly reservationMs: number;
}

export const DEFAULT_CATALOG_LIMITS: CatalogLimits = {
  uploadLeaseMs: 15_000,
  uploadWaitMs: 2_000,
  uploadHashers: 1_000,
  blobBytes: null,
  collectionWaitMs: 5_000,
  sweepLeaseMs: 60_000,
  reservationMs: 60 * 60_000,
};

export interface CatalogLog {
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
}

export interface CatalogContext {
  readonly database: Database;
  readonly store: BlobStore;
  readonly invalidator: Invalidator;
  readonly clock: Clock;
  readonly limits: CatalogLimits;
  readonly log: CatalogLog;
  /** Called after commits that left rows in the outbox, to wake its relay; never waited for. */
  readonly onOutbox?: () => void;
}

/** After a commit, before the answer. The change stands, so a failing announcement must not fail it: processes that cannot hear stop trusting their caches themselves. */
export async function announce(context: CatalogContext, ...scopes: string[]): Promise<void> {
  context.onOutbox?.();
  try {
    await context.invalidator.publish(scopes);
  } catch (error) {
    context.log.warn({ err: error, scopes }, "invalidation was not announced");
  }
}

export function timestamp(context: CatalogContext): string {
  return new Date(context.clock.now()).toISOString();
}
