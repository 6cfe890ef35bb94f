/**
 * The claim queue over Postgres. Rows are locked in the order of their members wherever a statement may wait, so that marks, completions
 * and extensions never deadlock; a claim skips what others have locked.
 */
import type { Queryable } from "../db/pool.ts";
import type { Claim, ClaimQueue } from "./kv.ts";

const MARK = `
INSERT INTO kv_queue (queue, slot, member, marked_at, ready_at)
SELECT $1, $2, m.member, c.at, c.at
FROM (SELECT DISTINCT u.member COLLATE "C" AS member FROM unnest($3::text[]) AS u(member)) m, (SELECT clock_timestamp() AS at) c
ORDER BY m.member
ON CONFLICT (queue, slot, member) DO UPDATE SET remarked_at = excluded.marked_at
WHERE kv_queue.token IS NOT NULL AND kv_queue.remarked_at IS NULL`;

const CLAIM = `
WITH picked AS MATERIALIZED (
  SELECT ctid AS row FROM kv_queue WHERE queue = $1 AND slot = $2 AND ready_at <= clock_timestamp()
  ORDER BY marked_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE kv_queue q SET token = t.token, ready_at = clock_timestamp() + $4 * interval '1 millisecond', remarked_at = NULL
FROM picked p, (SELECT nextval('kv_claim_tokens') AS token) t
WHERE q.ctid = p.row
RETURNING q.member, q.token`;

/**
 * Locks what the claims hold still. One look-up for each of them by the primary key: a join would be planned by statistics, which a queue
 * that was empty a moment ago does not have. Rows that changed since the statement began are locked but not found by their ctid.
 */
const LOCKED = `
given AS MATERIALIZED (
  SELECT $1::text COLLATE "C" AS queue, $2::integer AS slot, g.member COLLATE "C" AS member, g.token
  FROM unnest($3::text[], $4::bigint[]) AS g(member, token) ORDER BY 3
),
locked AS MATERIALIZED (
  SELECT l.row, l.remarked_at FROM given g CROSS JOIN LATERAL (
    SELECT q.ctid AS row, q.remarked_at FROM kv_queue q
    WHERE q.queue = g.queue AND q.slot = g.slot AND q.member = g.member AND q.token = g.token FOR UPDATE
  ) l
)`;

/** What was marked again meanwhile is not found, or not removed. */
const COMPLETE = `
WITH ${LOCKED}
DELETE FROM kv_queue q USING locked l WHERE q.ctid = l.row AND l.remarked_at IS NULL`;

/** What was marked again waits since that mark. A statement of its own: it must see marks that came during the deletion. */
const REQUEUE = `
WITH ${LOCKED}
UPDATE kv_queue q SET token = NULL, marked_at = q.remarked_at, ready_at = q.remarked_at, remarked_at = NULL
FROM locked l WHERE q.ctid = l.row AND l.remarked_at IS NOT NULL`;

const EXTEND = `
WITH ${LOCKED}
UPDATE kv_queue q SET ready_at = clock_timestamp() + $5 * interval '1 millisecond' FROM locked l WHERE q.ctid = l.row`;

const OLDEST = `
SELECT EXTRACT(EPOCH FROM clock_timestamp() - marked_at) * 1000 AS age FROM kv_queue
WHERE queue = $1 AND slot = $2 AND ready_at <= clock_timestamp() ORDER BY marked_at LIMIT 1`;

export class PostgresClaimQueue implements ClaimQueue {
  readonly #db: Queryable;
  readonly #queue: string;

  constructor(db: Queryable, queue: string) {
    this.#db = db;
    this.#queue = queue;
  }

  async mark(slot: number, members: readonly string[]): Promise<void> {
    if (members.length > 0) await this.#db.query(MARK, [this.#queue, slot, members]);
  }

  async claim(slot: number, limit: number, leaseMs: number): Promise<Claim[]> {
    const { rows } = await this.#db.query<{ member: string; token: number }>(CLAIM, [this.#queue, slot, limit, leaseMs]);
    return rows.map((row) => ({ member: row.member, token: String(row.token) }));
  }

  async complete(slot: number, claims: readonly Claim[]): Promise<void> {
    if (claims.length === 0) return;
    const values = [this.#queue, slot, ...columns(claims)];
    const { rowCount } = await this.#db.query(COMPLETE, values);
    if ((rowCount ?? 0) < claims.length) await this.#db.query(REQUEUE, values);
  }

  async extend(slot: number, claims: readonly Claim[], leaseMs: number): Promise<void> {
    if (claims.length > 0) await this.#db.query(EXTEND, [this.#queue, slot, ...columns(claims), leaseMs]);
  }

  async depth(slot: number): Promise<number> {
    const { rows } = await this.#db.query<{ count: number }>("SELECT count(*) AS count FROM kv_queue WHERE queue = $1 AND slot = $2", [
      this.#queue,
      slot,
    ]);
    return rows[0]?.count ?? 0;
  }

  async oldestAgeMs(slot: number): Promise<number> {
    const { rows } = await this.#db.query<{ age: string }>(OLDEST, [this.#queue, slot]);
    return Math.max(0, Math.round(Number(rows[0]?.age ?? 0)));
  }
}

function columns(claims: readonly Claim[]): [string[], string[]] {
  return [claims.map((claim) => claim.member), claims.map((claim) => claim.token)];
}
