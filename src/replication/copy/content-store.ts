/** Where targets have content, and who brings them what they lack: one statement per question for a whole batch. */
import type { Queryable } from "../../db/pool.ts";

export interface Place {
  readonly digest: string;
  readonly repository: string;
}

export interface Wanted {
  /** What is claimed: the digest; with the repository where the target does not mount. */
  readonly content: string;
  readonly digest: string;
  /** Null where it does not matter which repository has it. */
  readonly repository: string | null;
}

export interface Arrivals {
  readonly places: readonly Place[];
  /** Claims that end with it. */
  readonly claims: readonly string[];
}

/** What is known is believed for so long; mounting tries older knowledge too. */
const FRESH = "interval '24 hours'";
const KEPT = "interval '30 days'";
export const LEASE_MS = 10_000;
const LEASE = `now() + ${LEASE_MS} * interval '1 millisecond'`;

export class ContentStore {
  readonly #db: Queryable;
  readonly #owner: string;

  constructor(db: Queryable, owner: string) {
    this.#db = db;
    this.#owner = owner;
  }

  /**
   * Takes what is not known there and nobody copies, or whose owner is silent; returns what is ours now. The order keeps two askers from waiting
   * for each other.
   */
  async claim(registryId: number, wanted: readonly Wanted[]): Promise<Set<string>> {
    if (wanted.length === 0) return new Set();
    const { rows } = await this.#db.query<{ content: string }>(
      `INSERT INTO copy_claims (registry_id, content, owner, lease_until)
       SELECT $1, w.content, $3, ${LEASE} FROM unnest($2::text[], $4::text[], $5::text[]) AS w (content, digest, repository)
        WHERE NOT EXISTS (SELECT 1 FROM replication_content c
                           WHERE c.registry_id = $1 AND c.digest = w.digest AND (w.repository IS NULL OR c.repository = w.repository))
        ORDER BY w.content
       ON CONFLICT (registry_id, content) DO UPDATE SET owner = excluded.owner, lease_until = excluded.lease_until
        WHERE copy_claims.lease_until < now() OR copy_claims.owner = excluded.owner
       RETURNING content`,
      [
        registryId,
        wanted.map((each) => each.content),
        this.#owner,
        wanted.map((each) => each.digest),
        wanted.map((each) => each.repository),
      ],
    );
    return new Set(rows.map((row) => row.content));
  }

  async renew(): Promise<void> {
    await this.#db.query(`UPDATE copy_claims SET lease_until = ${LEASE} WHERE owner = $1`, [this.#owner]);
  }

  /** Content that arrived becomes known and its claims end, in one step: whoever gets a claim afterwards sees where the content is. */
  async arrive(registryId: number, { places, claims }: Arrivals): Promise<void> {
    const rows = [...new Map(places.map((place) => [`${place.digest} ${place.repository}`, place])).entries()].toSorted(([a], [b]) =>
      a < b ? -1 : 1,
    );
    await this.#db.query(
      `WITH arrived AS (
         INSERT INTO replication_content (registry_id, digest, repository)
         SELECT $1, p.digest, p.repository FROM unnest($2::text[], $3::text[]) AS p (digest, repository)
         ON CONFLICT (registry_id, digest, repository) DO UPDATE SET verified_at = now()
          WHERE replication_content.verified_at < now() - interval '1 minute')
       DELETE FROM copy_claims WHERE registry_id = $1 AND owner = $4 AND content = ANY ($5)`,
      [registryId, rows.map(([, place]) => place.digest), rows.map(([, place]) => place.repository), this.#owner, claims],
    );
  }

  /** By digest: the repositories that have it; `here` first when it is among them and its knowledge is fresh. */
  async places(registryId: number, digests: readonly string[]): Promise<Map<string, { repository: string; fresh: boolean }[]>> {
    const { rows } = await this.#db.query<Place & { fresh: boolean }>(
      `SELECT w.digest, p.repository, p.fresh
         FROM unnest($2::text[]) AS w (digest)
        CROSS JOIN LATERAL (
          SELECT c.repository, c.verified_at > now() - ${FRESH} AS fresh FROM replication_content c
           WHERE c.registry_id = $1 AND c.digest = w.digest ORDER BY c.verified_at DESC LIMIT 50) p`,
      [registryId, digests],
    );
    const found = new Map<string, { repository: string; fresh: boolean }[]>();
    for (const { digest, repository, fresh } of rows) {
      const places = found.get(digest);
      if (places) places.push({ repository, fresh });
      else found.set(digest, [{ repository, fresh }]);
    }
    return found;
  }

  /** It is not there after all. */
  async forget(registryId: number, repository: string, digests: readonly string[]): Promise<void> {
    await this.#db.query("DELETE FROM replication_content WHERE registry_id = $1 AND repository = $2 AND digest = ANY ($3)", [
      registryId,
      repository,
      digests,
    ]);
  }

  /** In small steps: old knowledge, and claims whose owners never came back. */
  async prune(): Promise<void> {
    await this.#db.query("DELETE FROM copy_claims WHERE lease_until < now() - interval '1 hour'");
    await this.#db.query(
      `DELETE FROM replication_content WHERE (registry_id, digest, repository) IN
         (SELECT registry_id, digest, repository FROM replication_content WHERE verified_at < now() - ${KEPT} LIMIT 5000)`,
    );
  }
}
