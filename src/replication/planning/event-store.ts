/** Changes of local content that a run has taken to carry out, by pages. */
import type { Queryable } from "../../db/pool.ts";

export interface EventRow {
  readonly repository: string;
  readonly reference: string;
  readonly action: "copy" | "delete";
  readonly digest: string | null;
}

export class PlannedEvents {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  /** Of whole repositories, as far as a page goes. */
  async page(executionId: number, after: readonly [repository: string, reference: string] | null, limit: number): Promise<EventRow[]> {
    const { rows } = await this.#db.query<EventRow>(
      `SELECT repository, reference, action, digest FROM replication_events
        WHERE execution_id = $1 AND (repository, reference) > ($2, $3) ORDER BY repository, reference LIMIT $4`,
      [executionId, after?.[0] ?? "", after?.[1] ?? "", limit],
    );
    return rows;
  }
}
