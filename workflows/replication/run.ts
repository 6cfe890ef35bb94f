/** The state of a run between its activities: what is planned, what is under way, what waits, whether it is paused. */
import {
  ApplicationFailure,
  CancellationScope,
  condition,
  isCancellation,
  patched,
  rootCause,
  setCurrentDetails,
  sleep,
  workflowInfo,
} from "@temporalio/workflow";
import type { RunClosed } from "../../activities/replication/planning.ts";
import { Dispatch, FORMER_WINDOW_RULES, WINDOW_RULES } from "../../src/replication/plan/dispatch.ts";
import type { Batch, DispatchState } from "../../src/replication/plan/dispatch.ts";
import type { ReplicationRequest } from "../../src/replication/plan/run.ts";
import { copyReplicationBatch, planReplication } from "./activities.ts";

export interface RunCounts {
  readonly steps: number;
  readonly planned: number;
  readonly done: number;
  readonly succeeded: number;
  readonly failed: number;
}

export interface CarriedRun {
  readonly cursor: string | null;
  readonly isPlanned: boolean;
  readonly isPaused: boolean;
  /** Planning ended with it; what was planned before is carried out all the same. */
  readonly failure: string | null;
  readonly dispatch: DispatchState;
  readonly counts: RunCounts;
}

export interface RunProgress extends RunCounts {
  readonly isPlanned: boolean;
  readonly isPaused: boolean;
  readonly inFlight: number;
  readonly waiting: number;
}

/** Then the run goes on as a new one, long before the service asks for it. */
const MOST_EVENTS = 1_000;

export class ReplicationRun {
  readonly #request: ReplicationRequest;
  readonly #dispatch: Dispatch;
  /** Those of what is under way, to be cancelled together. */
  readonly #scopes = new Set<CancellationScope>();
  #counts: RunCounts;
  #cursor: string | null;
  #isPlanned: boolean;
  #isPaused: boolean;
  #isPlanning = false;
  #isOver = false;
  #changed = true;
  #failure: string | null;
  #timerAt: number | null = null;
  /** What the books said when the last step of planning closed them too. */
  closed: RunClosed | null = null;

  constructor(request: ReplicationRequest, carried?: CarriedRun) {
    this.#request = request;
    this.#dispatch = new Dispatch(carried?.dispatch, patched("small-windows") ? WINDOW_RULES : FORMER_WINDOW_RULES);
    this.#counts = carried?.counts ?? { steps: 0, planned: 0, done: 0, succeeded: 0, failed: 0 };
    this.#cursor = carried?.cursor ?? null;
    this.#isPlanned = carried?.isPlanned ?? false;
    this.#isPaused = carried?.isPaused ?? false;
    this.#failure = carried?.failure ?? null;
  }

  /** Until everything is done, the execution is over, or the history is long. Throws what planning failed with, once all batches are back. */
  async work(): Promise<"done" | "continue"> {
    for (;;) {
      const isLong = workflowInfo().historyLength > MOST_EVENTS || workflowInfo().continueAsNewSuggested;
      if (!this.#isPaused && !this.#isOver && !isLong) this.#advance();
      if (!this.#isPlanning && this.#dispatch.inFlight === 0) {
        if (this.#isOver) return "done";
        if (this.#dispatch.isEmpty) {
          if (this.#failure !== null) throw ApplicationFailure.nonRetryable(this.#failure, "REPLICATION_FAILED");
          if (this.#isPlanned) return "done";
        }
        if (isLong) return "continue";
      }
      setCurrentDetails(this.describe());
      this.#changed = false;
      await condition(() => this.#changed);
    }
  }

  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#changed = true;
    for (const scope of this.#scopes) scope.cancel();
  }

  resume(): void {
    this.#isPaused = false;
    this.#changed = true;
  }

  /** What was cancelled has let go. */
  async idle(): Promise<void> {
    await condition(() => !this.#isPlanning && this.#dispatch.inFlight === 0);
  }

  carry(): CarriedRun {
    return {
      cursor: this.#cursor,
      isPlanned: this.#isPlanned,
      isPaused: this.#isPaused,
      failure: this.#failure,
      dispatch: this.#dispatch.state(),
      counts: this.#counts,
    };
  }

  progress(): RunProgress {
    const { inFlight, waiting } = this.#dispatch;
    return { ...this.#counts, isPlanned: this.#isPlanned, isPaused: this.#isPaused, inFlight, waiting };
  }

  describe(): string {
    const { steps, planned, done, succeeded, failed } = this.#counts;
    const { inFlight, waiting } = this.#dispatch;
    const phase = this.#isPaused ? "paused" : this.#isPlanned ? "copying" : "planning and copying";
    const due = inFlight === 0 && waiting > 0 ? this.#dispatch.nextDueAt() : null;
    return [
      `Execution ${this.#request.executionId}: **${phase}**${due === null ? "" : `, trying again at ${new Date(due).toISOString()}`}`,
      "",
      "| planning steps | batches planned | under way | waiting | done | tasks succeeded | tasks failed |",
      "|---|---|---|---|---|---|---|",
      `| ${steps} | ${planned} | ${inFlight} | ${waiting} | ${done} | ${succeeded} | ${failed} |`,
    ].join("\n");
  }

  #advance(): void {
    if (!this.#isPlanned && !this.#isPlanning && this.#failure === null && !this.#dispatch.isFull) void this.#plan();
    for (let batch = this.#dispatch.take(Date.now()); batch; batch = this.#dispatch.take(Date.now())) void this.#copy(batch);
    this.#armTimer();
  }

  async #plan(): Promise<void> {
    this.#isPlanning = true;
    const step = { request: this.#request, runId: workflowInfo().firstExecutionRunId, cursor: this.#cursor };
    try {
      const planned = await this.#cancellable(() => planReplication(step));
      this.closed = planned.closed;
      this.#isOver = planned.closed !== null;
      this.#cursor = planned.next;
      this.#isPlanned = planned.next === null;
      this.#dispatch.plan(planned.batches);
      this.#count({ steps: 1, planned: planned.batches.length });
    } catch (error) {
      // A step that was cancelled is begun again when the run goes on.
      if (!isCancellation(error)) this.#failure = rootCause(error) ?? "planning failed";
    }
    this.#isPlanning = false;
    this.#changed = true;
  }

  async #copy(batch: Batch): Promise<void> {
    const { tasks, targets, round } = batch;
    const { executionId, trigger } = this.#request;
    // Repetitions give way to what was not tried yet.
    const priorityKey = (trigger === "scheduled" ? 3 : 2) + (round > 1 ? 1 : 0);
    const priority = { priorityKey, fairnessKey: `target ${targets.join(",")}`.slice(0, 64) };
    const request = { executionId, tasks, round };
    try {
      const outcome = await this.#cancellable(() =>
        copyReplicationBatch.executeWithOptions({ priority, summary: `${tasks.length} tasks, round ${round}` }, [request]),
      );
      this.#dispatch.finish(batch, outcome, Date.now());
      this.#isOver ||= outcome.isOver;
      this.#count({ done: 1, succeeded: outcome.succeeded, failed: outcome.failed });
      if (this.#isOver) for (const scope of this.#scopes) scope.cancel();
    } catch (error) {
      if (isCancellation(error)) this.#dispatch.giveBack(batch);
      else {
        // Activities end the tasks that they cannot carry out; this is the service giving up on one.
        this.#dispatch.finish(batch, { again: [], succeeded: 0, failed: tasks.length }, Date.now());
        this.#failure ??= rootCause(error) ?? "copying failed";
      }
    }
    this.#changed = true;
  }

  async #cancellable<T>(work: () => Promise<T>): Promise<T> {
    const scope = new CancellationScope();
    this.#scopes.add(scope);
    try {
      return await scope.run(work);
    } finally {
      this.#scopes.delete(scope);
    }
  }

  /** One timer for the next delayed batch; an earlier one that runs already wakes us early, which does no harm. */
  #armTimer(): void {
    const dueAt = this.#dispatch.nextDueAt();
    const now = Date.now();
    if (dueAt === null || (this.#timerAt !== null && this.#timerAt > now && this.#timerAt <= dueAt)) return;
    this.#timerAt = dueAt;
    void sleep(Math.max(1, dueAt - now)).then(
      () => {
        this.#changed = true;
      },
      // The run was cancelled: whoever waits is told by its own wait.
      () => undefined,
    );
  }

  #count(more: Partial<RunCounts>): void {
    const { steps, planned, done, succeeded, failed } = this.#counts;
    this.#counts = {
      steps: steps + (more.steps ?? 0),
      planned: planned + (more.planned ?? 0),
      done: done + (more.done ?? 0),
      succeeded: succeeded + (more.succeeded ?? 0),
      failed: failed + (more.failed ?? 0),
    };
  }
}
