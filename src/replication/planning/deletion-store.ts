/** Tags that a mirror is going to delete, from the survey before the first copy to the tasks after the last. */
import type { Queryable } from "../../db/pool.ts";

export interface Deletion {
  readonly destination: number;
  readonly repository: string;
  readonly tag: string;
  readonly digest: string;
  readonly source: string;
}

export class DeletionStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  async add(executionId: number, deletions: readonly Deletion[]): Promise<void> {
    if (deletions.length === 0) return;
    await this.#db.query(
      `INSERT INTO replication_deletions (execution_id, destination, repository, tag, digest, source)
       SELECT $1, d.destination, d.repository, d.tag, d.digest, d.source
         FROM jsonb_to_recordset($2::jsonb) AS d (destination smallint, repository text, tag text, digest text, source text)
       ON CONFLICT DO NOTHING`,
      [executionId, JSON.stringify(deletions)],
    );
  }

  async count(executionId: number): Promise<number> {
    const { rows } = await this.#db.query<{ count: number }>(
      "SELECT count(*) AS count FROM replication_deletions WHERE execution_id = $1",
      [executionId],
    );
    return rows[0]?.count ?? 0;
  }

  /** In order, after one; `after` is what `keyOf` made of it. */
  async page(executionId: number, after: string | null, limit: number): Promise<Deletion[]> {
    const [destination, repository, tag] = after === null ? [-1, "", ""] : (JSON.parse(after) as [number, string, string]);
    const { rows } = await this.#db.query<Deletion>(
      `SELECT destination, repository, tag, digest, source FROM replication_deletions
        WHERE execution_id = $1 AND (destination, repository, tag) > ($2, $3, $4)
        ORDER BY destination, repository, tag LIMIT $5`,
      [executionId, destination, repository, tag, limit],
    );
    return rows;
  }

  async clear(executionId: number): Promise<void> {
    await this.#db.query("DELETE FROM replication_deletions WHERE execution_id = $1", [executionId]);
  }
}

export function keyOf({ destination, repository, tag }: Deletion): string {
  return JSON.stringify([destination, repository, tag]);
}
