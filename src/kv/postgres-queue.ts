/**
 * The claim queue over Postgres. Rows are locked in the order of their keys wherever a statement may wait, so that marks, completions
 * and extensions never deadlock; a claim skips what others have locked.
 */
import type { Queryable } from "../db/pool.ts";
import type { Claim, ClaimQueue, Mark, SlotState, SubscribeHandlers, Subscription } from "./kv.ts";
import { wakeMessage } from "./queue-wake.ts";

/** Urgent when one of the marks of a member is. The notification is part of the statement, so it comes when the marks can be seen. */
const MARK = `
WITH marked AS (
  INSERT INTO kv_queue (queue, slot, member, urgent, marked_at, ready_at)
  SELECT $1, m.slot, m.member, m.urgent, c.at, c.at
  FROM (
    SELECT u.slot, u.member COLLATE "C" AS member, bool_or(u.urgent) AS urgent
    FROM unnest($2::integer[], $3::text[], $4::boolean[]) AS u(slot, member, urgent) GROUP BY 1, 2
  ) m, (SELECT clock_timestamp() AS at) c
  ORDER BY m.slot, m.member
  ON CONFLICT (queue, slot, member) DO UPDATE SET
    remarked_at = CASE WHEN kv_queue.token IS NOT NULL THEN coalesce(kv_queue.remarked_at, excluded.marked_at) END,
    urgent = kv_queue.urgent OR excluded.urgent
  WHERE (kv_queue.token IS NOT NULL AND kv_queue.remarked_at IS NULL) OR (excluded.urgent AND NOT kv_queue.urgent)
  RETURNING xmax = 0 AS new
)
SELECT (SELECT count(*) FROM marked WHERE new) AS added, pg_notify($5, $6)`;

/** One look-up for each slot by the index of its order. The outer limit stops before more rows are locked than are taken. */
const CLAIM = `
WITH picked AS MATERIALIZED (
  SELECT p.row, p.before FROM unnest($2::integer[]) AS s(slot) CROSS JOIN LATERAL (
    SELECT q.ctid AS row, q.token AS before FROM kv_queue q WHERE q.queue = $1 AND q.slot = s.slot AND q.ready_at <= clock_timestamp()
    ORDER BY q.urgent DESC, q.marked_at LIMIT $5 FOR UPDATE SKIP LOCKED
  ) p LIMIT $3
)
UPDATE kv_queue q SET token = t.token, ready_at = clock_timestamp() + $4 * interval '1 millisecond', remarked_at = NULL
FROM picked p, (SELECT nextval('kv_claim_tokens') AS token) t
WHERE q.ctid = p.row
RETURNING q.slot, q.member, q.token, p.before IS NOT NULL AS expired,
          (EXTRACT(EPOCH FROM clock_timestamp() - q.marked_at) * 1000)::float8 AS age`;

/**
 * Locks what the claims hold still. One look-up for each of them by the primary key: a join would be planned by statistics, which a queue
 * that was empty a moment ago does not have. Rows that changed since the statement began are locked but not found by their ctid.
 */
const LOCKED = `
given AS MATERIALIZED (
  SELECT $1::text COLLATE "C" AS queue, g.slot, g.member COLLATE "C" AS member, g.token
  FROM unnest($2::integer[], $3::text[], $4::bigint[]) AS g(slot, member, token) ORDER BY 2, 3
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

const STATES = `
SELECT q.slot, count(*) AS depth,
       (EXTRACT(EPOCH FROM clock_timestamp() - min(q.marked_at) FILTER (WHERE q.ready_at <= clock_timestamp())) * 1000)::float8 AS age
FROM kv_queue q WHERE q.queue = $1 AND q.slot = ANY ($2) GROUP BY q.slot`;

interface ClaimedRow {
  readonly slot: number;
  readonly member: string;
  readonly token: number;
  readonly expired: boolean;
  readonly age: number;
}

export interface PostgresQueueParts {
  readonly db: Queryable;
  readonly queue: string;
  /** The name under which the server knows the channel of the queue. */
  readonly channel: string;
  readonly watch: (handlers: SubscribeHandlers) => Promise<Subscription>;
}

export class PostgresClaimQueue implements ClaimQueue {
  readonly #parts: PostgresQueueParts;
  #expiries = 0;

  constructor(parts: PostgresQueueParts) {
    this.#parts = parts;
  }

  async mark(marks: readonly Mark[]): Promise<number> {
    if (marks.length === 0) return 0;
    const slots = marks.map((mark) => mark.slot);
    const members = marks.map((mark) => mark.member);
    const urgent = marks.map((mark) => mark.urgent === true);
    const { db, queue, channel } = this.#parts;
    const { rows } = await db.query<{ added: number }>(MARK, [queue, slots, members, urgent, channel, `+${wakeMessage(marks)}`]);
    return rows[0]?.added ?? 0;
  }

  async claim(slots: readonly number[], limit: number, leaseMs: number): Promise<Claim[]> {
    if (slots.length === 0 || limit === 0) return [];
    const share = Math.ceil(limit / slots.length);
    const claims = await this.#claim(slots, limit, { leaseMs, share });
    const rest = limit - claims.length;
    const counts = Map.groupBy(claims, ({ slot }) => slot);
    const full = slots.filter((slot) => counts.get(slot)?.length === share);
    if (rest === 0 || full.length === 0) return claims;
    return [...claims, ...(await this.#claim(full, rest, { leaseMs, share: rest }))];
  }

  async complete(claims: readonly Claim[]): Promise<void> {
    if (claims.length === 0) return;
    const values = [this.#parts.queue, ...columns(claims)];
    const { rowCount } = await this.#parts.db.query(COMPLETE, values);
    if ((rowCount ?? 0) < claims.length) await this.#parts.db.query(REQUEUE, values);
  }

  async extend(claims: readonly Claim[], leaseMs: number): Promise<void> {
    if (claims.length > 0) await this.#parts.db.query(EXTEND, [this.#parts.queue, ...columns(claims), leaseMs]);
  }

  get expiries(): number {
    return this.#expiries;
  }

  async states(slots: readonly number[]): Promise<SlotState[]> {
    const { db, queue } = this.#parts;
    const { rows } = await db.query<{ slot: number; depth: number; age: number | null }>(STATES, [queue, slots]);
    const found = new Map(rows.map((row) => [row.slot, row]));
    return slots.map((slot) => ({
      slot,
      depth: found.get(slot)?.depth ?? 0,
      oldestAgeMs: Math.max(0, Math.round(found.get(slot)?.age ?? 0)),
    }));
  }

  watch(handlers: SubscribeHandlers): Promise<Subscription> {
    return this.#parts.watch(handlers);
  }

  async #claim(slots: readonly number[], limit: number, { leaseMs, share }: { leaseMs: number; share: number }): Promise<Claim[]> {
    const values = [this.#parts.queue, slots, limit, leaseMs, share];
    const { rows } = await this.#parts.db.query<ClaimedRow>(CLAIM, values);
    this.#expiries += rows.filter(({ expired }) => expired).length;
    return rows.map(({ slot, member, token, age }) => ({ slot, member, token: String(token), ageMs: Math.max(0, Math.round(age)) }));
  }
}

function columns(claims: readonly Claim[]): [number[], string[], string[]] {
  return [claims.map((claim) => claim.slot), claims.map((claim) => claim.member), claims.map((claim) => claim.token)];
}
