/** What refresh reads and writes in Postgres: batches of executions, marks that the queue could not take, and executions set aside. */
import type { Queryable } from "../../db/pool.ts";
import { clip } from "../execution-store.ts";
import type { Marked } from "../plan/slots.ts";

export interface SavedMark extends Marked {
  readonly urgent: boolean;
  readonly markedAt: Date;
}

export interface RefreshFailure {
  readonly executionId: number;
  readonly vendor: string;
  readonly attempts: number;
  readonly lastError: string;
  readonly lastAt: Date;
  /** Null while it is still tried. */
  readonly setAsideAt: Date | null;
}

const SETTLE = `SELECT s.id, s.vendor FROM settle_executions(ARRAY(
  SELECT unnest($1::bigint[]) EXCEPT SELECT execution_id FROM refresh_failures WHERE set_aside_at IS NOT NULL)) s`;

/** A page of notes in the order of executions. */
const OVERDUE = `WITH noted AS (
  SELECT c.execution_id FROM task_changes c
   WHERE c.execution_id > $3 AND c.changed_at < clock_timestamp() - $1 * interval '1 millisecond'
   ORDER BY c.execution_id LIMIT $2
)
SELECT n.execution_id AS id, e.vendor, f.set_aside_at IS NOT NULL AS "setAside"
  FROM (SELECT DISTINCT execution_id FROM noted) n
  LEFT JOIN executions e ON e.id = n.execution_id
  LEFT JOIN refresh_failures f ON f.execution_id = n.execution_id
 ORDER BY 1`;

export interface OverduePage {
  readonly marked: readonly Marked[];
  /** Where the next page begins; null after the last. */
  readonly next: number | null;
}

export class RefreshStore {
  readonly #database: Queryable;

  constructor(database: Queryable) {
    this.#database = database;
  }

  /** One statement; only what changed is returned. Executions that were set aside are passed over. */
  async settle(ids: readonly number[]): Promise<Marked[]> {
    return (await this.#database.query<Marked>(SETTLE, [ids])).rows;
  }

  /** Executions whose tasks changed a while ago and were not looked at since. */
  async listOverdue(query: { olderThanMs: number; limit: number; after: number }): Promise<OverduePage> {
    const { rows } = await this.#database.query<{ id: number; vendor: string | null; setAside: boolean }>(OVERDUE, [
      query.olderThanMs,
      query.limit,
      query.after,
    ]);
    const gone = rows.filter((row) => row.vendor === null).map((row) => row.id);
    // Notes of executions that were removed.
    if (gone.length > 0) await this.#database.query("DELETE FROM task_changes WHERE execution_id = ANY ($1)", [gone]);
    const marked = rows.flatMap(({ id, vendor, setAside }) => (vendor === null || setAside ? [] : [{ id, vendor }]));
    return { marked, next: rows.at(-1)?.id ?? null };
  }

  async saveMarks(marks: readonly (Marked & { urgent: boolean })[]): Promise<void> {
    await this.#database.query(
      `INSERT INTO refresh_marks (execution_id, vendor, urgent)
       SELECT m.id, max(m.vendor), bool_or(m.urgent) FROM unnest($1::bigint[], $2::text[], $3::boolean[]) AS m(id, vendor, urgent)
        GROUP BY m.id ORDER BY m.id
       ON CONFLICT (execution_id) DO UPDATE SET urgent = refresh_marks.urgent OR excluded.urgent, marked_at = excluded.marked_at`,
      [marks.map((mark) => mark.id), marks.map((mark) => mark.vendor), marks.map((mark) => mark.urgent)],
    );
  }

  async listMarks(limit: number): Promise<SavedMark[]> {
    const { rows } = await this.#database.query<SavedMark>(
      `SELECT execution_id AS id, vendor, urgent, marked_at AS "markedAt" FROM refresh_marks ORDER BY urgent DESC, marked_at LIMIT $1`,
      [limit],
    );
    return rows;
  }

  /** A mark that was made again in the meantime stays. Dates have milliseconds, the database has more. */
  async removeMarks(marks: readonly SavedMark[]): Promise<void> {
    await this.#database.query(
      `DELETE FROM refresh_marks r USING unnest($1::bigint[], $2::timestamptz[]) AS m(id, at)
        WHERE r.execution_id = m.id AND date_trunc('milliseconds', r.marked_at) <= m.at`,
      [marks.map((mark) => mark.id), marks.map((mark) => mark.markedAt)],
    );
  }

  /** Counts a failure of each; those that had enough are set aside. Returns these. */
  async noteFailures(ids: readonly number[], error: string, attempts: number): Promise<number[]> {
    const { rows } = await this.#database.query<{ execution_id: number; set_aside: boolean }>(
      `INSERT INTO refresh_failures (execution_id, last_error, set_aside_at)
       SELECT e.id, $2, CASE WHEN $3::integer <= 1 THEN now() END FROM executions e WHERE e.id = ANY ($1) ORDER BY e.id
       ON CONFLICT (execution_id) DO UPDATE
         SET attempts = refresh_failures.attempts + 1, last_error = excluded.last_error, last_at = now(),
             set_aside_at = CASE WHEN refresh_failures.attempts + 1 >= $3 THEN coalesce(refresh_failures.set_aside_at, now()) END
       RETURNING execution_id, set_aside_at IS NOT NULL AS set_aside`,
      [ids, clip(error), attempts],
    );
    return rows.filter((row) => row.set_aside).map((row) => row.execution_id);
  }

  async clearFailures(ids: readonly number[]): Promise<void> {
    await this.#database.query("DELETE FROM refresh_failures WHERE execution_id = ANY ($1)", [ids]);
  }

  async listFailures(limit: number): Promise<RefreshFailure[]> {
    const { rows } = await this.#database.query<RefreshFailure>(
      `SELECT f.execution_id AS "executionId", e.vendor, f.attempts, f.last_error AS "lastError", f.last_at AS "lastAt", f.set_aside_at AS "setAsideAt"
         FROM refresh_failures f JOIN executions e ON e.id = f.execution_id ORDER BY f.last_at DESC LIMIT $1`,
      [limit],
    );
    return rows;
  }

  /** Gives executions that were set aside before this time another round of tries. Returns how many. */
  async release(setAsideForMs: number): Promise<number> {
    const { rowCount } = await this.#database.query(
      "DELETE FROM refresh_failures WHERE set_aside_at <= now() - $1 * interval '1 millisecond'",
      [setAsideForMs],
    );
    return rowCount ?? 0;
  }

  async countSetAside(): Promise<number> {
    const { rows } = await this.#database.query<{ count: number }>(
      "SELECT count(*) AS count FROM refresh_failures WHERE set_aside_at IS NOT NULL",
    );
    return rows[0]?.count ?? 0;
  }
}
