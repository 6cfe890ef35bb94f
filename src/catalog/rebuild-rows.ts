/** The rows of rebuilt content, made in a transaction that has locked the repository. What exists is newer and stays. */
import type { Queryable } from "../db/pool.ts";
import { LIMITS } from "../core/limits.ts";
import { isSlipwayError } from "../core/errors.ts";
import { type ParsedManifest, parseManifest } from "../oci/manifest.ts";
import { ManifestStore } from "./manifest-store.ts";
import type { LiveItem } from "./plan/link-state.ts";
import type { Project } from "./registry.ts";

export interface Target {
  readonly repositoryId: number;
  readonly name: string;
  readonly project: Project;
}

export interface StoredItem {
  readonly item: LiveItem;
  readonly size: number;
  /** Of manifests. */
  readonly bytes: Buffer | null;
}

/** Items of one kind that the repository has no rows of, or, for tags, may have older ones of. */
export async function withoutRows(db: Queryable, { repositoryId }: Target, items: readonly LiveItem[]): Promise<LiveItem[]> {
  const kind = items[0]?.target;
  if (kind === "tag") return [...items];
  const table = kind === "blob" ? "blob_links" : "manifests";
  const { rows } = await db.query<{ digest: string }>(`SELECT digest FROM ${table} WHERE repository_id = $1 AND digest = ANY ($2)`, [
    repositoryId,
    items.map((item) => item.digest),
  ]);
  const known = new Set(rows.map((row) => row.digest));
  return items.filter((item) => !known.has(item.digest));
}

export async function restoreBlobs(tx: Queryable, target: Target, stored: readonly StoredItem[]): Promise<number> {
  const usable = await markStored(tx, stored);
  const linked = await tx.query(
    `INSERT INTO blob_links (repository_id, digest, created_at)
     SELECT $1, s.digest, s.at FROM unnest($2::text[], $3::timestamptz[]) AS s (digest, at) ORDER BY s.digest ON CONFLICT DO NOTHING`,
    [target.repositoryId, usable.map(({ item }) => item.digest), usable.map(({ item }) => item.at)],
  );
  await noteCached(tx, target, usable);
  return linked.rowCount ?? 0;
}

export async function restoreManifests(tx: Queryable, target: Target, stored: readonly StoredItem[]): Promise<number> {
  const usable = await markStored(tx, stored);
  const manifests = new ManifestStore(tx);
  let made = 0;
  for (const { item, size, bytes } of usable) {
    const parsed = bytes && parseOrNull(bytes, item.mediaType);
    if (!parsed) continue;
    const inline = bytes.length <= LIMITS.manifestInlineBytes ? bytes : null;
    const created = await manifests.save({ repositoryId: target.repositoryId, digest: item.digest, size, parsed, bytes: inline });
    if (!created) continue;
    made += 1;
    await tx.query("UPDATE manifests SET pushed_at = $3 WHERE repository_id = $1 AND digest = $2", [
      target.repositoryId,
      item.digest,
      item.at,
    ]);
  }
  await noteCached(tx, target, usable);
  return made;
}

/** Only those whose manifest is there. A row that is older than the record (a database restored from a backup) follows the record. */
export async function restoreTags(tx: Queryable, target: Target, items: readonly StoredItem[]): Promise<number> {
  const values = [
    target.repositoryId,
    items.map(({ item }) => item.tag),
    items.map(({ item }) => item.digest),
    items.map(({ item }) => item.at),
  ];
  const made = await tx.query(
    `INSERT INTO tags (repository_id, name, digest, pushed_at)
     SELECT $1, t.name, t.digest, t.at FROM unnest($2::text[], $3::text[], $4::timestamptz[]) AS t (name, digest, at)
     JOIN manifests m ON m.repository_id = $1 AND m.digest = t.digest ORDER BY t.name
     ON CONFLICT (repository_id, name) DO UPDATE SET digest = EXCLUDED.digest, pushed_at = EXCLUDED.pushed_at
     WHERE tags.digest <> EXCLUDED.digest AND tags.pushed_at < EXCLUDED.pushed_at`,
    values,
  );
  if (target.project.registryId !== null) {
    // Known, and old: the next pull checks it upstream, and gets this one when upstream is away. Who asked before the rebuild left a row without an
    // answer, which is in nobody's way; one that says that upstream has no such tag stays.
    await tx.query(
      `INSERT INTO proxy_tags (project_id, repository, tag, digest, media_type, size, checked_at, fresh_until)
       SELECT $5, $6, t.name, t.digest, m.media_type, m.size, t.at, t.at
       FROM unnest($2::text[], $3::text[], $4::timestamptz[]) AS t (name, digest, at)
       JOIN manifests m ON m.repository_id = $1 AND m.digest = t.digest ORDER BY t.name
       ON CONFLICT (project_id, repository, tag) DO UPDATE SET digest = EXCLUDED.digest, media_type = EXCLUDED.media_type, size = EXCLUDED.size,
         checked_at = EXCLUDED.checked_at, fresh_until = EXCLUDED.fresh_until, last_status = EXCLUDED.last_status
       WHERE proxy_tags.digest IS NULL AND proxy_tags.last_status <> 404`,
      [...values, target.project.id, target.name],
    );
  }
  return made.rowCount ?? 0;
}

/** Those that collection did not take meanwhile. */
async function markStored(tx: Queryable, stored: readonly StoredItem[]): Promise<StoredItem[]> {
  const { rows } = await tx.query<{ digest: string }>(
    `UPDATE blobs b SET touched_at = now(), stored = true, size = s.size
     FROM unnest($1::text[], $2::bigint[]) AS s (digest, size) WHERE b.digest = s.digest AND b.state = 'live' RETURNING b.digest`,
    [stored.map(({ item }) => item.digest), stored.map(({ size }) => size)],
  );
  const usable = new Set(rows.map((row) => row.digest));
  return stored.filter(({ item }) => usable.has(item.digest));
}

/** Eviction only knows what has a row of use. */
async function noteCached(tx: Queryable, { project }: Target, stored: readonly StoredItem[]): Promise<void> {
  if (project.registryId === null) return;
  await tx.query(
    `INSERT INTO cache_usage (digest, fetched_at)
     SELECT s.digest, s.at FROM unnest($1::text[], $2::timestamptz[]) AS s (digest, at) ORDER BY s.digest ON CONFLICT DO NOTHING`,
    [stored.map(({ item }) => item.digest), stored.map(({ item }) => item.at)],
  );
}

/** What an earlier version took as a manifest may be none any more; it is left out. */
function parseOrNull(bytes: Buffer, mediaType: string | null): ParsedManifest | null {
  try {
    return parseManifest(bytes, mediaType ?? undefined);
  } catch (error) {
    if (isSlipwayError(error)) return null;
    throw error;
  }
}
