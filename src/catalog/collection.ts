/**
 * Garbage collection and upload expiry in bounded steps, to be called in batches. Nothing here trusts what it read before it held the row:
 * candidates are found without locks, then locked, then judged again by a statement that sees everything committed until then.
 */
import { type CatalogContext, announce, timestamp } from "./catalog-context.ts";
import { linkRecord } from "./content-records.ts";
import { Outbox } from "./outbox.ts";
import { cacheScopes } from "./registry.ts";
import { RepositoryStore } from "./repository-store.ts";
import { Sweeper } from "./sweep.ts";
import { UploadStore } from "./upload-store.ts";

export interface CollectedBatch {
  readonly items: number;
  readonly bytes: number;
  /** Where the next batch begins; null at the end. */
  readonly next: string | null;
}

export interface CollectionOptions {
  /** Content younger than this, or used since, stays. */
  readonly graceMs: number;
  /** Items of one batch. */
  readonly limit: number;
  readonly dryRun: boolean;
  readonly after: string | null;
}

/** Rows looked at in one batch, so that a batch over content that is all in use ends too. */
const WINDOW = 5_000;

interface Candidate {
  readonly digest: string;
  readonly size: number;
}

interface LinkCandidate extends Candidate {
  readonly repository_id: number;
  readonly repository: string;
}

export class Collection {
  readonly #context: CatalogContext;
  readonly #sweeper: Sweeper;

  constructor(context: CatalogContext) {
    this.#context = context;
    this.#sweeper = new Sweeper(context);
  }

  /** Uploads that nobody continued, and sessions in storage that no row knows. Returns how many went. */
  async expireUploads(options: { olderThanMs: number; limit: number }, signal?: AbortSignal): Promise<number> {
    const { store, clock } = this.#context;
    const rows = new UploadStore(this.#context.database);
    const expired = await rows.takeExpired(options.olderThanMs, options.limit);
    for (const upload of expired) await store.abortSession(upload.id, signal);
    const room = options.limit - expired.length;
    if (room === 0) return expired.length;
    const sessions = await store.listSessions(clock.now() - options.olderThanMs, options.limit, signal);
    const known = await rows.existing(sessions);
    const orphans = sessions.filter((id) => !known.has(id)).slice(0, room);
    for (const id of orphans) await store.abortSession(id, signal);
    return expired.length + orphans.length;
  }

  /** Links that no manifest of their repository needs. */
  async unlinkUnreferenced(options: CollectionOptions): Promise<CollectedBatch> {
    const [afterRepository, afterDigest] = splitLinkCursor(options.after);
    const found = await this.#context.database.query<LinkCandidate & { candidate: boolean }>(
      `WITH seen AS (
         SELECT repository_id, digest, touched_at FROM blob_links WHERE (repository_id, digest) > ($1::bigint, $2::text)
         ORDER BY repository_id, digest LIMIT $4)
       SELECT s.repository_id, s.digest, r.name AS repository, b.size,
         s.touched_at < now() - $3 * interval '1 millisecond' AND NOT EXISTS (
           SELECT 1 FROM manifest_references m WHERE m.repository_id = s.repository_id AND m.digest = s.digest) AS candidate
       FROM seen s JOIN repositories r ON r.id = s.repository_id JOIN blobs b ON b.digest = s.digest
       ORDER BY s.repository_id, s.digest`,
      [afterRepository, afterDigest, options.graceMs, WINDOW],
    );
    const window = takeWindow(found.rows, options.limit, (row) => `${row.repository_id}/${row.digest}`);
    if (options.dryRun) return { ...sum(window.candidates), next: window.next };
    let items = 0;
    let bytes = 0;
    for (const [repository, links] of Map.groupBy(window.candidates, (row) => row.repository)) {
      const gone = await this.#unlink(repository, links, options.graceMs);
      items += gone.items;
      bytes += gone.bytes;
    }
    return { items, bytes, next: window.next };
  }

  /** Marks digests that nothing uses. Whoever needs one before the sweep takes it back. */
  async markGarbage(options: CollectionOptions): Promise<CollectedBatch> {
    const { database, limits } = this.#context;
    const found = await database.query<Candidate & { candidate: boolean }>(
      `WITH seen AS (SELECT digest, size, stored, state, touched_at FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $4)
       SELECT s.digest, CASE WHEN s.stored THEN s.size ELSE 0 END AS size, s.state = 'live'
         AND s.touched_at < now() - CASE WHEN s.stored THEN $2::float8 ELSE greatest($2::float8, $3::float8) END * interval '1 millisecond'
         AND NOT EXISTS (SELECT 1 FROM blob_links l WHERE l.digest = s.digest)
         AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = s.digest) AS candidate
       FROM seen s ORDER BY s.digest`,
      [options.after ?? "", options.graceMs, limits.reservationMs, WINDOW],
    );
    const window = takeWindow(found.rows, options.limit, (row) => row.digest);
    if (options.dryRun || window.candidates.length === 0) return { ...sum(window.candidates), next: window.next };
    const marked = await this.#mark(window.candidates, options.graceMs);
    return { ...sum(marked), next: window.next };
  }

  /** Removes marked digests: bytes, then row. `next` is null when nothing is left to be swept now. */
  sweepMarked(options: { limit: number }, signal?: AbortSignal): Promise<CollectedBatch> {
    return this.#sweeper.sweep(options.limit, signal);
  }

  /** Gives bytes that no row knows a row; unused, they are collected like all others. `items` counts the rows made. */
  adoptOrphanBytes(options: { limit: number; after: string | null }, signal?: AbortSignal): Promise<CollectedBatch> {
    return this.#sweeper.adoptOrphans(options, signal);
  }

  async #unlink(repository: string, links: readonly LinkCandidate[], graceMs: number): Promise<{ items: number; bytes: number }> {
    const at = timestamp(this.#context);
    const repositoryId = links[0]?.repository_id ?? 0;
    const sizes = new Map(links.map((link) => [link.digest, link.size]));
    const gone = await this.#context.database.transaction(async (tx) => {
      // Manifests are pushed under the same lock, so that the check below sees every reference.
      if (!(await new RepositoryStore(tx).lock(repositoryId))) return [];
      const removed = await tx.query<{ digest: string }>(
        `DELETE FROM blob_links l WHERE repository_id = $1 AND digest = ANY ($2) AND touched_at < now() - $3 * interval '1 millisecond'
           AND NOT EXISTS (SELECT 1 FROM manifest_references m WHERE m.repository_id = l.repository_id AND m.digest = l.digest)
         RETURNING digest`,
        [repositoryId, [...sizes.keys()], graceMs],
      );
      const records = removed.rows.map((row) => linkRecord({ op: "remove", target: "blob", repository, digest: row.digest, at }));
      await new Outbox(tx).append(records);
      return removed.rows;
    });
    if (gone.length > 0) await announce(this.#context, cacheScopes.blobs(repository));
    return sum(gone.map((row) => ({ digest: row.digest, size: sizes.get(row.digest) ?? 0 })));
  }

  #mark(candidates: readonly Candidate[], graceMs: number): Promise<Candidate[]> {
    return this.#context.database.transaction(async (tx) => {
      // Rows that somebody is just about to use are locked by them and passed over. After the lock nobody links without us seeing it.
      const locked = await tx.query<{ digest: string }>(
        "SELECT digest FROM blobs WHERE digest = ANY ($1) AND state = 'live' ORDER BY digest FOR UPDATE SKIP LOCKED",
        [candidates.map((candidate) => candidate.digest)],
      );
      const marked = await tx.query<Candidate>(
        `UPDATE blobs b SET state = 'deleting', deleting_until = NULL
         WHERE digest = ANY ($1) AND state = 'live'
           AND touched_at < clock_timestamp() - CASE WHEN stored THEN $2::float8 ELSE greatest($2::float8, $3::float8) END * interval '1 millisecond'
           AND NOT EXISTS (SELECT 1 FROM blob_links l WHERE l.digest = b.digest)
           AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = b.digest)
         RETURNING digest, CASE WHEN stored THEN size ELSE 0 END AS size`,
        [locked.rows.map((row) => row.digest), graceMs, this.#context.limits.reservationMs],
      );
      return marked.rows;
    });
  }
}

/** Cuts what was looked at behind the last candidate that fits the batch. */
function takeWindow<Row extends Candidate & { candidate: boolean }>(
  rows: readonly Row[],
  limit: number,
  cursorOf: (row: Row) => string,
): { candidates: Row[]; next: string | null } {
  const candidates: Row[] = [];
  for (const row of rows) {
    if (!row.candidate) continue;
    candidates.push(row);
    if (candidates.length >= limit) return { candidates, next: cursorOf(row) };
  }
  const last = rows.at(-1);
  return { candidates, next: rows.length < WINDOW || !last ? null : cursorOf(last) };
}

function splitLinkCursor(after: string | null): [number, string] {
  if (after === null) return [0, ""];
  const slash = after.indexOf("/");
  return [Number(after.slice(0, slash)), after.slice(slash + 1)];
}

function sum(candidates: readonly Candidate[]): { items: number; bytes: number } {
  return { items: candidates.length, bytes: candidates.reduce((total, candidate) => total + candidate.size, 0) };
}
