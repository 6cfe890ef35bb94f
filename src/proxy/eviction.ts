/**
 * Keeps the cache below its size limit and drops what nobody used for long. The unit is a manifest with its tags: blobs that no manifest of a proxy names any more
 * follow, so a blob that something in use needs is never taken. Local content is never touched. In small steps, for a workflow.
 */
import type { Principal } from "../auth/principal.ts";
import type { Collection } from "../catalog/collection.ts";
import type { RegistryWriter } from "../catalog/registry.ts";
import type { Config } from "../config/config.ts";
import type { Queryable } from "../db/pool.ts";

export type EvictionPolicy = "lru" | "lfu" | "fifo";

export interface EvictionRules {
  /** Null: no limit. */
  readonly maxBytes: number | null;
  readonly policy: EvictionPolicy;
  /** Not used for so long: removed whatever the size. Null: never. */
  readonly retentionMs: number | null;
}

export interface EvictionStep {
  readonly manifests: number;
  readonly blobs: number;
  readonly bytes: number;
  /** Nothing is left to do now. */
  readonly finished: boolean;
}

export interface PurgeSelection {
  readonly repository?: string;
  readonly tag?: string;
  readonly digest?: string;
  /** Not used for at least so long. */
  readonly unusedMs?: number;
}

export interface PurgeResult {
  readonly manifests: number;
  readonly bytes: number;
}

export interface EvictorOptions {
  readonly db: Queryable;
  readonly writer: Pick<RegistryWriter, "deleteManifest" | "deleteBlob">;
  readonly collection: Pick<Collection, "sweepMarked">;
}

interface Victim {
  readonly repository: string;
  readonly digest: string;
  readonly size: number;
}

/** What the settings say. */
export function evictionRules(config: Config): EvictionRules {
  const { max_gb: maxGb, eviction, retention_days: days } = config.settings.cache;
  return {
    maxBytes: maxGb === 0 ? null : Math.round(maxGb * 2 ** 30),
    policy: eviction,
    retentionMs: days === 0 ? null : days * 86_400_000,
  };
}

const EVICTOR: Principal = { kind: "user", key: "system:eviction", id: 0, name: "eviction", sysadmin: true, scopes: null };
const BATCH = 50;
const BLOB_BATCH = 200;
/** What was linked just now may belong to a manifest that is about to be stored. */
const YOUNG_MS = 60_000;
/** Down to this share of the limit, so that not every new layer starts a run. */
const LOW_WATER = 0.95;

const ORDER: Readonly<Record<EvictionPolicy, string>> = {
  lru: "u.last_access_at",
  lfu: "u.access_count, u.last_access_at",
  fifo: "u.fetched_at",
};

/** Cached manifests that are not pinned and not a child of an index that was used later than they were. */
const CANDIDATES = `
  FROM manifests m
  JOIN repositories r ON r.id = m.repository_id
  JOIN projects p ON p.id = r.project_id AND p.registry_id IS NOT NULL
  JOIN cache_usage u ON u.digest = m.digest AND NOT u.pinned
  WHERE NOT EXISTS (
    SELECT 1 FROM manifest_references parent JOIN cache_usage pu ON pu.digest = parent.manifest_digest
    WHERE parent.repository_id = m.repository_id AND parent.digest = m.digest AND parent.kind = 'manifest'
      AND (pu.pinned OR pu.last_access_at > u.last_access_at))`;

export class CacheEvictor {
  readonly #db: Queryable;
  readonly #writer: EvictorOptions["writer"];
  readonly #collection: EvictorOptions["collection"];

  constructor(options: EvictorOptions) {
    this.#db = options.db;
    this.#writer = options.writer;
    this.#collection = options.collection;
  }

  async cachedBytes(): Promise<number> {
    const { rows } = await this.#db.query<{ bytes: number }>(
      "SELECT coalesce(sum(b.size), 0)::bigint AS bytes FROM cache_usage u JOIN blobs b ON b.digest = u.digest WHERE b.stored AND b.state = 'live'",
    );
    return rows[0]?.bytes ?? 0;
  }

  /** One step; call again until it is finished. */
  async step(rules: EvictionRules, signal: AbortSignal): Promise<EvictionStep> {
    const released = await this.#release(signal);
    const old = rules.retentionMs === null ? [] : await this.#unused(rules.retentionMs);
    const excess = rules.maxBytes === null ? 0 : await this.#excess(rules.maxBytes);
    const victims = old.length > 0 ? old : excess > 0 ? await this.#ordered(rules.policy, excess) : [];
    await this.#remove(victims, signal);
    const freed = victims.length > 0 ? await this.#release(signal) : { blobs: 0, bytes: 0, finished: true };
    return {
      manifests: victims.length,
      blobs: released.blobs + freed.blobs,
      bytes: released.bytes + freed.bytes,
      finished: victims.length === 0 && released.finished && freed.finished,
    };
  }

  /** What a purge would remove, or removes. Pinned content is removed only when it is named by digest. */
  async purge(selection: PurgeSelection, options: { dryRun: boolean; signal: AbortSignal }): Promise<PurgeResult> {
    const { rows } = await this.#db.query<Victim>(
      `SELECT r.name AS repository, m.digest, m.total_size AS size
       FROM manifests m JOIN repositories r ON r.id = m.repository_id JOIN projects p ON p.id = r.project_id AND p.registry_id IS NOT NULL
       LEFT JOIN cache_usage u ON u.digest = m.digest
       WHERE ($1::text IS NULL OR r.name = $1) AND ($2::text IS NULL OR m.digest = $2)
         AND ($3::text IS NULL OR EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = m.repository_id AND t.digest = m.digest AND t.name = $3))
         AND ($4::float8 IS NULL OR coalesce(u.last_access_at, m.pushed_at) < now() - $4 * interval '1 ms')
         AND ($2::text IS NOT NULL OR NOT coalesce(u.pinned, false))
       ORDER BY m.digest LIMIT 10000`,
      [selection.repository ?? null, selection.digest ?? null, selection.tag ?? null, selection.unusedMs ?? null],
    );
    const bytes = rows.reduce((sum, row) => sum + row.size, 0);
    if (!options.dryRun) await this.#remove(rows, options.signal);
    return { manifests: rows.length, bytes };
  }

  /** A manifest with its tags, or a blob: its links in proxy projects. Returns how many places it was removed from. */
  async purgeDigest(digest: string, signal: AbortSignal): Promise<number> {
    const { manifests } = await this.purge({ digest }, { dryRun: false, signal });
    const { rows } = await this.#db.query<{ repository: string }>(
      `SELECT r.name AS repository FROM blob_links l JOIN repositories r ON r.id = l.repository_id
       JOIN projects p ON p.id = r.project_id AND p.registry_id IS NOT NULL WHERE l.digest = $1 LIMIT 10000`,
      [digest],
    );
    for (const { repository } of rows) {
      signal.throwIfAborted();
      await this.#writer.deleteBlob(repository, digest, { principal: EVICTOR });
    }
    return manifests + rows.length;
  }

  async pin(digest: string, pinned: boolean): Promise<boolean> {
    const { rowCount } = await this.#db.query(
      "INSERT INTO cache_usage (digest, pinned) SELECT digest, $2 FROM blobs WHERE digest = $1 ON CONFLICT (digest) DO UPDATE SET pinned = $2",
      [digest, pinned],
    );
    return rowCount === 1;
  }

  async #excess(maxBytes: number): Promise<number> {
    const bytes = await this.cachedBytes();
    return bytes > maxBytes ? bytes - maxBytes * LOW_WATER : 0;
  }

  async #unused(retentionMs: number): Promise<Victim[]> {
    const { rows } = await this.#db.query<Victim>(
      `SELECT r.name AS repository, m.digest, m.total_size AS size ${CANDIDATES} AND u.last_access_at < now() - $1 * interval '1 ms' ORDER BY u.last_access_at LIMIT $2`,
      [retentionMs, BATCH],
    );
    return rows;
  }

  /** As many as may free the excess; shared layers make it less, then the next step takes more. */
  async #ordered(policy: EvictionPolicy, excess: number): Promise<Victim[]> {
    const { rows } = await this.#db.query<Victim>(
      `SELECT r.name AS repository, m.digest, m.total_size AS size ${CANDIDATES} ORDER BY ${ORDER[policy]} LIMIT $1`,
      [BATCH],
    );
    const victims: Victim[] = [];
    let freed = 0;
    for (const row of rows) {
      if (freed >= excess) break;
      victims.push(row);
      freed += row.size;
    }
    return victims;
  }

  async #remove(victims: readonly Victim[], signal: AbortSignal): Promise<void> {
    for (const { repository, digest } of victims) {
      signal.throwIfAborted();
      await this.#writer.deleteManifest(repository, digest, { principal: EVICTOR, origin: "fill" });
    }
  }

  /** Links that no manifest of their proxy repository names, then cached blobs without any link, then their bytes. A pull in the middle fills again. */
  async #release(signal: AbortSignal): Promise<{ blobs: number; bytes: number; finished: boolean }> {
    const { rows: links } = await this.#db.query<{ repository: string; digest: string }>(
      `SELECT r.name AS repository, l.digest FROM cache_usage u
       JOIN blob_links l ON l.digest = u.digest AND l.touched_at < now() - $1 * interval '1 ms'
       JOIN repositories r ON r.id = l.repository_id JOIN projects p ON p.id = r.project_id AND p.registry_id IS NOT NULL
       WHERE NOT u.pinned AND u.last_access_at < now() - $1 * interval '1 ms'
         AND NOT EXISTS (SELECT 1 FROM manifest_references f WHERE f.repository_id = l.repository_id AND f.digest = l.digest) LIMIT $2`,
      [YOUNG_MS, BLOB_BATCH],
    );
    for (const { repository, digest } of links) {
      signal.throwIfAborted();
      await this.#writer.deleteBlob(repository, digest, { principal: EVICTOR });
    }
    await this.#db.query(
      `UPDATE blobs b SET state = 'deleting', deleting_until = NULL
       FROM cache_usage u WHERE u.digest = b.digest AND NOT u.pinned AND b.state = 'live' AND b.touched_at < now() - $1 * interval '1 ms'
         AND NOT EXISTS (SELECT 1 FROM blob_links l WHERE l.digest = b.digest) AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = b.digest)`,
      [YOUNG_MS],
    );
    const swept = await this.#collection.sweepMarked({ limit: BLOB_BATCH }, signal);
    return { blobs: swept.items, bytes: swept.bytes, finished: links.length < BLOB_BATCH && swept.next === null };
  }
}
