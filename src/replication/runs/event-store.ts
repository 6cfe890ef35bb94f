/** Changes of local content that event policies have to carry out: noted, taken by a run, and given back when they failed. */
import type { Queryable } from "../../db/pool.ts";

export interface EventDraft {
  readonly policyId: number;
  readonly repository: string;
  /** A tag, or a digest for content without one. */
  readonly reference: string;
  readonly action: "copy" | "delete";
  readonly digest: string | null;
}

/** Failed ones are tried again after a minute, then less and less often. */
const RETRY_BASE_S = 60;
const RETRY_CAP_S = 3_600;

/** Failures that another try does not mend. */
const LASTING = "unsupported-manifest,immutable,collision,gone-at-source,diverged";

export class EventStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  /** A later change of the same name replaces an earlier one, also one that a run is about to carry out. */
  async note(drafts: readonly EventDraft[]): Promise<void> {
    const latest = new Map(drafts.map((draft) => [`${draft.policyId} ${draft.repository} ${draft.reference}`, draft]));
    if (latest.size === 0) return;
    await this.#db.query(
      `INSERT INTO replication_events (policy_id, repository, reference, action, digest)
       SELECT p.id, e.repository, e.reference, e.action, e.digest
         FROM jsonb_to_recordset($1::jsonb) AS e ("policyId" bigint, repository text, reference text, action text, digest text)
         JOIN replication_policies p ON p.id = e."policyId"
        ORDER BY 1, 2, 3
       ON CONFLICT (policy_id, repository, reference) DO UPDATE
         SET action = excluded.action, digest = excluded.digest, execution_id = NULL, noted_at = now(), due_at = now(), attempts = 0`,
      [JSON.stringify([...latest.values()])],
    );
  }

  /** Gives what is due to a run; returns how many it has now. */
  async take(policyId: number, executionId: number): Promise<number> {
    await this.#db.query(
      "UPDATE replication_events SET execution_id = $2 WHERE policy_id = $1 AND execution_id IS NULL AND due_at <= now()",
      [policyId, executionId],
    );
    const { rows } = await this.#db.query<{ count: number }>("SELECT count(*) AS count FROM replication_events WHERE execution_id = $1", [
      executionId,
    ]);
    return rows[0]?.count ?? 0;
  }

  /**
   * After the run: what it carried out, or what somebody stopped, is forgotten. What failed waits for another run, until it is too old.
   * Returns how many wait.
   */
  async release(executionId: number, maxAgeMs: number): Promise<number> {
    const failed = `(e.status = 'Error' AND (NOT EXISTS (SELECT 1 FROM replication_items i WHERE i.execution_id = v.execution_id)
      OR EXISTS (SELECT 1 FROM replication_items i WHERE i.execution_id = v.execution_id AND i.status = 'Error' AND i.reason <> ALL ('{${LASTING}}')
                  AND i.src_repository = v.repository AND v.reference IN (i.tag, i.digest))))`;
    const kept = await this.#db.query(
      `UPDATE replication_events v
          SET execution_id = NULL, attempts = v.attempts + 1,
              due_at = now() + make_interval(secs => least(${RETRY_CAP_S}, ${RETRY_BASE_S} * power(2, least(v.attempts, 10))))
         FROM executions e
        WHERE v.execution_id = $1 AND e.id = $1 AND e.ended_at IS NOT NULL AND ${failed}
          AND v.noted_at > now() - make_interval(secs => $2 / 1000.0)`,
      [executionId, maxAgeMs],
    );
    await this.#db.query(
      `DELETE FROM replication_events v WHERE v.execution_id = $1
          AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = $1 AND e.ended_at IS NULL)`,
      [executionId],
    );
    return kept.rowCount ?? 0;
  }

  /** Whether a run is worth starting now. */
  async isDue(policyId: number): Promise<boolean> {
    const { rowCount } = await this.#db.query(
      "SELECT 1 FROM replication_events WHERE policy_id = $1 AND execution_id IS NULL AND due_at <= now() LIMIT 1",
      [policyId],
    );
    return rowCount === 1;
  }

  /** Enabled event policies with changes that nobody has taken for a while. */
  async policiesDue(quietMs: number): Promise<number[]> {
    const { rows } = await this.#db.query<{ policy_id: number }>(
      `SELECT DISTINCT v.policy_id FROM replication_events v JOIN replication_policies p ON p.id = v.policy_id
        WHERE v.execution_id IS NULL AND v.due_at <= now() - make_interval(secs => $1 / 1000.0)
          AND p.enabled AND p.trigger_type = 'event_based'`,
      [quietMs],
    );
    return rows.map((row) => row.policy_id);
  }

  /** Runs that are over and have not given back what they took. */
  async heldByEnded(limit: number): Promise<number[]> {
    const { rows } = await this.#db.query<{ execution_id: number }>(
      `SELECT DISTINCT v.execution_id FROM replication_events v LEFT JOIN executions e ON e.id = v.execution_id
        WHERE v.execution_id IS NOT NULL AND (e.id IS NULL OR e.ended_at IS NOT NULL) LIMIT $1`,
      [limit],
    );
    return rows.map((row) => row.execution_id);
  }

  async depth(): Promise<{ readonly waiting: number; readonly oldestAgeMs: number }> {
    const { rows } = await this.#db.query<{ waiting: number; age: number | null }>(
      `SELECT count(*) AS waiting, extract(epoch FROM now() - min(noted_at))::float8 * 1000 AS age
         FROM replication_events WHERE execution_id IS NULL`,
    );
    return { waiting: rows[0]?.waiting ?? 0, oldestAgeMs: rows[0]?.age ?? 0 };
  }
}
