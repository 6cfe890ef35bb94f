/** What tags of targets are known to be, in Postgres: planning compares with it instead of asking, copying and checking write it. */
import type { Queryable } from "../db/pool.ts";

export interface KnownTag {
  readonly digest: string;
  readonly verifiedAt: Date;
  /** What was copied there along with it; null when that is not known. */
  readonly referrers: readonly string[] | null;
}

export interface KnownDraft {
  readonly repository: string;
  readonly tag: string;
  readonly digest: string;
  /** Absent: whoever saw it does not know. */
  readonly referrers?: readonly string[];
}

interface KnownRow {
  repository: string;
  tag: string;
  digest: string;
  verified_at: Date;
  referrers: string[] | null;
}

export class KnownStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  /** By tag. */
  async digests(registryId: number, repository: string): Promise<Map<string, KnownTag>> {
    return (await this.digestsOf(registryId, [repository])).get(repository) ?? new Map<string, KnownTag>();
  }

  /** Of some tags only, where a repository has very many. */
  async digestsOfTags(registryId: number, repository: string, tags: readonly string[]): Promise<Map<string, KnownTag>> {
    if (tags.length === 0) return new Map();
    const { rows } = await this.#db.query<KnownRow>(
      "SELECT repository, tag, digest, verified_at, referrers FROM replication_known WHERE registry_id = $1 AND repository = $2 AND tag = ANY ($3)",
      [registryId, repository, tags],
    );
    return new Map(rows.map((row) => [row.tag, toKnown(row)]));
  }

  /** By repository and tag; a repository of which nothing is known is left out. */
  async digestsOf(registryId: number, repositories: readonly string[]): Promise<Map<string, Map<string, KnownTag>>> {
    const { rows } = await this.#db.query<KnownRow>(
      "SELECT repository, tag, digest, verified_at, referrers FROM replication_known WHERE registry_id = $1 AND repository = ANY ($2)",
      [registryId, repositories],
    );
    const found = new Map<string, Map<string, KnownTag>>();
    for (const row of rows) {
      const tags = found.get(row.repository) ?? new Map<string, KnownTag>();
      found.set(row.repository, tags.set(row.tag, toKnown(row)));
    }
    return found;
  }

  /** Those of the digests that a tag of the repository is known to be, with their tags. */
  async tagsOfDigests(registryId: number, repository: string, digests: readonly string[]): Promise<KnownDraft[]> {
    if (digests.length === 0) return [];
    const { rows } = await this.#db.query<KnownDraft>(
      "SELECT repository, tag, digest FROM replication_known WHERE registry_id = $1 AND repository = $2 AND digest = ANY ($3)",
      [registryId, repository, digests],
    );
    return rows;
  }

  /** These tags were seen at the target just now, or written there and verified. */
  async record(registryId: number, drafts: readonly KnownDraft[]): Promise<void> {
    if (drafts.length === 0) return;
    // The last word on a tag, and each row once: a statement may not touch the same row twice.
    const latest = new Map(drafts.map((draft) => [`${draft.repository}:${draft.tag}`, draft]));
    const rows = [...latest.entries()]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([, { repository, tag, digest, referrers }]) => ({ repository, tag, digest, referrers: referrers ?? null }));
    await this.#db.query(
      `INSERT INTO replication_known AS known (registry_id, repository, tag, digest, referrers)
       SELECT $1, k.repository, k.tag, k.digest, k.referrers
         FROM jsonb_to_recordset($2::jsonb) AS k (repository text, tag text, digest text, referrers text[])
       ON CONFLICT (registry_id, repository, tag) DO UPDATE SET digest = excluded.digest, verified_at = now(),
         referrers = coalesce(excluded.referrers, CASE WHEN known.digest = excluded.digest THEN known.referrers END)`,
      [registryId, JSON.stringify(rows)],
    );
  }

  async forget(registryId: number, repository: string, tags: readonly string[]): Promise<void> {
    if (tags.length === 0) return;
    await this.#db.query("DELETE FROM replication_known WHERE registry_id = $1 AND repository = $2 AND tag = ANY ($3)", [
      registryId,
      repository,
      tags,
    ]);
  }

  /** What nobody asked for again in a month: of removed registries and policies. In small steps. */
  async prune(): Promise<void> {
    await this.#db.query(
      `DELETE FROM replication_known WHERE (registry_id, repository, tag) IN
         (SELECT registry_id, repository, tag FROM replication_known WHERE verified_at < now() - interval '30 days' LIMIT 5000)`,
    );
  }
}

function toKnown(row: KnownRow): KnownTag {
  return { digest: row.digest, verifiedAt: row.verified_at, referrers: row.referrers };
}
