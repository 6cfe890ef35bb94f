/**
 * What people and programs see of runs: an execution with its figures, its destinations and its tasks, read in one or two statements
 * whatever the page holds. Counts of a list are the stored ones; only a single run is counted by destination.
 */
import { ListSql } from "../auth/list-query.ts";
import type { Columns, Listed, ListQuery } from "../auth/list-query.ts";
import type { Queryable } from "../db/pool.ts";
import { toExecution } from "../execution/execution-store.ts";
import type { Execution, ExecutionRow } from "../execution/execution-store.ts";
import { vendors } from "../execution/plan/status.ts";
import type { ExecutionStatus, ExecutionTrigger, TaskStatus } from "../execution/plan/status.ts";
import { toTask } from "../execution/task-store.ts";
import type { Task, TaskRow } from "../execution/task-store.ts";
import type { ItemAction, ItemStatus } from "./plan/item.ts";
import { toRun } from "./run-store.ts";
import type { Run, RunRow } from "./run-store.ts";

export interface RunSummary {
  readonly execution: Execution;
  readonly run: Run | null;
}

export interface ItemCount {
  readonly position: number;
  readonly action: ItemAction;
  readonly status: ItemStatus;
  readonly count: number;
  readonly bytesCopied: number;
}

export interface DestinationView {
  readonly position: number;
  readonly registryId: number;
  /** Null when the registry is gone. */
  readonly registryName: string | null;
  readonly total: number;
  readonly pending: number;
  readonly running: number;
  readonly waiting: number;
  readonly failed: number;
  readonly stopped: number;
  readonly succeeded: number;
}

export interface RunDetail extends RunSummary {
  readonly destinations: readonly DestinationView[];
  readonly items: readonly ItemCount[];
  /** By the database's clock, as all other times of the run. */
  readonly readAt: Date;
}

export interface RunListQuery extends Pick<ListQuery, "sort" | "page" | "pageSize"> {
  readonly policyId?: number;
  /** Null: a word that means no state, so that nothing matches. */
  readonly statuses?: readonly ExecutionStatus[];
  readonly triggers?: readonly ExecutionTrigger[];
}

export interface TaskFilter {
  readonly statuses: readonly TaskStatus[];
  /** Of failed tasks: those that wait for another attempt, those that do not, or both. */
  readonly waiting: boolean | null;
}

export interface TaskListQuery extends Pick<ListQuery, "sort" | "page" | "pageSize"> {
  readonly executionId: number;
  /** Any of these. */
  readonly anyOf?: readonly TaskFilter[];
  readonly resourceType?: string;
}

const START = "coalesce(e.started_at, e.created_at)";
const START_COLUMN = { sql: START, type: "time" } as const;
const END_COLUMN = { sql: "e.ended_at", type: "time" } as const;
const POLICY_COLUMN = { sql: "e.vendor_id", type: "number" } as const;

/** By the names of the API and those of Harbor's model, which clients sort by too. */
const EXECUTION_COLUMNS: Columns = {
  id: { sql: "e.id", type: "number" },
  policy_id: POLICY_COLUMN,
  policyid: POLICY_COLUMN,
  vendor_id: POLICY_COLUMN,
  status: { sql: "e.status", type: "text" },
  trigger: { sql: "e.trigger", type: "text" },
  start_time: START_COLUMN,
  starttime: START_COLUMN,
  end_time: END_COLUMN,
  endtime: END_COLUMN,
  update_time: { sql: "e.updated_at", type: "time" },
  creation_time: { sql: "e.created_at", type: "time" },
};

const TASK_COLUMNS: Columns = {
  id: { sql: "t.id", type: "number" },
  status: { sql: "t.status", type: "text" },
  start_time: { sql: "t.started_at", type: "time" },
  starttime: { sql: "t.started_at", type: "time" },
  end_time: { sql: "t.ended_at", type: "time" },
  endtime: { sql: "t.ended_at", type: "time" },
  update_time: { sql: "t.updated_at", type: "time" },
  creation_time: { sql: "t.created_at", type: "time" },
  run_count: { sql: "t.run_count", type: "number" },
};

export class RunView {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  async list(query: RunListQuery): Promise<Listed<RunSummary>> {
    const sql = new ListSql(EXECUTION_COLUMNS).where(`e.vendor = '${vendors.replication}'`);
    if (query.policyId !== undefined) sql.where("e.vendor_id = ?", query.policyId);
    if (query.statuses) sql.where("e.status = ANY (?)", query.statuses);
    if (query.triggers) sql.where("e.trigger = ANY (?)", query.triggers);
    const { whereSql } = sql;
    const counted = await this.#db.query<{ count: number }>(`SELECT count(*) AS count FROM executions e ${whereSql}`, sql.values);
    const page = sql.pageSql(query);
    const { rows } = await this.#db.query<SummaryRow>(
      `SELECT e.*, to_jsonb(r) AS run FROM executions e LEFT JOIN replication_runs r ON r.execution_id = e.id ${whereSql}
       ${sql.orderSql(query.sort, `${START} DESC, e.id DESC`)} ${page}`,
      sql.values,
    );
    return { rows: rows.map(toSummary), total: counted.rows[0]?.count ?? 0 };
  }

  async summary(executionId: number): Promise<RunSummary | null> {
    const { rows } = await this.#db.query<SummaryRow>(
      `SELECT e.*, to_jsonb(r) AS run FROM executions e LEFT JOIN replication_runs r ON r.execution_id = e.id
        WHERE e.id = $1 AND e.vendor = '${vendors.replication}'`,
      [executionId],
    );
    return rows[0] ? toSummary(rows[0]) : null;
  }

  /** One statement, so that status, counts and figures are of one moment. */
  async find(executionId: number): Promise<RunDetail | null> {
    const { rows } = await this.#db.query<DetailRow>(DETAIL_SQL, [executionId]);
    const row = rows[0];
    return row ? { ...toSummary(row), destinations: row.destinations, items: row.items, readAt: row.read_at } : null;
  }

  async tasks(query: TaskListQuery): Promise<Listed<Task>> {
    const sql = new ListSql(TASK_COLUMNS).where("t.execution_id = ?", query.executionId);
    if (query.anyOf) {
      const parts = query.anyOf.map(({ waiting }) => `t.status = ANY (?)${waitingSql(waiting)}`);
      sql.where(`(${parts.join(" OR ") || "false"})`, ...query.anyOf.map(({ statuses }) => statuses));
    }
    if (query.resourceType !== undefined) sql.where("t.extra_attrs ->> 'resource_type' = ?", query.resourceType);
    const { whereSql } = sql;
    const counted = await this.#db.query<{ count: number }>(`SELECT count(*) AS count FROM tasks t ${whereSql}`, sql.values);
    const page = sql.pageSql(query);
    const { rows } = await this.#db.query<TaskRow>(
      `SELECT t.* FROM tasks t ${whereSql} ${sql.orderSql(query.sort, "t.started_at DESC, t.id DESC")} ${page}`,
      sql.values,
    );
    return { rows: rows.map(toTask), total: counted.rows[0]?.count ?? 0 };
  }

  /** The execution that a task belongs to; null when there is no such task of a replication. */
  async executionOf(taskId: number): Promise<number | null> {
    const { rows } = await this.#db.query<{ execution_id: number }>(
      `SELECT t.execution_id FROM tasks t JOIN executions e ON e.id = t.execution_id WHERE t.id = $1 AND e.vendor = '${vendors.replication}'`,
      [taskId],
    );
    return rows[0]?.execution_id ?? null;
  }
}

function waitingSql(waiting: boolean | null): string {
  return waiting === null ? "" : ` AND t.retry_at IS ${waiting ? "NOT NULL" : "NULL"}`;
}

/** A destination of the policy is shown before it has tasks, and one that left the policy as long as it has some. */
const DETAIL_SQL = `
WITH t AS (
  SELECT id, status, retry_at, coalesce((extra_attrs ->> 'destination')::integer, 0) AS position,
         coalesce((extra_attrs ->> 'target_registry_id')::bigint, 0) AS registry_id
    FROM tasks WHERE execution_id = $1
), counted AS (
  SELECT position, registry_id, count(*) AS total,
         count(*) FILTER (WHERE status IN ('Pending', 'Scheduled')) AS pending,
         count(*) FILTER (WHERE status = 'Running') AS running,
         count(*) FILTER (WHERE status = 'Error' AND retry_at IS NOT NULL) AS waiting,
         count(*) FILTER (WHERE status = 'Error' AND retry_at IS NULL) AS failed,
         count(*) FILTER (WHERE status = 'Stopped') AS stopped,
         count(*) FILTER (WHERE status = 'Success') AS succeeded
    FROM t GROUP BY position, registry_id
), named AS (
  SELECT coalesce(c.position, d.position) AS position, coalesce(c.registry_id, d.registry_id, 0) AS registry_id,
         coalesce(c.total, 0) AS total, coalesce(c.pending, 0) AS pending, coalesce(c.running, 0) AS running,
         coalesce(c.waiting, 0) AS waiting, coalesce(c.failed, 0) AS failed, coalesce(c.stopped, 0) AS stopped,
         coalesce(c.succeeded, 0) AS succeeded
    FROM counted c
    FULL JOIN (SELECT d.position::integer, d.registry_id FROM replication_destinations d JOIN executions e ON e.vendor_id = d.policy_id WHERE e.id = $1) d
      ON d.position = c.position AND coalesce(d.registry_id, 0) = c.registry_id
), shown AS (
  SELECT n.*, CASE WHEN n.registry_id = 0 THEN 'Local' ELSE g.name END AS name FROM named n LEFT JOIN registries g ON g.id = n.registry_id
), by_task AS (
  SELECT task_id, action, status, count(*) AS count, sum(bytes_copied) AS bytes
    FROM replication_items WHERE execution_id = $1 GROUP BY task_id, action, status
), items AS (
  SELECT t.position, i.action, i.status, sum(i.count)::bigint AS count, sum(i.bytes)::bigint AS bytes
    FROM by_task i JOIN t ON t.id = i.task_id GROUP BY 1, 2, 3
)
SELECT e.*, to_jsonb(r) AS run, now() AS read_at,
       coalesce((SELECT jsonb_agg(jsonb_build_object('position', position, 'registryId', registry_id, 'registryName', name, 'total', total,
                        'pending', pending, 'running', running, 'waiting', waiting, 'failed', failed, 'stopped', stopped, 'succeeded', succeeded)
                        ORDER BY position, registry_id) FROM shown), '[]') AS destinations,
       coalesce((SELECT jsonb_agg(jsonb_build_object('position', position, 'action', action, 'status', status, 'count', count,
                        'bytesCopied', bytes) ORDER BY position, action, status) FROM items), '[]') AS items
  FROM executions e LEFT JOIN replication_runs r ON r.execution_id = e.id
 WHERE e.id = $1 AND e.vendor = '${vendors.replication}'`;

interface SummaryRow extends ExecutionRow {
  run: RunRow | null;
}

interface DetailRow extends SummaryRow {
  destinations: DestinationView[];
  items: ItemCount[];
  read_at: Date;
}

function toSummary(row: SummaryRow): RunSummary {
  return { execution: toExecution(row), run: row.run ? toRun(row.run) : null };
}
