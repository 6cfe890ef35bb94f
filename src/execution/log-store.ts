/** Lines that executions and tasks leave for people, in Postgres, so that they live as long as what they tell of. */
import type { Queryable } from "../db/pool.ts";

export type LogLevel = "INFO" | "WARNING" | "ERROR";

export interface LogDraft {
  /** Null: of the run itself, such as its planning. */
  readonly taskId: number | null;
  readonly level: LogLevel;
  readonly line: string;
}

export interface LogLine extends LogDraft {
  readonly id: number;
  readonly at: Date;
}

const LONGEST_LINE = 2_000;

export class LogStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  async append(executionId: number, drafts: readonly LogDraft[]): Promise<void> {
    if (drafts.length === 0) return;
    await this.#db.query(
      `INSERT INTO execution_logs (execution_id, task_id, level, line)
       SELECT $1, l.task, l.level, left(l.line, ${LONGEST_LINE})
         FROM ROWS FROM (jsonb_to_recordset($2::jsonb) AS (task bigint, level text, line text)) WITH ORDINALITY AS l (task, level, line, position)
        WHERE EXISTS (SELECT 1 FROM executions WHERE id = $1) ORDER BY l.position`,
      [executionId, JSON.stringify(drafts.map(({ taskId, level, line }) => ({ task: taskId, level, line })))],
    );
  }

  /** Of one task, or of the run itself; in order, after a line. */
  async read(executionId: number, query: { taskId: number | null; after?: number; limit: number }): Promise<LogLine[]> {
    const { rows } = await this.#db.query<{ id: number; task_id: number | null; at: Date; level: LogLevel; line: string }>(
      `SELECT id, task_id, at, level, line FROM execution_logs
        WHERE execution_id = $1 AND task_id IS NOT DISTINCT FROM $2 AND id > $3 ORDER BY id LIMIT $4`,
      [executionId, query.taskId, query.after ?? 0, query.limit],
    );
    return rows.map((row) => ({ id: row.id, taskId: row.task_id, at: row.at, level: row.level, line: row.line }));
  }
}
