/** Removes old executions: by count per vendor object and by age, in batches, never one that is open. */
import type { Queryable } from "../db/pool.ts";
import type { VendorChoice } from "./plan/retention-rules.ts";

export interface RetentionRule {
  /** Vendors that the rule is for; absent: all. */
  readonly vendors?: VendorChoice;
  /** Ended executions kept per vendor and vendor id. */
  readonly keep: number;
  /** Ended longer ago than this: removed, whatever the count. */
  readonly maxAgeMs: number;
  /** Most rows removed by one call. */
  readonly limit: number;
}

/** Returns how many were removed; fewer than the limit when nothing more is to be done. */
export async function pruneExecutions(database: Queryable, rule: RetentionRule): Promise<number> {
  const { only, except } = { only: null, except: null, ...rule.vendors };
  const result = await database.query(
    `WITH kinds AS MATERIALIZED (
       SELECT DISTINCT vendor, vendor_id FROM executions
        WHERE ($4::text[] IS NULL OR vendor = ANY ($4)) AND ($5::text[] IS NULL OR vendor <> ALL ($5)))
     DELETE FROM executions WHERE ended_at IS NOT NULL AND id IN (
       (SELECT id FROM executions WHERE ended_at < now() - make_interval(secs => $2 / 1000.0)
           AND vendor IN (SELECT vendor FROM kinds) ORDER BY ended_at LIMIT $3)
       UNION
       (SELECT old.id
          FROM kinds AS kind
         CROSS JOIN LATERAL (
           SELECT e.id FROM executions e
            WHERE e.vendor = kind.vendor AND e.vendor_id IS NOT DISTINCT FROM kind.vendor_id AND e.ended_at IS NOT NULL
            ORDER BY e.id DESC OFFSET $1 LIMIT $3
         ) AS old
         LIMIT $3)
       LIMIT $3)`,
    [rule.keep, rule.maxAgeMs, rule.limit, only, except],
  );
  return result.rowCount ?? 0;
}
