/**
 * Side effects that must follow a commit: rows written in the transaction itself, worked off later. Rows of one key are handled in order
 * and by one holder at a time, rows of different keys side by side. A handler may see a row twice (its holder died), never out of order.
 */
import { randomUUID } from "node:crypto";
import { backoffDelay } from "../core/backoff.ts";
import type { Queryable } from "../db/pool.ts";

export type OutboxKind = "link-record" | "project-record" | "event" | "execution-event";

export interface OutboxDraft {
  readonly kind: OutboxKind;
  readonly key: string;
  readonly payload: unknown;
}

export interface OutboxRow {
  readonly id: number;
  readonly kind: OutboxKind;
  readonly key: string;
  readonly payload: unknown;
  readonly attempts: number;
}

export interface OutboxClaim {
  /** Hand it back with complete or fail. */
  readonly claim: string;
  readonly rows: OutboxRow[];
}

export interface OutboxClaimOptions {
  readonly kind: OutboxKind;
  readonly limit: number;
  /** After this another may claim the rows. */
  readonly leaseMs: number;
  /** Keys taken at once. */
  readonly keys?: number;
}

const RETRY = { baseMs: 1_000, capMs: 5 * 60_000 };
const LONGEST_ERROR = 500;
const ADVANCE_LOCK = 7_514_007;

export class Outbox {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  /** Within the transaction whose effects they are: `new Outbox(tx).append(...)`. */
  async append(drafts: readonly OutboxDraft[]): Promise<void> {
    if (drafts.length === 0) return;
    await this.#db.query(
      `INSERT INTO outbox (kind, key, payload)
       SELECT e.kind, e.key, e.payload
       FROM ROWS FROM (jsonb_to_recordset($1::jsonb) AS (kind text, key text, payload jsonb)) WITH ORDINALITY AS e (kind, key, payload, position)
       ORDER BY e.position`,
      [outboxJson(drafts)],
    );
  }

  /**
   * Numbers go on at the present time in microseconds, which more rows than one a microsecond would be needed to outrun: those of a database
   * that was restored from a backup do not name what was written after the backup once more.
   */
  async advance(): Promise<void> {
    // One process at a time: of two the slower one would set the numbers back.
    await this.#db.query(`DO $$ BEGIN
      PERFORM pg_advisory_xact_lock(${ADVANCE_LOCK});
      PERFORM setval('outbox_id_seq', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
        FROM outbox_id_seq WHERE last_value < extract(epoch FROM clock_timestamp()) * 1000000;
    END $$`);
  }

  async claim(options: OutboxClaimOptions): Promise<OutboxClaim> {
    const claim = randomUUID();
    // A key is free when its oldest row is due: while somebody holds the key, its oldest row is not.
    const claimed = await this.#db.query<OutboxRow>(
      `WITH heads AS (
         SELECT o.key FROM outbox o
         WHERE o.kind = $1 AND o.due_at <= now()
           AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.kind = $1 AND e.key = o.key AND e.id < o.id)
         ORDER BY o.id LIMIT $4 FOR UPDATE SKIP LOCKED
       ), chosen AS (
         SELECT r.id FROM heads h CROSS JOIN LATERAL (
           SELECT id FROM outbox o WHERE o.kind = $1 AND o.key = h.key ORDER BY id LIMIT $2) r
         ORDER BY r.id LIMIT $2
       )
       UPDATE outbox o SET due_at = now() + $3 * interval '1 millisecond', attempts = o.attempts + 1, claim = $5
       FROM chosen c WHERE o.id = c.id RETURNING o.id, o.kind, o.key, o.payload, o.attempts`,
      [options.kind, options.limit, options.leaseMs, options.keys ?? 64, claim],
    );
    return { claim, rows: claimed.rows.toSorted((a, b) => a.id - b.id) };
  }

  /** The number removed; fewer than given when the lease had ended. */
  async complete(claim: string, ids: readonly number[]): Promise<number> {
    const done = await this.#db.query("DELETE FROM outbox WHERE id = ANY ($1) AND claim = $2", [ids, claim]);
    return done.rowCount ?? 0;
  }

  /** Gives the rows back, to be tried again after a back-off that grows with their attempts. */
  async fail(claim: string, rows: readonly OutboxRow[], error: string): Promise<void> {
    const attempts = Math.max(1, ...rows.map((row) => row.attempts));
    await this.#db.query(
      "UPDATE outbox SET due_at = now() + $3 * interval '1 millisecond', claim = NULL, last_error = $4 WHERE id = ANY ($1) AND claim = $2",
      [rows.map((row) => row.id), claim, backoffDelay(attempts, RETRY), error.slice(0, LONGEST_ERROR)],
    );
  }

  /** Rows whose news is too old to be worth telling. */
  async dropOlderThan(kind: OutboxKind, ageMs: number, limit: number): Promise<number> {
    const dropped = await this.#db.query(
      `DELETE FROM outbox WHERE id IN (
         SELECT id FROM outbox WHERE kind = $1 AND created_at < now() - $2 * interval '1 millisecond' ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED)`,
      [kind, ageMs, limit],
    );
    return dropped.rowCount ?? 0;
  }

  async depth(): Promise<{ kind: OutboxKind; rows: number; oldestAgeMs: number }[]> {
    const found = await this.#db.query<{ kind: OutboxKind; rows: number; age: number }>(
      "SELECT kind, count(*) AS rows, extract(epoch FROM now() - min(created_at))::float8 * 1000 AS age FROM outbox GROUP BY kind",
    );
    return found.rows.map((row) => ({ kind: row.kind, rows: row.rows, oldestAgeMs: row.age }));
  }
}

/** For statements that write rows together with what they tell of. */
export function outboxJson(drafts: readonly OutboxDraft[]): string {
  return JSON.stringify(drafts);
}
