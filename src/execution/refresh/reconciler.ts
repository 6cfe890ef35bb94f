/**
 * What marks and sweeps cannot see: open executions whose tasks are all final are marked, those whose run is closed are ended with the reason, the queue
 * is filled again from the database, and executions that were set aside get another try.
 */
import type { Queryable } from "../../db/pool.ts";
import type { ExecutionStore } from "../execution-store.ts";
import type { Marked } from "../plan/slots.ts";
import type { FinalTaskStatus } from "../plan/status.ts";
import type { TaskStore } from "../task-store.ts";
import type { RefreshQueue } from "./refresh-queue.ts";
import type { RefreshStore } from "./refresh-store.ts";

export interface ClosedRun {
  readonly status: Exclude<FinalTaskStatus, "Success">;
  readonly reason: string;
}

/** Null while the run is open. */
export type FindClosedRun = (workflowId: string, firstRunId: string, signal: AbortSignal) => Promise<ClosedRun | null>;

export interface ReconcilerOptions {
  readonly database: Queryable;
  readonly executions: Pick<ExecutionStore, "end" | "settle">;
  readonly tasks: Pick<TaskStore, "endOpen">;
  readonly store: Pick<RefreshStore, "listOverdue" | "release">;
  readonly queue: Pick<RefreshQueue, "mark">;
  readonly findClosedRun: FindClosedRun;
}

export interface ReconcileStep {
  /** Executions that were marked, or given another try. */
  readonly marked: number;
  /** Executions that were ended. */
  readonly ended: number;
  /** Null after the last. */
  readonly next: string | null;
}

export type ReconcilePart = "notes" | "runs";

export interface StepOptions {
  readonly after: string | null;
  readonly limit: number;
  /** How long an execution was set aside before it is tried again. */
  readonly asideMs: number;
}

const OPEN = `SELECT e.id, e.vendor, e.workflow_id AS "workflowId", e.run_id AS "runId",
  e.updated_at < now() - $3 * interval '1 millisecond' AS quiet,
  e.planned_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM tasks t WHERE t.execution_id = e.id AND (task_status_rank(t.status) < 3 OR t.retry_at IS NOT NULL)) AS finished
  FROM open_executions o JOIN executions e ON e.id = o.execution_id
 WHERE e.ended_at IS NULL AND o.execution_id > $1 ORDER BY o.execution_id LIMIT $2`;

/** The last activity of a run may be about to tell its end. */
const QUIET_MS = 60_000;
const RUNS_AT_ONCE = 10;

interface OpenExecution extends Marked {
  readonly workflowId: string | null;
  readonly runId: string | null;
  readonly quiet: boolean;
  readonly finished: boolean;
}

export class ExecutionReconciler {
  readonly #options: ReconcilerOptions;
  readonly #quietMs: number;

  constructor(options: ReconcilerOptions, quietMs = QUIET_MS) {
    this.#options = options;
    this.#quietMs = quietMs;
  }

  async step(part: ReconcilePart, options: StepOptions, signal: AbortSignal): Promise<ReconcileStep> {
    return part === "notes" ? this.#markNoted(options) : this.#lookAtOpen(options, signal);
  }

  /** Every execution with a change that was not looked at: the whole content of the queue. */
  async #markNoted({ after, limit, asideMs }: StepOptions): Promise<ReconcileStep> {
    const { store, queue } = this.#options;
    if (after === null) await store.release(asideMs);
    const page = await store.listOverdue({ olderThanMs: 0, limit, after: Number(after ?? 0) });
    const marked = await queue.mark(page.marked.map((one) => ({ ...one, urgent: false })));
    return { marked, ended: 0, next: page.next === null ? null : String(page.next) };
  }

  async #lookAtOpen({ after, limit }: StepOptions, signal: AbortSignal): Promise<ReconcileStep> {
    const { rows } = await this.#options.database.query<OpenExecution>(OPEN, [Number(after ?? 0), limit, this.#quietMs]);
    const finished = rows.filter((row) => row.finished);
    const marked = await this.#options.queue.mark(finished.map((row) => ({ id: row.id, vendor: row.vendor, urgent: true })));
    const unsure = rows.filter((row) => row.quiet && !row.finished);
    let ended = 0;
    for (let start = 0; start < unsure.length; start += RUNS_AT_ONCE) {
      signal.throwIfAborted();
      const some = unsure.slice(start, start + RUNS_AT_ONCE);
      const outcomes = await Promise.all(some.map((execution) => this.#endIfClosed(execution, signal)));
      ended += outcomes.filter(Boolean).length;
    }
    const last = rows.length < limit ? undefined : rows.at(-1);
    return { marked, ended, next: last ? String(last.id) : null };
  }

  async #endIfClosed({ id, workflowId, runId }: OpenExecution, signal: AbortSignal): Promise<boolean> {
    if (workflowId === null || runId === null) return false;
    const closed = await this.#options.findClosedRun(workflowId, runId, signal);
    if (closed === null) return false;
    const { executions, tasks } = this.#options;
    // The execution first: its own run, if it tells its end just now, was the quicker one and is right.
    const ended = await executions.end(id, closed.status, closed.reason);
    if (ended === null) return false;
    await tasks.endOpen(id, closed.status, closed.reason);
    await executions.settle([id]);
    return true;
  }
}
