/** Tasks in Postgres. The database notes every change in task_changes, so that a settlement that was missed is found by the sweep. */
import type { Queryable } from "../db/pool.ts";
import { clip } from "./execution-store.ts";
import type { TaskStatus } from "./plan/status.ts";

export interface Task {
  readonly id: number;
  readonly executionId: number;
  readonly key: string;
  readonly status: TaskStatus;
  readonly statusRevision: number;
  readonly statusMessage: string;
  readonly runCount: number;
  readonly retryAt: Date | null;
  readonly extraAttrs: Readonly<Record<string, unknown>>;
  readonly createdAt: Date;
  readonly startedAt: Date | null;
  readonly updatedAt: Date;
  readonly endedAt: Date | null;
}

export interface NewTask {
  readonly key: string;
  readonly extraAttrs?: Readonly<Record<string, unknown>>;
}

export interface TaskChange {
  readonly status: TaskStatus;
  /** The attempt that the news is about; equal for the states of one attempt. */
  readonly revision: number;
  readonly message?: string;
  /** With status Error: when it is tried again. */
  readonly retryAt?: Date | null;
  readonly extraAttrs?: Readonly<Record<string, unknown>>;
}

export class TaskStore {
  readonly #database: Queryable;

  constructor(database: Queryable) {
    this.#database = database;
  }

  /** Adds what is missing while the execution is being planned; returns how many were added. */
  async add(executionId: number, tasks: readonly NewTask[]): Promise<number> {
    const result = await this.#database.query(
      `INSERT INTO tasks (execution_id, key, extra_attrs)
       SELECT e.id, t.key, coalesce(t.attrs, '{}') FROM executions e, jsonb_to_recordset($2::jsonb) AS t(key text, attrs jsonb)
        WHERE e.id = $1 AND e.planned_at IS NULL AND e.ended_at IS NULL
       ON CONFLICT (execution_id, key) DO NOTHING`,
      [executionId, JSON.stringify(tasks.map((task) => ({ key: task.key, attrs: task.extraAttrs ?? {} })))],
    );
    return result.rowCount ?? 0;
  }

  /**
   * Accepted when the news is of a newer attempt, or of the same attempt and a later state. A newer attempt counts as a run and may
   * make an ended task open again. False when it was refused.
   */
  async update(executionId: number, key: string, change: TaskChange): Promise<boolean> {
    const result = await this.#database.query(
      `UPDATE tasks
          SET status = $3, status_revision = $4, status_message = $5, retry_at = $6, extra_attrs = extra_attrs || $7::jsonb, updated_at = now(),
              run_count = run_count + CASE WHEN status_revision < $4 THEN 1 ELSE 0 END,
              started_at = CASE
                WHEN status_revision < $4 OR started_at IS NULL THEN CASE WHEN task_status_rank($3) >= 2 THEN now() END
                ELSE started_at END,
              ended_at = CASE WHEN task_status_rank($3) = 3 THEN now() END
        WHERE execution_id = $1 AND key = $2
          AND (status_revision < $4 OR (status_revision = $4 AND task_status_rank(status) < task_status_rank($3)))`,
      [
        executionId,
        key,
        change.status,
        change.revision,
        clip(change.message ?? ""),
        change.status === "Error" ? (change.retryAt ?? null) : null,
        JSON.stringify(change.extraAttrs ?? {}),
      ],
    );
    return result.rowCount === 1;
  }

  /** As `update`, for many tasks in one statement; returns the keys of those that took the news. */
  async updateMany(executionId: number, changes: readonly (TaskChange & { readonly key: string })[]): Promise<string[]> {
    if (changes.length === 0) return [];
    const { rows } = await this.#database.query<{ key: string }>(
      `UPDATE tasks t
          SET status = c.status, status_revision = c.revision, status_message = c.message, retry_at = c."retryAt",
              extra_attrs = t.extra_attrs || c.attrs, updated_at = now(),
              run_count = t.run_count + CASE WHEN t.status_revision < c.revision THEN 1 ELSE 0 END,
              started_at = CASE
                WHEN t.status_revision < c.revision OR t.started_at IS NULL THEN CASE WHEN task_status_rank(c.status) >= 2 THEN now() END
                ELSE t.started_at END,
              ended_at = CASE WHEN task_status_rank(c.status) = 3 THEN now() END
         FROM jsonb_to_recordset($2::jsonb)
              AS c (key text, status text, revision bigint, message text, "retryAt" timestamptz, attrs jsonb)
        WHERE t.execution_id = $1 AND t.key = c.key
          AND (t.status_revision < c.revision
               OR (t.status_revision = c.revision AND task_status_rank(t.status) < task_status_rank(c.status)))
       RETURNING t.key`,
      [
        executionId,
        JSON.stringify(
          changes.map(({ key, status, revision, message, retryAt, extraAttrs }) => ({
            key,
            status,
            revision,
            message: clip(message ?? ""),
            retryAt: status === "Error" ? (retryAt ?? null) : null,
            attrs: extraAttrs ?? {},
          })),
        ),
      ],
    );
    return rows.map((row) => row.key);
  }

  /** Ends every open task, when their run itself was ended; tasks that wait for a retry are open. */
  async endOpen(executionId: number, status: "Stopped" | "Error", message: string): Promise<number> {
    const result = await this.#database.query(
      `UPDATE tasks SET status = $2, status_message = $3, retry_at = NULL, updated_at = now(), ended_at = now()
        WHERE execution_id = $1 AND (task_status_rank(status) < 3 OR retry_at IS NOT NULL)`,
      [executionId, status, clip(message)],
    );
    return result.rowCount ?? 0;
  }

  /** Figures of a running task; its status stays. */
  async setAttrs(executionId: number, key: string, attrs: Readonly<Record<string, unknown>>): Promise<boolean> {
    const result = await this.#database.query(
      "UPDATE tasks SET extra_attrs = extra_attrs || $3::jsonb, updated_at = now() WHERE execution_id = $1 AND key = $2",
      [executionId, key, JSON.stringify(attrs)],
    );
    return result.rowCount === 1;
  }

  async list(executionId: number, options: { after?: number; limit: number }): Promise<Task[]> {
    const result = await this.#database.query<TaskRow>("SELECT * FROM tasks WHERE execution_id = $1 AND id > $2 ORDER BY id LIMIT $3", [
      executionId,
      options.after ?? 0,
      options.limit,
    ]);
    return result.rows.map(toTask);
  }
}

export interface TaskRow {
  id: number;
  execution_id: number;
  key: string;
  status: TaskStatus;
  status_revision: number;
  status_message: string;
  run_count: number;
  retry_at: Date | null;
  extra_attrs: Record<string, unknown>;
  created_at: Date;
  started_at: Date | null;
  updated_at: Date;
  ended_at: Date | null;
}

export function toTask(row: TaskRow): Task {
  return {
    id: row.id,
    executionId: row.execution_id,
    key: row.key,
    status: row.status,
    statusRevision: row.status_revision,
    statusMessage: row.status_message,
    runCount: row.run_count,
    retryAt: row.retry_at,
    extraAttrs: row.extra_attrs,
    createdAt: row.created_at,
    startedAt: row.started_at,
    updatedAt: row.updated_at,
    endedAt: row.ended_at,
  };
}
