/**
 * Rows whose bytes storage has lost: links, manifests and their tags go, so that nothing is claimed that cannot be read. No event tells of it:
 * what was lost here must not be removed elsewhere. A small manifest that Postgres still has is written back instead.
 */
import { createHash } from "node:crypto";
import { sleep } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import type { Queryable } from "../db/pool.ts";
import { type CatalogContext, announce, timestamp } from "./catalog-context.ts";
import { type LinkRecord, linkRecord } from "./content-records.ts";
import { Outbox } from "./outbox.ts";
import { cacheScopes } from "./registry.ts";
import { RepositoryStore } from "./repository-store.ts";

export interface MissingBytesOptions {
  readonly limit: number;
  readonly after: string | null;
  /** What was used within this time may be about to be written. */
  readonly youngMs?: number;
  /** Looks at storage. */
  readonly perSecond?: number;
}

interface Row {
  readonly digest: string;
  readonly size: number;
  readonly touched: string;
}

const YOUNG_MS = 60_000;
const PER_SECOND = 500;
const STATS_AT_ONCE = 8;

export async function removeRowsWithoutBytes(
  context: CatalogContext,
  options: MissingBytesOptions,
  signal?: AbortSignal,
): Promise<{ items: number; missing: number; next: string | null }> {
  const started = context.clock.now();
  const { rows } = await context.database.query<Row & { old: boolean }>(
    `SELECT digest, size, touched_at::text AS touched, touched_at <= now() - $3 * interval '1 ms' AS old
     FROM blobs WHERE digest > $1 AND stored AND state = 'live' ORDER BY digest LIMIT $2`,
    [options.after ?? "", options.limit, options.youngMs ?? YOUNG_MS],
  );
  const missing = await withoutBytes(
    context,
    rows.filter((row) => row.old),
    signal,
  );
  // A disk that is not mounted looks like one that has lost everything.
  if (missing.length > 0 && (await context.store.list(null, 1, signal)).length === 0)
    throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "storage is empty, but the database knows content: is it the right one?" });
  let removed = 0;
  for (const row of missing) {
    signal?.throwIfAborted();
    if (await healManifest(context, row.digest, signal)) continue;
    removed += await removeRows(context, row);
  }
  const rest = (rows.length / (options.perSecond ?? PER_SECOND)) * 1_000 - (context.clock.now() - started);
  if (rest > 0) await sleep(rest, signal);
  return { items: removed, missing: missing.length, next: rows.length < options.limit ? null : (rows.at(-1)?.digest ?? null) };
}

async function withoutBytes({ store }: CatalogContext, rows: readonly Row[], signal?: AbortSignal): Promise<Row[]> {
  const waiting = [...rows];
  const missing: Row[] = [];
  const worker = async (): Promise<void> => {
    for (let row = waiting.shift(); row; row = waiting.shift()) {
      if ((await store.stat(row.digest, signal))?.size !== row.size) missing.push(row);
    }
  };
  await Promise.all(Array.from({ length: STATS_AT_ONCE }, worker));
  return missing;
}

async function healManifest({ database, store }: CatalogContext, digest: string, signal?: AbortSignal): Promise<boolean> {
  const { rows } = await database.query<{ bytes: Buffer }>("SELECT bytes FROM manifests WHERE digest = $1 AND bytes IS NOT NULL LIMIT 1", [
    digest,
  ]);
  const bytes = rows[0]?.bytes;
  const [algorithm = ""] = digest.split(":");
  if (!bytes || `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}` !== digest) return false;
  await store.put(digest, bytes, signal);
  return true;
}

/** Whoever brings the bytes meanwhile touches the row, and then nothing more is removed. Gives the number of links and manifests that went. */
async function removeRows(context: CatalogContext, row: Row): Promise<number> {
  const { database } = context;
  const { rows: repositories } = await database.query<{ id: number; name: string }>(
    `SELECT r.id, r.name FROM repositories r WHERE r.id IN (
       SELECT repository_id FROM blob_links WHERE digest = $1 UNION SELECT repository_id FROM manifests WHERE digest = $1) ORDER BY r.id`,
    [row.digest],
  );
  let removed = 0;
  for (const repository of repositories) {
    const records = await database.transaction((tx) => removeFrom(tx, repository, { row, at: timestamp(context) }));
    removed += records;
    if (records > 0) await announce(context, cacheScopes.repository(repository.name), cacheScopes.blobs(repository.name));
  }
  await database.query(
    `DELETE FROM blobs b WHERE digest = $1 AND touched_at = $2::timestamptz AND state = 'live'
       AND NOT EXISTS (SELECT 1 FROM blob_links l WHERE l.digest = b.digest) AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = b.digest)`,
    [row.digest, row.touched],
  );
  return removed;
}

async function removeFrom(
  tx: Queryable,
  repository: { id: number; name: string },
  { row: { digest, touched }, at }: { row: Row; at: string },
): Promise<number> {
  if (!(await new RepositoryStore(tx).lock(repository.id))) return 0;
  const same = await tx.query("SELECT 1 FROM blobs WHERE digest = $1 AND touched_at = $2::timestamptz AND state = 'live' FOR UPDATE", [
    digest,
    touched,
  ]);
  if (same.rowCount !== 1) return 0;
  const removal = (more: Pick<LinkRecord, "target" | "tag">) =>
    linkRecord({ op: "remove", repository: repository.name, digest, at, ...more });
  const tags = await tx.query<{ name: string }>("DELETE FROM tags WHERE repository_id = $1 AND digest = $2 RETURNING name", [
    repository.id,
    digest,
  ]);
  const manifests = await tx.query("DELETE FROM manifests WHERE repository_id = $1 AND digest = $2", [repository.id, digest]);
  const links = await tx.query("DELETE FROM blob_links WHERE repository_id = $1 AND digest = $2", [repository.id, digest]);
  await new Outbox(tx).append([
    ...tags.rows.map(({ name }) => removal({ target: "tag", tag: name })),
    ...(manifests.rowCount === 1 ? [removal({ target: "manifest" })] : []),
    ...(links.rowCount === 1 ? [removal({ target: "blob" })] : []),
  ]);
  return (manifests.rowCount ?? 0) + (links.rowCount ?? 0);
}
