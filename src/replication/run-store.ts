/** What a run of replication has beside its execution: its kind, its place in the queue of its policy, its figures. */
import { UNIQUE_VIOLATION, sqlState } from "../db/pool.ts";
import type { Queryable } from "../db/pool.ts";
import type { RunKind } from "./plan/run.ts";

export interface Run {
  readonly executionId: number;
  readonly policyId: number;
  readonly kind: RunKind;
  readonly queued: boolean;
  readonly retryOf: number | null;
  readonly force: boolean;
  /** Kilobits a second; null: as the policy says. */
  readonly speedKb: number | null;
  readonly itemsUnchanged: number;
  readonly bytesTotal: number;
  readonly bytesCopied: number;
  readonly bytesMounted: number;
  readonly bytesSkipped: number;
}

export interface NewRun {
  readonly executionId: number;
  readonly policyId: number;
  readonly kind: RunKind;
  readonly retryOf?: number | null;
  readonly force?: boolean;
}

/** Added to what is there. */
export interface RunFigures {
  readonly itemsUnchanged?: number;
  readonly bytesTotal?: number;
  readonly bytesCopied?: number;
  readonly bytesMounted?: number;
  readonly bytesSkipped?: number;
}

export class RunStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  async create(run: NewRun): Promise<void> {
    await this.#db.query("INSERT INTO replication_runs (execution_id, policy_id, kind, retry_of, force) VALUES ($1, $2, $3, $4, $5)", [
      run.executionId,
      run.policyId,
      run.kind,
      run.retryOf ?? null,
      run.force ?? false,
    ]);
  }

  async find(executionId: number): Promise<Run | null> {
    return (await this.findMany([executionId])).get(executionId) ?? null;
  }

  async findMany(executionIds: readonly number[]): Promise<Map<number, Run>> {
    const { rows } = await this.#db.query<RunRow>("SELECT * FROM replication_runs WHERE execution_id = ANY ($1)", [executionIds]);
    return new Map(rows.map((row) => [row.execution_id, toRun(row)]));
  }

  /** Lets it wait for the active run. "taken": another one waits already; "ended": it was stopped in the meantime. */
  async queue(executionId: number): Promise<"queued" | "taken" | "ended"> {
    try {
      // The lock keeps a stop apart, which ends the execution first and takes it out of the queue then.
      const { rowCount } = await this.#db.query(
        `WITH open AS (SELECT id FROM executions WHERE id = $1 AND ended_at IS NULL FOR SHARE)
         UPDATE replication_runs r SET queued = true FROM open WHERE r.execution_id = open.id`,
        [executionId],
      );
      return rowCount === 1 ? "queued" : "ended";
    } catch (error) {
      if (sqlState(error) === UNIQUE_VIOLATION) return "taken";
      throw error;
    }
  }

  async unqueue(executionId: number): Promise<boolean> {
    const { rowCount } = await this.#db.query("UPDATE replication_runs SET queued = false WHERE execution_id = $1 AND queued", [
      executionId,
    ]);
    return rowCount === 1;
  }

  async waiting(policyId: number): Promise<Run | null> {
    const { rows } = await this.#db.query<RunRow>("SELECT * FROM replication_runs WHERE policy_id = $1 AND queued", [policyId]);
    return rows[0] ? toRun(rows[0]) : null;
  }

  async setSpeed(executionId: number, speedKb: number | null): Promise<boolean> {
    const { rowCount } = await this.#db.query("UPDATE replication_runs SET speed_kb = $2 WHERE execution_id = $1", [executionId, speedKb]);
    return rowCount === 1;
  }

  /** What holds now: the run's own speed, else its policy's; 0 is unlimited. */
  async speedOf(executionId: number): Promise<number> {
    const { rows } = await this.#db.query<{ speed: number }>(
      `SELECT coalesce(r.speed_kb, p.speed_kb, 0) AS speed FROM replication_runs r LEFT JOIN replication_policies p ON p.id = r.policy_id
        WHERE r.execution_id = $1`,
      [executionId],
    );
    return rows[0]?.speed ?? 0;
  }

  async addFigures(executionId: number, figures: RunFigures): Promise<void> {
    await this.#db.query(
      `UPDATE replication_runs
          SET items_unchanged = items_unchanged + $2, bytes_total = bytes_total + $3, bytes_copied = bytes_copied + $4,
              bytes_mounted = bytes_mounted + $5, bytes_skipped = bytes_skipped + $6
        WHERE execution_id = $1`,
      [
        executionId,
        figures.itemsUnchanged ?? 0,
        figures.bytesTotal ?? 0,
        figures.bytesCopied ?? 0,
        figures.bytesMounted ?? 0,
        figures.bytesSkipped ?? 0,
      ],
    );
  }
}

export interface RunRow {
  execution_id: number;
  policy_id: number;
  kind: RunKind;
  queued: boolean;
  retry_of: number | null;
  force: boolean;
  speed_kb: number | null;
  items_unchanged: number;
  bytes_total: number;
  bytes_copied: number;
  bytes_mounted: number;
  bytes_skipped: number;
}

export function toRun(row: RunRow): Run {
  return {
    executionId: row.execution_id,
    policyId: row.policy_id,
    kind: row.kind,
    queued: row.queued,
    retryOf: row.retry_of,
    force: row.force,
    speedKb: row.speed_kb,
    itemsUnchanged: row.items_unchanged,
    bytesTotal: row.bytes_total,
    bytesCopied: row.bytes_copied,
    bytesMounted: row.bytes_mounted,
    bytesSkipped: row.bytes_skipped,
  };
}
