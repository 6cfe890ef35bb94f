/** Rows that say when upstream last confirmed a tag, with a bounded picture of them in memory for the hot path. */
import { LRUCache } from "lru-cache";
import { cacheScopes } from "../catalog/registry.ts";
import type { Clock } from "../core/clock.ts";
import type { Queryable } from "../db/pool.ts";
import { CHECKING } from "./plan/freshness.ts";
import type { TagKnowledge } from "./plan/freshness.ts";

export interface TagKey {
  readonly projectId: number;
  readonly repository: string;
  readonly tag: string;
}

export interface TagFreshness extends TagKnowledge {
  readonly etag: string | null;
  readonly lastStatus: number;
}

interface FreshnessRow {
  digest: string | null;
  etag: string | null;
  checked_at: Date;
  fresh_until: Date;
  last_status: number;
}

export interface TagConfirmation {
  readonly digest: string | null;
  readonly mediaType: string | null;
  readonly size: number | null;
  readonly etag: string | null;
  readonly freshMs: number;
  readonly status: number;
}

const REMEMBERED_REPOSITORIES = 10_000;
const REMEMBERED_TAGS = 1_000;
const SCOPE = cacheScopes.repository("");

export interface Invalidations {
  trusted(): boolean;
  subscribe(listener: (scopes: readonly string[]) => void): () => void;
}

export class TagFreshnessStore {
  readonly #db: Queryable;
  readonly #clock: Clock;
  readonly #invalidations: Invalidations;
  readonly #memory = new LRUCache<string, Map<string, TagFreshness>>({ max: REMEMBERED_REPOSITORIES });
  readonly #unsubscribe: () => void;

  constructor(db: Queryable, clock: Clock, invalidations: Invalidations) {
    this.#db = db;
    this.#clock = clock;
    this.#invalidations = invalidations;
    // A tag that another process moved is not what this one remembers.
    this.#unsubscribe = invalidations.subscribe((scopes) => {
      for (const scope of scopes) if (scope.startsWith(SCOPE)) this.#memory.delete(scope.slice(SCOPE.length));
    });
  }

  close(): void {
    this.#unsubscribe();
  }

  /** What this process last saw; another process may know better, so only a fresh answer may be trusted. */
  peek(repository: string, tag: string): TagFreshness | undefined {
    return this.#invalidations.trusted() ? this.#memory.get(repository)?.get(tag) : undefined;
  }

  async find(key: TagKey): Promise<TagFreshness | null> {
    const { rows } = await this.#db.query<FreshnessRow>(
      "SELECT digest, etag, checked_at, fresh_until, last_status FROM proxy_tags WHERE project_id = $1 AND repository = $2 AND tag = $3",
      [key.projectId, key.repository, key.tag],
    );
    const row = rows[0];
    return row ? this.#remember(key, toFreshness(row)) : null;
  }

  /** Upstream has answered. */
  async confirm(key: TagKey, confirmation: TagConfirmation): Promise<TagFreshness> {
    const { rows } = await this.#db.query<FreshnessRow>(
      `INSERT INTO proxy_tags (project_id, repository, tag, digest, media_type, size, etag, checked_at, fresh_until, last_status)
       VALUES ($1, $2, $3, $4, $5, $6, $7, now(), now() + $8 * interval '1 ms', $9)
       ON CONFLICT (project_id, repository, tag) DO UPDATE SET digest = EXCLUDED.digest, media_type = EXCLUDED.media_type, size = EXCLUDED.size,
         etag = EXCLUDED.etag, checked_at = EXCLUDED.checked_at, fresh_until = EXCLUDED.fresh_until, last_status = EXCLUDED.last_status
       RETURNING digest, etag, checked_at, fresh_until, last_status`,
      [
        key.projectId,
        key.repository,
        key.tag,
        confirmation.digest,
        confirmation.mediaType,
        confirmation.size,
        confirmation.etag,
        confirmation.freshMs,
        confirmation.status,
      ],
    );
    return this.#remember(key, toFreshness(rows[0] as FreshnessRow));
  }

  /**
   * One process at a time asks about a tag: the others see it checked and serve what they have, or wait for the first answer. False when another one was
   * faster; its answer, or the end of the claim, shows in the row. `seen` is the row that was looked at; null when there was none.
   */
  async claim(key: TagKey, seen: TagFreshness | null, forMs: number): Promise<boolean> {
    const { rowCount } = await this.#db.query(
      `INSERT INTO proxy_tags AS t (project_id, repository, tag, checked_at, fresh_until, last_status)
       VALUES ($1, $2, $3, now(), now() + $5 * interval '1 ms', $6)
       ON CONFLICT (project_id, repository, tag) DO UPDATE SET last_status = $6, fresh_until = EXCLUDED.fresh_until
       WHERE date_trunc('milliseconds', t.fresh_until) = $4 AND NOT (t.last_status = $6 AND t.fresh_until > now())`,
      [key.projectId, key.repository, key.tag, seen && new Date(seen.freshUntil), forMs, CHECKING],
    );
    return rowCount === 1;
  }

  /** Ends a claim on a tag that nothing is held of, without an answer. */
  async release(key: TagKey, status: number): Promise<void> {
    await this.#db
      .query(
        `UPDATE proxy_tags SET last_status = $4, fresh_until = now() WHERE project_id = $1 AND repository = $2 AND tag = $3 AND last_status = $5`,
        [key.projectId, key.repository, key.tag, status, CHECKING],
      )
      .catch(() => undefined);
  }

  /** The check failed: what is known stays, and the next check, of whichever process, waits a little. */
  async noteFailure(key: TagKey, known: TagFreshness, { status, retryMs }: { status: number; retryMs: number }): Promise<void> {
    this.#remember(key, { ...known, freshUntil: this.#clock.now() + retryMs, lastStatus: status });
    await this.#db
      .query(
        `UPDATE proxy_tags SET last_status = $4, fresh_until = now() + $5 * interval '1 ms'
         WHERE project_id = $1 AND repository = $2 AND tag = $3 AND checked_at <= $6`,
        [key.projectId, key.repository, key.tag, status, retryMs, new Date(known.checkedAt + 1)],
      )
      .catch(() => undefined);
  }

  forget(repository: string, tag: string): void {
    this.#memory.get(repository)?.delete(tag);
  }

  #remember(key: TagKey, freshness: TagFreshness): TagFreshness {
    let tags = this.#memory.get(key.repository);
    if (!tags || tags.size >= REMEMBERED_TAGS) {
      tags = new Map();
      this.#memory.set(key.repository, tags);
    }
    // How long another one's check takes is only seen in the row.
    if (freshness.lastStatus === CHECKING) tags.delete(key.tag);
    else tags.set(key.tag, freshness);
    return freshness;
  }
}

function toFreshness(row: FreshnessRow): TagFreshness {
  return {
    digest: row.digest,
    etag: row.etag,
    checkedAt: row.checked_at.getTime(),
    freshUntil: row.fresh_until.getTime(),
    lastStatus: row.last_status,
  };
}
