/**
 * Executions in Postgres. Every change carries its guard in the statement; what tasks say about their execution is decided by
 * settle_executions alone.
 */
import type { Queryable } from "../db/pool.ts";
import type { ExecutionStatus, ExecutionTrigger, FinalExecutionStatus } from "./plan/status.ts";

export interface TaskCounts {
  readonly total: number;
  readonly pending: number;
  readonly running: number;
  /** Failed, and planned to be tried again. */
  readonly waiting: number;
  readonly failed: number;
  readonly stopped: number;
  readonly succeeded: number;
}

export interface Execution {
  readonly id: number;
  readonly vendor: string;
  readonly vendorId: number | null;
  readonly status: ExecutionStatus;
  readonly statusMessage: string;
  readonly trigger: ExecutionTrigger;
  readonly plannedAt: Date | null;
  readonly tasks: TaskCounts;
  readonly extraAttrs: Readonly<Record<string, unknown>>;
  readonly workflowId: string | null;
  readonly runId: string | null;
  readonly revision: number;
  readonly createdAt: Date;
  readonly startedAt: Date | null;
  readonly updatedAt: Date;
  readonly endedAt: Date | null;
}

export interface NewExecution {
  readonly vendor: string;
  readonly vendorId?: number;
  readonly trigger: ExecutionTrigger;
  readonly extraAttrs?: Readonly<Record<string, unknown>>;
}

export interface RunIdentity {
  readonly workflowId: string;
  /** The first run of the chain, which continuing as new does not change. */
  readonly runId: string;
}

export interface ExecutionQuery {
  readonly vendor?: string;
  readonly vendorId?: number;
  readonly workflowId?: string;
  readonly statuses?: readonly ExecutionStatus[];
  /** Executions before this id, newest first. */
  readonly before?: number;
  readonly limit: number;
}

export class ExecutionStore {
  readonly #database: Queryable;

  constructor(database: Queryable) {
    this.#database = database;
  }

  /** A Pending row, written before the run that it is for is started. */
  async create(execution: NewExecution, workflowId: string | null = null): Promise<Execution> {
    const result = await this.#database.query<ExecutionRow>(
      `INSERT INTO executions (vendor, vendor_id, trigger, extra_attrs, workflow_id) VALUES ($1, $2, $3, $4, $5) RETURNING *`,
      [execution.vendor, execution.vendorId ?? null, execution.trigger, JSON.stringify(execution.extraAttrs ?? {}), workflowId],
    );
    return only(result.rows);
  }

  /**
   * The Running row of a run: made when missing, found again when the run's first activity is repeated. Rows of earlier runs under the same
   * workflow id that never ended are ended: only one run of an id can be open, so theirs is not.
   */
  async openForRun(run: RunIdentity, execution: NewExecution): Promise<Execution> {
    await this.#endAbandoned(run, execution.vendor);
    const result = await this.#database.query<ExecutionRow>(
      `INSERT INTO executions (vendor, vendor_id, trigger, extra_attrs, workflow_id, run_id, status, started_at)
       VALUES ($1, $2, $3, $4, $5, $6, 'Running', now())
       ON CONFLICT (workflow_id, run_id) WHERE run_id IS NOT NULL DO UPDATE SET workflow_id = excluded.workflow_id
       RETURNING *`,
      [
        execution.vendor,
        execution.vendorId ?? null,
        execution.trigger,
        JSON.stringify(execution.extraAttrs ?? {}),
        run.workflowId,
        run.runId,
      ],
    );
    return only(result.rows);
  }

  /** Gives a Pending row to the run that was started for it; null when the row was ended or belongs to another run. */
  async adopt(id: number, run: RunIdentity): Promise<Execution | null> {
    const result = await this.#database.query<ExecutionRow>(
      `UPDATE executions
          SET workflow_id = $2, run_id = $3, status = CASE status WHEN 'Paused' THEN 'Paused' ELSE 'Running' END, started_at = coalesce(started_at, now()), updated_at = now(),
              revision = revision + CASE WHEN run_id IS NULL THEN 1 ELSE 0 END
        WHERE id = $1 AND ended_at IS NULL AND (run_id IS NULL OR (workflow_id = $2 AND run_id = $3))
       RETURNING *`,
      [id, run.workflowId, run.runId],
    );
    return first(result.rows);
  }

  async find(id: number): Promise<Execution | null> {
    return first((await this.#database.query<ExecutionRow>("SELECT * FROM executions WHERE id = $1", [id])).rows);
  }

  async findByRun(run: RunIdentity): Promise<Execution | null> {
    const sql = "SELECT * FROM executions WHERE workflow_id = $1 AND run_id = $2";
    return first((await this.#database.query<ExecutionRow>(sql, [run.workflowId, run.runId])).rows);
  }

  async list(query: ExecutionQuery): Promise<Execution[]> {
    const result = await this.#database.query<ExecutionRow>(
      `SELECT * FROM executions
        WHERE ($1::text IS NULL OR vendor = $1) AND ($2::bigint IS NULL OR vendor_id = $2) AND ($3::text IS NULL OR workflow_id = $3)
          AND ($4::text[] IS NULL OR status = ANY ($4)) AND ($5::bigint IS NULL OR id < $5)
        ORDER BY id DESC LIMIT $6`,
      [query.vendor ?? null, query.vendorId ?? null, query.workflowId ?? null, query.statuses ?? null, query.before ?? null, query.limit],
    );
    return result.rows.map(toExecution);
  }

  /** No task is added from here on. An execution whose plan turned out empty succeeds at once, with the text; any other is settled by the caller. */
  async completePlanning(id: number, emptyText = ""): Promise<Execution | null> {
    const result = await this.#database.query<ExecutionRow>(
      `UPDATE executions e
          SET planned_at = now(), updated_at = now(), revision = revision + 1,
              status = CASE WHEN empty.yes THEN 'Success' ELSE e.status END,
              status_message = CASE WHEN empty.yes THEN $2 ELSE e.status_message END,
              started_at = CASE WHEN empty.yes THEN coalesce(e.started_at, now()) ELSE e.started_at END,
              ended_at = CASE WHEN empty.yes THEN now() ELSE e.ended_at END
         FROM (SELECT NOT EXISTS (SELECT 1 FROM tasks WHERE execution_id = $1) AS yes) empty
        WHERE e.id = $1 AND e.planned_at IS NULL AND e.ended_at IS NULL
       RETURNING e.*`,
      [id, emptyText],
    );
    return first(result.rows);
  }

  /** Brings status and counters in line with the tasks; returns only what changed. */
  async settle(ids: readonly number[]): Promise<Execution[]> {
    if (ids.length === 0) return [];
    const result = await this.#database.query<ExecutionRow>("SELECT * FROM settle_executions($1)", [ids]);
    return result.rows.map(toExecution);
  }

  /** Ends an execution by decision instead of by its tasks. Null when it had ended before. */
  async end(id: number, status: FinalExecutionStatus, message: string): Promise<Execution | null> {
    const result = await this.#database.query<ExecutionRow>(
      `UPDATE executions
          SET status = $2, status_message = $3, pinned = true, ended_at = now(), updated_at = now(), revision = revision + 1
        WHERE id = $1 AND ended_at IS NULL
       RETURNING *`,
      [id, status, clip(message)],
    );
    return first(result.rows);
  }

  /** Makes a final execution open again, for a retry that somebody asked for. Null when it is open. */
  async reopen(id: number): Promise<Execution | null> {
    const result = await this.#database.query<ExecutionRow>(
      `UPDATE executions
          SET status = 'Running', status_message = '', pinned = false, planned_at = NULL, ended_at = NULL, updated_at = now(),
              revision = revision + 1
        WHERE id = $1 AND ended_at IS NOT NULL
       RETURNING *`,
      [id],
    );
    return first(result.rows);
  }

  /** Replaces the named attributes and keeps the others. */
  async setAttrs(id: number, attrs: Readonly<Record<string, unknown>>): Promise<boolean> {
    const result = await this.#database.query(
      "UPDATE executions SET extra_attrs = extra_attrs || $2::jsonb, updated_at = now(), revision = revision + 1 WHERE id = $1",
      [id, JSON.stringify(attrs)],
    );
    return result.rowCount === 1;
  }

  /** Executions with task changes that no settlement has seen yet, oldest first. */
  async listUnapplied(options: { olderThanMs: number; limit: number }): Promise<number[]> {
    const result = await this.#database.query<{ execution_id: number }>(
      `SELECT execution_id FROM task_changes WHERE changed_at < clock_timestamp() - make_interval(secs => $1 / 1000.0)
        GROUP BY execution_id ORDER BY min(changed_at) LIMIT $2`,
      [options.olderThanMs, options.limit],
    );
    return result.rows.map((row) => row.execution_id);
  }

  async #endAbandoned(run: RunIdentity, vendor: string): Promise<void> {
    await this.#database.query(
      `UPDATE executions
          SET status = 'Error', status_message = 'the run ended without reporting', pinned = true, ended_at = now(), updated_at = now(),
              revision = revision + 1
        WHERE vendor = $1 AND workflow_id = $2 AND run_id <> $3 AND ended_at IS NULL`,
      [vendor, run.workflowId, run.runId],
    );
  }
}

export interface ExecutionRow {
  id: number;
  vendor: string;
  vendor_id: number | null;
  status: ExecutionStatus;
  status_message: string;
  trigger: ExecutionTrigger;
  planned_at: Date | null;
  tasks_total: number;
  tasks_pending: number;
  tasks_running: number;
  tasks_waiting: number;
  tasks_failed: number;
  tasks_stopped: number;
  tasks_succeeded: number;
  extra_attrs: Record<string, unknown>;
  workflow_id: string | null;
  run_id: string | null;
  revision: number;
  created_at: Date;
  started_at: Date | null;
  updated_at: Date;
  ended_at: Date | null;
}

export function toExecution(row: ExecutionRow): Execution {
  return {
    id: row.id,
    vendor: row.vendor,
    vendorId: row.vendor_id,
    status: row.status,
    statusMessage: row.status_message,
    trigger: row.trigger,
    plannedAt: row.planned_at,
    tasks: {
      total: row.tasks_total,
      pending: row.tasks_pending,
      running: row.tasks_running,
      waiting: row.tasks_waiting,
      failed: row.tasks_failed,
      stopped: row.tasks_stopped,
      succeeded: row.tasks_succeeded,
    },
    extraAttrs: row.extra_attrs,
    workflowId: row.workflow_id,
    runId: row.run_id,
    revision: row.revision,
    createdAt: row.created_at,
    startedAt: row.started_at,
    updatedAt: row.updated_at,
    endedAt: row.ended_at,
  };
}

function first(rows: readonly ExecutionRow[]): Execution | null {
  return rows[0] ? toExecution(rows[0]) : null;
}

function only(rows: readonly ExecutionRow[]): Execution {
  const row = rows[0];
  if (!row) throw new Error("the statement returned no row");
  return toExecution(row);
}

/** Messages are shown in lists; whatever is longer belongs into a log. */
const MESSAGE_LIMIT = 2_000;

export function clip(message: string): string {
  return message.length > MESSAGE_LIMIT ? `${message.slice(0, MESSAGE_LIMIT - 1)}…` : message;
}
