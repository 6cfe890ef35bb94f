/** Totals over all runs, for metrics: outcomes by policy, bytes by target, what goes on now. The same in every process. */
import type { Database, Queryable } from "../db/pool.ts";
import { vendors } from "../execution/plan/status.ts";

export interface PolicyFigures {
  readonly name: string;
  readonly enabled: boolean;
  readonly outcomes: Readonly<Record<string, number>>;
  /** Since its last success; since it was made when there was none. */
  readonly successAgeSeconds: number;
}

export interface RunFigureTotals {
  readonly policies: readonly PolicyFigures[];
  readonly targets: readonly { readonly name: string; readonly bytes: number }[];
  /** Open executions by state. */
  readonly open: Readonly<Record<string, number>>;
}

/** Any number will do that nobody else locks by. */
const FOLD_LOCK = 2_026_115;
const FOLD_LIMIT = 200;
const FOLD_EVERY_MS = 60_000;

export class RunFigures {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** So that runs do not pile up where nobody scrapes; ends with the returned function. */
  keepFolding(everyMs = FOLD_EVERY_MS): () => void {
    const timer = setInterval(() => void this.fold().catch(() => undefined), everyMs).unref();
    return () => clearInterval(timer);
  }

  /** Adds runs that ended to the totals; one process at a time, the others leave it to that one. Returns how many. */
  async fold(): Promise<number> {
    return await this.#database.transaction(async (tx) => {
      const { rows } = await tx.query<{ mine: boolean }>(`SELECT pg_try_advisory_xact_lock(${FOLD_LOCK}) AS mine`);
      if (rows[0]?.mine !== true) return 0;
      const taken = await tx.query<Ending>(
        `DELETE FROM replication_endings WHERE id IN (SELECT id FROM replication_endings ORDER BY id LIMIT ${FOLD_LIMIT})
         RETURNING execution_id, policy_id, outcome, ended_at`,
      );
      if (taken.rows.length > 0) await addEndings(tx, taken.rows);
      return taken.rows.length;
    });
  }

  /** Of at most so many policies and targets, by age. */
  async totals(limit: number): Promise<RunFigureTotals> {
    const policies = await this.#database.query<PolicyFigures>(
      `SELECT p.name, p.enabled, coalesce(o.outcomes, '{}') AS outcomes,
              extract(epoch FROM greatest(interval '0', now() - coalesce(o.last_success, p.created_at)))::float8 AS "successAgeSeconds"
         FROM replication_policies p
         LEFT JOIN LATERAL (
           SELECT jsonb_object_agg(outcome, count) AS outcomes, max(last_at) FILTER (WHERE outcome = 'Success') AS last_success
             FROM replication_outcomes WHERE policy_id = p.id
         ) o ON true
        ORDER BY p.id LIMIT $1`,
      [limit],
    );
    const targets = await this.#database.query<{ name: string; bytes: number }>(
      `SELECT CASE WHEN t.registry_id = 0 THEN 'Local' ELSE coalesce(r.name, 'removed') END AS name, sum(t.bytes)::bigint AS bytes
         FROM replication_target_bytes t LEFT JOIN registries r ON r.id = t.registry_id GROUP BY 1 ORDER BY min(t.registry_id) LIMIT $1`,
      [limit],
    );
    const open = await this.#database.query<{ status: string; count: number }>(
      `SELECT e.status, count(*) AS count FROM open_executions o JOIN executions e ON e.id = o.execution_id
        WHERE o.vendor = $1 AND e.ended_at IS NULL GROUP BY e.status`,
      [vendors.replication],
    );
    return { policies: policies.rows, targets: targets.rows, open: Object.fromEntries(open.rows.map((row) => [row.status, row.count])) };
  }
}

interface Ending {
  execution_id: number;
  policy_id: number;
  outcome: string;
  ended_at: Date;
}

async function addEndings(tx: Queryable, endings: readonly Ending[]): Promise<void> {
  await tx.query(
    `INSERT INTO replication_outcomes (policy_id, outcome, count, last_at)
     SELECT p.id, e.outcome, count(*), max(e.ended_at)
       FROM jsonb_to_recordset($1::jsonb) AS e (policy_id bigint, outcome text, ended_at timestamptz)
       JOIN replication_policies p ON p.id = e.policy_id GROUP BY 1, 2
     ON CONFLICT (policy_id, outcome) DO UPDATE
       SET count = replication_outcomes.count + excluded.count, last_at = greatest(replication_outcomes.last_at, excluded.last_at)`,
    [JSON.stringify(endings)],
  );
  await tx.query(
    `INSERT INTO replication_target_bytes (registry_id, bytes)
     SELECT coalesce((t.extra_attrs ->> 'target_registry_id')::bigint, 0), sum(i.bytes_copied)
       FROM replication_items i JOIN tasks t ON t.id = i.task_id
      WHERE i.execution_id = ANY ($1) GROUP BY 1 HAVING sum(i.bytes_copied) > 0
     ON CONFLICT (registry_id) DO UPDATE SET bytes = replication_target_bytes.bytes + excluded.bytes`,
    [endings.map((ending) => ending.execution_id)],
  );
}
