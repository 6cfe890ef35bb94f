/**
 * What starting, stopping and closing a run write at once: its execution, its row, its tasks and items. Each statement or transaction carries
 * its own guard, so that a repetition changes nothing.
 */
import type { Database, Queryable } from "../../db/pool.ts";
import { UNIQUE_VIOLATION, sqlState } from "../../db/pool.ts";
import type { ExecutionTrigger } from "../../execution/plan/status.ts";
import { vendors } from "../../execution/plan/status.ts";
import type { RunKind } from "../plan/run.ts";

export interface RunDraft {
  readonly policyId: number;
  readonly trigger: ExecutionTrigger;
  readonly kind: RunKind;
  readonly force: boolean;
  readonly retryOf: number | null;
  readonly operator: string;
  /** The same key is the same run. */
  readonly startKey: string | null;
}

/** A row whose run has still to be started. */
export interface PendingRun {
  readonly executionId: number;
  readonly policyId: number;
  readonly kind: RunKind;
  readonly trigger: ExecutionTrigger;
}

export interface OpenRun {
  readonly executionId: number;
  readonly policyId: number;
  readonly status: string;
  readonly updatedAt: Date;
  readonly workflowId: string;
  readonly runId: string;
}

const STOPPED_ITEM = `status = 'Stopped', reason = 'stopped', updated_at = now()`;

export class RunBooks {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Execution and run, Pending; the ones that are there already when the key is known. */
  async create(draft: RunDraft): Promise<number> {
    for (;;) {
      try {
        const id = await this.#insert(draft);
        if (id !== undefined) return id;
      } catch (error) {
        // The same start at the same moment: its row is there now.
        if (draft.startKey === null || sqlState(error) !== UNIQUE_VIOLATION) throw error;
      }
    }
  }

  async #insert(draft: RunDraft): Promise<number | undefined> {
    const { rows } = await this.#database.query<{ id: number }>(
      `WITH known AS (SELECT execution_id AS id FROM replication_runs WHERE start_key = $1),
            made AS (INSERT INTO executions (vendor, vendor_id, trigger, extra_attrs)
                     SELECT $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM known) RETURNING id),
            run AS (INSERT INTO replication_runs (execution_id, policy_id, kind, retry_of, force, start_key)
                    SELECT id, $3, $6, $7, $8, $1 FROM made)
       SELECT id FROM made UNION ALL SELECT id FROM known`,
      [
        draft.startKey,
        vendors.replication,
        draft.policyId,
        draft.trigger,
        JSON.stringify({ operator: draft.operator }),
        draft.kind,
        draft.retryOf,
        draft.force,
      ],
    );
    return rows[0]?.id;
  }

  /** Null when it has ended or its run has begun. */
  async pending(executionId: number): Promise<PendingRun | null> {
    const { rows } = await this.#database.query<PendingRow>(
      `SELECT e.id, e.trigger, r.policy_id, r.kind FROM executions e JOIN replication_runs r ON r.execution_id = e.id
        WHERE e.id = $1 AND e.ended_at IS NULL AND e.run_id IS NULL`,
      [executionId],
    );
    return rows[0] ? toPending(rows[0]) : null;
  }

  /** Whose start got lost: neither started nor waiting in the queue for a while. */
  async lost(olderThanMs: number, limit: number): Promise<PendingRun[]> {
    const { rows } = await this.#database.query<PendingRow>(
      `SELECT e.id, e.trigger, r.policy_id, r.kind
         FROM open_executions o JOIN executions e ON e.id = o.execution_id JOIN replication_runs r ON r.execution_id = e.id
        WHERE o.vendor = $1 AND e.ended_at IS NULL AND e.run_id IS NULL AND NOT r.queued
          AND e.created_at < now() - make_interval(secs => $2 / 1000.0)
        ORDER BY e.id LIMIT $3`,
      [vendors.replication, olderThanMs, limit],
    );
    return rows.map(toPending);
  }

  /** Runs that should be going on, and were not heard of for a while; in order, after a given one. */
  async open(options: { readonly quietMs: number; readonly after: number; readonly limit: number }): Promise<OpenRun[]> {
    const { rows } = await this.#database.query<OpenRow>(
      `SELECT e.id, e.status, e.updated_at, r.policy_id, e.workflow_id, e.run_id
         FROM open_executions o JOIN executions e ON e.id = o.execution_id JOIN replication_runs r ON r.execution_id = e.id
        WHERE o.vendor = $1 AND o.execution_id > $2 AND e.ended_at IS NULL AND e.run_id IS NOT NULL
          AND e.updated_at < now() - make_interval(secs => $3 / 1000.0)
        ORDER BY e.id LIMIT $4`,
      [vendors.replication, options.after, options.quietMs, options.limit],
    );
    return rows.map(toOpen);
  }

  /** Stopped ones whose workflow could not be told. */
  async cancelling(limit: number): Promise<OpenRun[]> {
    const { rows } = await this.#database.query<OpenRow>(
      `SELECT e.id, e.status, e.updated_at, r.policy_id, e.workflow_id, e.run_id FROM executions e JOIN replication_runs r ON r.execution_id = e.id
        WHERE r.cancelling AND e.run_id IS NOT NULL ORDER BY e.id LIMIT $1`,
      [limit],
    );
    return rows.map(toOpen);
  }

  async setCancelling(executionId: number, cancelling: boolean): Promise<void> {
    await this.#database.query("UPDATE replication_runs SET cancelling = $2 WHERE execution_id = $1 AND cancelling <> $2", [
      executionId,
      cancelling,
    ]);
  }

  /** A start that found another one waiting already leaves nothing behind. */
  async discard(executionId: number): Promise<void> {
    await this.#database.query("DELETE FROM executions WHERE id = $1 AND status = 'Pending' AND run_id IS NULL", [executionId]);
  }

  /** False when it had ended before. Execution first: whoever adds or reports later sees that it is over. */
  async stop(executionId: number, message: string): Promise<boolean> {
    return await this.#database.transaction(async (tx) => {
      const ended = await tx.query(
        `UPDATE executions SET status = 'Stopped', status_message = $2, pinned = true, ended_at = now(), updated_at = now(),
                revision = revision + 1
          WHERE id = $1 AND ended_at IS NULL`,
        [executionId, message],
      );
      if (ended.rowCount === 0) return false;
      await tx.query("UPDATE replication_runs SET queued = false, cancelling = true WHERE execution_id = $1", [executionId]);
      await endTasks(tx, executionId, { status: "Stopped", message });
      return true;
    });
  }

  /** Ends what a run that could not go on has left open. */
  async endOpen(executionId: number, end: { readonly status: "Stopped" | "Error"; readonly message: string }): Promise<void> {
    await this.#database.transaction((tx) => endTasks(tx, executionId, end));
  }

  /** Ends what stayed open under executions that ended within the last hours; how many of these there were. */
  async endLeftOpen(limit: number): Promise<number> {
    const { rows } = await this.#database.query<{ id: number; status: "Stopped" | "Error" }>(
      `SELECT e.id, CASE e.status WHEN 'Stopped' THEN 'Stopped' ELSE 'Error' END AS status FROM executions e
        WHERE e.vendor = $1 AND e.ended_at > now() - interval '6 hours' AND EXISTS (
          SELECT 1 FROM tasks t WHERE t.execution_id = e.id AND (task_status_rank(t.status) < 3 OR t.retry_at IS NOT NULL))
        LIMIT $2`,
      [vendors.replication, limit],
    );
    for (const { id, status } of rows) await this.endOpen(id, { status, message: "the execution was over already" });
    return rows.length;
  }

  /** Gives up some tasks of a run that goes on. */
  async failTasks(taskIds: readonly number[], revision: number, message: string): Promise<void> {
    await this.#database.transaction(async (tx) => {
      await tx.query(
        `UPDATE tasks SET status = 'Error', status_revision = greatest(status_revision, $2), status_message = left($3, 2000), retry_at = NULL,
                updated_at = now(), started_at = coalesce(started_at, now()), ended_at = now()
          WHERE id = ANY ($1) AND (task_status_rank(status) < 3 OR retry_at IS NOT NULL)`,
        [taskIds, revision, message],
      );
      await tx.query(
        `UPDATE replication_items SET status = 'Error', reason = 'failed', message = left($2, 500), updated_at = now()
          WHERE task_id = ANY ($1) AND status = 'Pending'`,
        [taskIds, message],
      );
    });
  }

  /** Running to Paused and back; false when it is in another state. */
  async setPaused(executionId: number, paused: boolean): Promise<boolean> {
    const [from, to] = paused ? ["Running", "Paused"] : ["Paused", "Running"];
    const result = await this.#database.query(
      "UPDATE executions SET status = $3, updated_at = now(), revision = revision + 1 WHERE id = $1 AND status = $2 AND ended_at IS NULL",
      [executionId, from, to],
    );
    return result.rowCount === 1;
  }

  /** Of the given executions those that are over. */
  async ended(executionIds: readonly number[]): Promise<Set<number>> {
    const { rows } = await this.#database.query<{ id: number }>(
      `SELECT wanted.id FROM unnest($1::bigint[]) AS wanted (id) LEFT JOIN executions e ON e.id = wanted.id
        WHERE e.id IS NULL OR e.ended_at IS NOT NULL`,
      [executionIds],
    );
    return new Set(rows.map((row) => row.id));
  }

  /** Whether anything of it can be tried again by itself; a run that failed before it had items is tried as a whole. */
  async unfinishedItems(executionId: number): Promise<{ readonly items: number; readonly unfinished: number }> {
    const { rows } = await this.#database.query<{ items: number; unfinished: number }>(
      `SELECT count(*) AS items, count(*) FILTER (WHERE status IN ('Pending', 'Error', 'Stopped')) AS unfinished
         FROM replication_items WHERE execution_id = $1`,
      [executionId],
    );
    return rows[0] ?? { items: 0, unfinished: 0 };
  }

  /** Policies for which a run waits although none is going on. */
  async policiesWithoutActive(limit: number): Promise<number[]> {
    const { rows } = await this.#database.query<{ policy_id: number }>(
      `SELECT r.policy_id FROM replication_runs r
        WHERE r.queued AND NOT EXISTS (
          SELECT 1 FROM replication_runs a JOIN executions e ON e.id = a.execution_id
           WHERE a.policy_id = r.policy_id AND a.kind = 'copy' AND NOT a.queued AND e.ended_at IS NULL)
        LIMIT $1`,
      [limit],
    );
    return rows.map((row) => row.policy_id);
  }
}

async function endTasks(
  tx: Queryable,
  executionId: number,
  { status, message }: { readonly status: "Stopped" | "Error"; readonly message: string },
): Promise<void> {
  await tx.query(
    `UPDATE tasks SET status = $2, status_message = left($3, 2000), retry_at = NULL, updated_at = now(), ended_at = now()
      WHERE execution_id = $1 AND (task_status_rank(status) < 3 OR retry_at IS NOT NULL)`,
    [executionId, status, message],
  );
  const item = status === "Stopped" ? STOPPED_ITEM : `status = 'Error', reason = 'failed', updated_at = now()`;
  await tx.query(`UPDATE replication_items SET ${item}, message = left($2, 500) WHERE execution_id = $1 AND status = 'Pending'`, [
    executionId,
    message,
  ]);
}

interface PendingRow {
  id: number;
  trigger: ExecutionTrigger;
  policy_id: number;
  kind: RunKind;
}

function toPending(row: PendingRow): PendingRun {
  return { executionId: row.id, policyId: row.policy_id, kind: row.kind, trigger: row.trigger };
}

interface OpenRow {
  id: number;
  status: string;
  updated_at: Date;
  policy_id: number;
  workflow_id: string;
  run_id: string;
}

function toOpen(row: OpenRow): OpenRun {
  return {
    executionId: row.id,
    policyId: row.policy_id,
    status: row.status,
    updatedAt: row.updated_at,
    workflowId: row.workflow_id,
    runId: row.run_id,
  };
}
