/** What the cache holds, for people: totals, pages of entries, names. Every statement runs on an index; totals are remembered for a moment. */
import type { Clock } from "../core/clock.ts";
import type { Visibility } from "../auth/project-list.ts";
import { containsPattern } from "../catalog/like.ts";
import type { Queryable } from "../db/pool.ts";
import type { CacheTraffic } from "./cache-traffic.ts";

export const ENTRY_SORTS = ["last_accessed_at", "created_at", "size", "access_count"] as const;
export type EntrySort = (typeof ENTRY_SORTS)[number];
export type EntryKind = "manifest" | "blob";

export interface CacheTotals {
  readonly entries: number;
  readonly manifests: number;
  readonly blobs: number;
  readonly bytes: number;
}

export interface CacheEntry {
  readonly digest: string;
  readonly kind: EntryKind;
  /** A repository that holds it, and a tag of it there if there is one. */
  readonly repository: string | null;
  readonly reference: string | null;
  readonly mediaType: string;
  readonly size: number;
  readonly fetchedAt: Date;
  readonly lastAccessAt: Date;
  readonly accessCount: number;
}

/** Ids of the proxy projects whose content may be shown; null for all. */
export type VisibleProjects = readonly number[] | null;

export interface EntryQuery {
  readonly kind: EntryKind | null;
  /** Part of a repository's name. */
  readonly repository: string | null;
  /** Beginning of a digest, with or without the algorithm. */
  readonly digest: string | null;
  readonly sort: EntrySort;
  readonly descending: boolean;
  readonly limit: number;
  readonly offset: number;
  readonly projects: VisibleProjects;
}

interface EntryRow {
  digest: string;
  kind: EntryKind;
  size: number;
  fetched_at: Date;
  last_access_at: Date;
  access_count: number;
  repository: string | null;
  reference: string | null;
  media_type: string | null;
}

const TOTALS_FRESH_MS = 5_000;
const MAX_REPOSITORIES = 1_000;
/** Deeper pages are for nobody's eyes. */
const MAX_OFFSET = 100_000;

const COLUMNS: Readonly<Record<EntrySort, readonly string[]>> = {
  last_accessed_at: ["u.last_access_at"],
  created_at: ["u.fetched_at"],
  size: ["u.size", "u.digest"],
  access_count: ["u.access_count", "u.last_access_at"],
};

/** Repositories of the parameter $3 (null: all) that hold the digest, as a manifest or by a link. */
const HOLDERS = `
  (SELECT m.repository_id, m.media_type FROM manifests m WHERE m.digest = u.digest AND ($3::bigint[] IS NULL OR m.repository_id = ANY ($3))
   UNION ALL
   SELECT l.repository_id, NULL FROM blob_links l WHERE l.digest = u.digest AND ($3::bigint[] IS NULL OR l.repository_id = ANY ($3)))`;

/** Only what is asked for stands in the statement, so that the planner may begin at whatever is rarest. */
function whereOf(repositories: readonly number[] | null): string {
  const conditions = ["($1::text IS NULL OR u.kind = $1)", "($2::text IS NULL OR (u.digest >= $2 AND u.digest < $2 || '~'))"];
  if (repositories !== null) {
    conditions.push(`u.digest IN (SELECT m.digest FROM manifests m WHERE m.repository_id = ANY ($3::bigint[])
      UNION ALL SELECT l.digest FROM blob_links l WHERE l.repository_id = ANY ($3::bigint[]))`);
  } else conditions.push("$3::bigint[] IS NULL");
  return conditions.join(" AND ");
}

export class CacheView {
  readonly #db: Queryable;
  readonly #clock: Clock;
  readonly #traffic: Pick<CacheTraffic, "totals">;
  #totals: { value: Promise<CacheTotals>; at: number } | null = null;

  constructor(options: { db: Queryable; clock: Clock; traffic: Pick<CacheTraffic, "totals"> }) {
    this.#db = options.db;
    this.#clock = options.clock;
    this.#traffic = options.traffic;
  }

  /** At most a few seconds old. */
  totals(): Promise<CacheTotals> {
    const now = this.#clock.now();
    if (this.#totals && now - this.#totals.at < TOTALS_FRESH_MS) return this.#totals.value;
    const value = this.#readTotals();
    const kept = { value, at: now };
    this.#totals = kept;
    value.catch(() => {
      if (this.#totals === kept) this.#totals = null;
    });
    return value;
  }

  async stats(): Promise<CacheTotals & { readonly hits: number; readonly misses: number }> {
    const [totals, hits] = await Promise.all([this.totals(), this.#traffic.totals()]);
    return { ...totals, ...hits };
  }

  async entries(query: EntryQuery): Promise<{ items: CacheEntry[]; total: number }> {
    const repositories = await this.#repositoryIds(query);
    if (repositories?.length === 0) return { items: [], total: 0 };
    const values = [query.kind, query.digest === null ? null : digestPrefix(query.digest), repositories];
    const where = whereOf(repositories);
    const direction = query.descending ? "DESC" : "ASC";
    const order = COLUMNS[query.sort].map((column) => `${column} ${direction}`).join(", ");
    const [rows, count] = await Promise.all([
      this.#db.query<EntryRow>(
        `SELECT u.digest, u.kind, u.size, u.fetched_at, u.last_access_at, u.access_count, n.name AS repository, h.media_type,
                (SELECT t.name FROM tags t WHERE t.repository_id = h.repository_id AND t.digest = u.digest ORDER BY t.name LIMIT 1) AS reference
           FROM (SELECT * FROM cache_usage u WHERE ${where} ORDER BY ${order} LIMIT $4 OFFSET $5) u
           LEFT JOIN LATERAL (SELECT * FROM ${HOLDERS} AS held ORDER BY repository_id LIMIT 1) h ON true
           LEFT JOIN repositories n ON n.id = h.repository_id
          ORDER BY ${order}`,
        [...values, query.limit, Math.min(query.offset, MAX_OFFSET)],
      ),
      this.#count(query, where, values),
    ]);
    return { items: rows.rows.map(toEntry), total: count };
  }

  /** Which projects' content somebody may see. */
  async projectsFor(visibility: Visibility): Promise<VisibleProjects> {
    if (visibility.kind === "all") return null;
    const { rows } = await this.#db.query<{ id: number }>(
      `SELECT p.id FROM projects p WHERE p.registry_id IS NOT NULL AND (p.public OR p.name = ANY ($1)
         OR EXISTS (SELECT 1 FROM project_members m WHERE m.project_id = p.id AND m.user_id = $2)) ORDER BY p.id`,
      [visibility.kind === "named" ? visibility.names : [], visibility.kind === "member" ? visibility.userId : null],
    );
    return rows.map((row) => row.id);
  }

  /** Names of proxied repositories, in order. */
  async repositories(projects: VisibleProjects): Promise<string[]> {
    const { rows } = await this.#db.query<{ name: string }>(
      `SELECT r.name FROM repositories r
        WHERE r.project_id IN (SELECT p.id FROM projects p WHERE p.registry_id IS NOT NULL AND ($1::bigint[] IS NULL OR p.id = ANY ($1)))
        ORDER BY r.name LIMIT $2`,
      [projects, MAX_REPOSITORIES],
    );
    return rows.map((row) => row.name);
  }

  async #readTotals(): Promise<CacheTotals> {
    const { rows } = await this.#db.query<{ kind: EntryKind; entries: number; bytes: number }>(
      "SELECT kind, count(*) AS entries, coalesce(sum(size), 0)::bigint AS bytes FROM cache_usage GROUP BY kind",
    );
    const of = (kind: EntryKind): { entries: number; bytes: number } => rows.find((row) => row.kind === kind) ?? { entries: 0, bytes: 0 };
    const [manifests, blobs] = [of("manifest"), of("blob")];
    return {
      entries: manifests.entries + blobs.entries,
      manifests: manifests.entries,
      blobs: blobs.entries,
      bytes: manifests.bytes + blobs.bytes,
    };
  }

  async #count(query: EntryQuery, where: string, values: readonly unknown[]): Promise<number> {
    if (query.digest === null && values[2] === null) {
      const totals = await this.totals();
      return query.kind === null ? totals.entries : query.kind === "manifest" ? totals.manifests : totals.blobs;
    }
    const { rows } = await this.#db.query<{ total: number }>(`SELECT count(*) AS total FROM cache_usage u WHERE ${where}`, values);
    return rows[0]?.total ?? 0;
  }

  /** Null: no restriction. */
  async #repositoryIds({ repository, projects }: EntryQuery): Promise<number[] | null> {
    if (repository === null && projects === null) return null;
    const { rows } = await this.#db.query<{ id: number }>(
      `SELECT r.id FROM repositories r
        WHERE r.project_id IN (SELECT p.id FROM projects p WHERE p.registry_id IS NOT NULL AND ($1::bigint[] IS NULL OR p.id = ANY ($1)))
          AND ($2::text IS NULL OR r.name LIKE $2) ORDER BY r.id`,
      [projects, repository === null ? null : containsPattern(repository)],
    );
    return rows.map((row) => row.id);
  }
}

function digestPrefix(text: string): string {
  return text.includes(":") ? text : `sha256:${text}`;
}

function toEntry(row: EntryRow): CacheEntry {
  return {
    digest: row.digest,
    kind: row.kind,
    repository: row.repository,
    reference: row.reference,
    mediaType: row.media_type ?? "application/octet-stream",
    size: row.size,
    fetchedAt: row.fetched_at,
    lastAccessAt: row.last_access_at,
    accessCount: row.access_count,
  };
}
