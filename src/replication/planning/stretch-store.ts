/**
 * Stretches in Postgres: what a step has planned, so that a repeated step finds it, and the right to plan, so that a step which was given up but still
 * runs somewhere writes nothing more.
 */
import { SlipwayError } from "../../core/errors.ts";
import type { Database, Queryable } from "../../db/pool.ts";
import type { LogDraft } from "../../execution/log-store.ts";
import { LogStore } from "../../execution/log-store.ts";
import { planTasks } from "../item-store.ts";
import type { PlannedTask } from "../item-store.ts";
import { RunStore } from "../run-store.ts";
import type { BatchDraft, KeptBatch } from "./plan/drafts.ts";

export interface Forecast {
  readonly destination: number;
  readonly repository: string;
  readonly copy: number;
  readonly delete: number;
  readonly unchanged: number;
  readonly kept: number;
  readonly bytes: number;
}

export interface Stretch {
  readonly key: string;
  readonly repository: string;
  readonly next: string | null;
  readonly batches: readonly BatchDraft[];
  readonly unchanged: number;
  readonly log: readonly LogDraft[];
  /** The stretch that this one goes on from. */
  readonly follows?: string;
  readonly forecast?: readonly Forecast[];
}

export interface OpenStretch {
  readonly key: string;
  readonly repository: string;
  readonly next: string;
}

export interface PlanningRight {
  readonly executionId: number;
  readonly step: number;
  readonly token: string;
}

export class StretchStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Begins a step, or begins it again: from here on nobody else plans. What earlier steps left and nobody needs any more goes. */
  async begin(right: PlanningRight): Promise<ReadonlySet<string>> {
    const { executionId, step, token } = right;
    await this.#database.query("UPDATE replication_runs SET planning_token = $2 WHERE execution_id = $1", [executionId, token]);
    if (step > 1)
      await this.#database.query(
        "DELETE FROM replication_stretches WHERE execution_id = $1 AND step < $2 AND next IS NULL AND forecast IS NULL",
        [executionId, step],
      );
    const { rows } = await this.#database.query<{ key: string }>(
      "SELECT key FROM replication_stretches WHERE execution_id = $1 AND step = $2",
      [executionId, step],
    );
    return new Set(rows.map((row) => row.key));
  }

  /** All of them or none, with their tasks, items, figures and lines of log. CONFLICT when another plans now. */
  async record(right: PlanningRight, stretches: readonly Stretch[]): Promise<void> {
    await this.#database.transaction(async (tx) => {
      await hold(tx, right);
      const tasks = stretches.flatMap(({ batches }) => batches.flatMap((batch) => batch.tasks));
      const planned = await planTasks(tx, right.executionId, tasks);
      await insert(tx, right, { stretches, ids: new Map(planned.map((task: PlannedTask) => [task.key, task.id])) });
      const unchanged = stretches.reduce((sum, stretch) => sum + stretch.unchanged, 0);
      const bytesTotal = stretches.flatMap(({ forecast }) => forecast ?? []).reduce((sum, { bytes }) => sum + bytes, 0);
      if (unchanged > 0 || bytesTotal > 0) await new RunStore(tx).addFigures(right.executionId, { itemsUnchanged: unchanged, bytesTotal });
      await new LogStore(tx).append(
        right.executionId,
        stretches.flatMap(({ log }) => log),
      );
    });
  }

  /** What a step has planned, in order. */
  async batches(executionId: number, step: number): Promise<KeptBatch[]> {
    const { rows } = await this.#database.query<{ batches: KeptBatch[] }>(
      "SELECT batches FROM replication_stretches WHERE execution_id = $1 AND step = $2 AND batches <> '[]' ORDER BY key",
      [executionId, step],
    );
    return rows.flatMap((row) => row.batches).toSorted((a, b) => (a.tasks[0] ?? 0) - (b.tasks[0] ?? 0));
  }

  /** Repositories that are planned in part. */
  async open(executionId: number, limit: number): Promise<OpenStretch[]> {
    const { rows } = await this.#database.query<OpenStretch>(
      "SELECT key, repository, next FROM replication_stretches WHERE execution_id = $1 AND next IS NOT NULL ORDER BY key LIMIT $2",
      [executionId, limit],
    );
    return rows;
  }

  /** What a dry run found, by destination and repository; so many, most bytes first. */
  async forecasts(executionId: number, limit: number): Promise<(Forecast & { readonly source: string })[]> {
    const { rows } = await this.#database.query<Forecast & { source: string }>(
      `SELECT s.repository AS source, f.destination, f.repository, sum(f.copy) AS copy, sum(f.delete) AS delete, sum(f.unchanged) AS unchanged,
              sum(f.kept) AS kept, sum(f.bytes)::bigint AS bytes
         FROM replication_stretches s,
              jsonb_to_recordset(s.forecast) AS f (destination integer, repository text, copy integer, delete integer, unchanged integer, kept integer, bytes bigint)
        WHERE s.execution_id = $1 AND s.forecast IS NOT NULL
        GROUP BY 1, 2, 3 ORDER BY bytes DESC, source, destination LIMIT $2`,
      [executionId, limit],
    );
    return rows;
  }
}

/** The row stays locked until the transaction ends: of two that plan the same, one waits here and then finds that it may not. */
async function hold(tx: Queryable, right: PlanningRight): Promise<void> {
  // The execution first, as whoever stops it takes them.
  await tx.query("SELECT 1 FROM executions WHERE id = $1 FOR SHARE", [right.executionId]);
  const { rows } = await tx.query("SELECT 1 FROM replication_runs WHERE execution_id = $1 AND planning_token = $2 FOR UPDATE", [
    right.executionId,
    right.token,
  ]);
  if (rows.length === 0) throw new SlipwayError("CONFLICT", { message: "another process plans this run now" });
}

async function insert(
  tx: Queryable,
  right: PlanningRight,
  { stretches, ids }: { readonly stretches: readonly Stretch[]; readonly ids: ReadonlyMap<string, number> },
): Promise<void> {
  const rows = stretches.map((stretch) => ({
    key: stretch.key,
    repository: stretch.repository,
    next: stretch.next,
    batches: stretch.batches.flatMap((batch) => keep(batch, ids)),
    forecast: stretch.forecast ?? null,
  }));
  await tx.query(
    `INSERT INTO replication_stretches (execution_id, key, step, repository, next, batches, forecast)
     SELECT $1, s.key, $2, s.repository, s.next, s.batches, nullif(s.forecast, 'null'::jsonb)
       FROM jsonb_to_recordset($3::jsonb) AS s (key text, repository text, next text, batches jsonb, forecast jsonb)`,
    [right.executionId, right.step, JSON.stringify(rows)],
  );
  const followed = stretches.flatMap(({ follows }) => follows ?? []);
  if (followed.length > 0)
    await tx.query("UPDATE replication_stretches SET next = NULL WHERE execution_id = $1 AND key = ANY ($2)", [
      right.executionId,
      followed,
    ]);
}

/** Tasks that ended in planning are nobody's work; an execution that ended has taken none. */
function keep(batch: BatchDraft, ids: ReadonlyMap<string, number>): KeptBatch[] {
  const open = batch.tasks.filter(({ outcome }) => outcome === undefined);
  const tasks = open.flatMap(({ key }) => ids.get(key) ?? []);
  if (tasks.length === 0) return [];
  return [{ tasks, targets: [...new Set(open.map(({ attrs }) => attrs.target_registry_id))], weight: batch.weight }];
}
