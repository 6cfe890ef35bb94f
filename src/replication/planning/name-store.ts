/** Names of source repositories at their destinations, for the check that no two get the same. */
import { SlipwayError } from "../../core/errors.ts";
import type { Queryable } from "../../db/pool.ts";

export interface DestinationName {
  readonly registryId: number;
  readonly repository: string;
  readonly source: string;
}

export class NameStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  /** Throws BAD_REQUEST when another source has one of the names; the same may be given again. */
  async claim(executionId: number, names: readonly DestinationName[]): Promise<void> {
    if (names.length === 0) return;
    const rows = names.map(({ registryId, repository, source }) => ({ registry: registryId, repository, source }));
    await this.#db.query(
      `INSERT INTO replication_names (execution_id, registry_id, repository, source)
       SELECT $1, n.registry, n.repository, n.source FROM jsonb_to_recordset($2::jsonb) AS n (registry bigint, repository text, source text)
       ON CONFLICT DO NOTHING`,
      [executionId, JSON.stringify(rows)],
    );
    const { rows: taken } = await this.#db.query<{ repository: string; mine: string; other: string }>(
      `SELECT n.repository, n.source AS mine, k.source AS other
         FROM jsonb_to_recordset($2::jsonb) AS n (registry bigint, repository text, source text)
         JOIN replication_names k ON k.execution_id = $1 AND k.registry_id = n.registry AND k.repository = n.repository
        WHERE k.source <> n.source ORDER BY n.repository LIMIT 1`,
      [executionId, JSON.stringify(rows)],
    );
    const [first] = taken;
    if (!first) return;
    const quoted = [first.other, first.mine].map((name) => JSON.stringify(name)).join(" and ");
    throw new SlipwayError("BAD_REQUEST", {
      message: `the source repositories ${quoted} would both become ${JSON.stringify(first.repository)} at the destination`,
    });
  }

  /** Those of a destination's repositories that no source has. */
  async unclaimed(executionId: number, registryId: number, repositories: readonly string[]): Promise<string[]> {
    const { rows } = await this.#db.query<{ repository: string }>(
      `SELECT r AS repository FROM unnest($3::text[]) AS r
        WHERE NOT EXISTS (SELECT 1 FROM replication_names WHERE execution_id = $1 AND registry_id = $2 AND repository = r)`,
      [executionId, registryId, repositories],
    );
    return rows.map((row) => row.repository);
  }

  async clear(executionId: number): Promise<void> {
    await this.#db.query("DELETE FROM replication_names WHERE execution_id = $1", [executionId]);
  }
}
