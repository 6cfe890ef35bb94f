/**
 * Repairs what crashes and outages leave behind: starts that got lost, runs that ended without reporting, stopped ones that nobody could tell,
 * runs that wait for one that is gone, changes that nobody took, schedules that differ from their policies.
 */
import { toSlipwayError } from "../../core/errors.ts";
import type { ExecutionStore } from "../../execution/execution-store.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { ReplicationWorkflows } from "../../temporal/replication.ts";
import type { EventStore } from "./event-store.ts";
import type { ReplicationRuns } from "./replication-runs.ts";
import type { OpenRun, RunBooks } from "./run-books.ts";

export interface ReconcileReport {
  /** Lost starts that were started or ended. */
  readonly started: number;
  /** Runs whose workflow was gone. */
  readonly ended: number;
  /** Stopped ones whose workflow was told at last. */
  readonly cancelled: number;
  readonly dequeued: number;
  /** Policies for which a run was asked for, since changes had been left lying. */
  readonly triggered: number;
  readonly schedules: number;
  /** Uploads of stopped runs that were cancelled at their targets. */
  readonly uploads: number;
  /** Steps that failed; they are tried again next time. */
  readonly problems: number;
}

/** Changes of content that no run has taken, also those that failed and are tried again later. */
export interface ChangesWaiting {
  readonly waiting: number;
  readonly oldestAgeMs: number;
}

export interface ReconcilerOptions {
  readonly books: RunBooks;
  readonly executions: Pick<ExecutionStore, "end" | "settle" | "find">;
  readonly events: Pick<EventStore, "policiesDue" | "heldByEnded" | "release" | "depth">;
  readonly starter: Pick<ReplicationRuns, "beginPending" | "cancelStopped" | "startWaiting">;
  readonly workflows: Pick<ReplicationWorkflows, "state" | "triggerEvents" | "signal">;
  /** Cancels at their targets the uploads that stopped runs left; how many. */
  readonly uploads: (signal: AbortSignal) => Promise<number>;
  /** Makes the schedules agree with the policies; the number that had to be mended. */
  readonly schedules: (signal: AbortSignal) => Promise<number>;
  readonly eventMaxAgeMs: number;
  readonly logger: Logger;
  /** Younger ones may still be looked after by whoever made them. */
  readonly graceMs?: number;
}

const GRACE_MS = 30_000;
const BATCH = 200;
/** A pause that is older has been told, or told again. */
const PAUSE_DOUBT_MS = 10 * 60_000;

type Counts = { -readonly [Name in keyof ReconcileReport]: number };

export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #totals: Counts = nothing();
  #runs = 0;
  #changes: ChangesWaiting = { waiting: 0, oldestAgeMs: 0 };

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  /** Of this process since its start. */
  totals(): ReconcileReport & { readonly runs: number } {
    return { ...this.#totals, runs: this.#runs };
  }

  /** As the last reconciliation of this process found them. */
  changes(): ChangesWaiting {
    return this.#changes;
  }

  /** Every step is tried, whatever becomes of the others. */
  async run(signal: AbortSignal): Promise<ReconcileReport> {
    const counts = nothing();
    const steps: [keyof Omit<Counts, "problems">, (signal: AbortSignal) => Promise<number>][] = [
      ["cancelled", () => this.#cancelStopped()],
      ["ended", (stop) => this.#endLost(stop)],
      ["ended", () => this.#options.books.endLeftOpen(BATCH)],
      ["started", (stop) => this.#startLost(stop)],
      ["dequeued", (stop) => this.#startWaiting(stop)],
      ["triggered", (stop) => this.#followChanges(stop)],
      ["schedules", (stop) => this.#options.schedules(stop)],
      ["uploads", (stop) => this.#options.uploads(stop)],
    ];
    for (const [name, step] of steps) {
      signal.throwIfAborted();
      try {
        counts[name] += await step(signal);
      } catch (error) {
        signal.throwIfAborted();
        counts.problems += 1;
        this.#options.logger.warn(
          { step: name, reason: toSlipwayError(error).message, error },
          "a part of replication could not be reconciled",
        );
      }
    }
    for (const name of Object.keys(counts) as (keyof Counts)[]) this.#totals[name] += counts[name];
    this.#runs += 1;
    if (Object.values(counts).some((count) => count > 0)) this.#options.logger.info({ ...counts }, "replication was reconciled");
    return counts;
  }

  async #cancelStopped(): Promise<number> {
    const { books, starter } = this.#options;
    let cancelled = 0;
    for (const run of await books.cancelling(BATCH)) if (await starter.cancelStopped(run.executionId)) cancelled += 1;
    return cancelled;
  }

  async #endLost(signal: AbortSignal): Promise<number> {
    const { books, workflows } = this.#options;
    let ended = 0;
    for (let after = 0; ;) {
      const open = await books.open({ quietMs: this.#graceMs, after, limit: BATCH });
      for (const run of open) {
        signal.throwIfAborted();
        const state = await workflows.state(run, { signal });
        if (!state.open) {
          await this.#end(run, state.status);
          ended += 1;
        } else if (run.status === "Paused" && Date.now() - run.updatedAt.getTime() < PAUSE_DOUBT_MS) {
          // Whoever paused it may have died before the workflow was told.
          await workflows.signal(run, "pause", { signal });
        }
      }
      const last = open.at(-1);
      if (last === undefined || open.length < BATCH) return ended;
      after = last.executionId;
    }
  }

  /** Its tasks decide when all of them are done; otherwise what is open has failed with the run. */
  async #end(run: OpenRun, workflowStatus: string): Promise<void> {
    const { books, executions, events, eventMaxAgeMs } = this.#options;
    const { executionId } = run;
    await executions.settle([executionId]);
    const execution = await executions.find(executionId);
    if (execution !== null && execution.endedAt === null) {
      const message = `the run ended without reporting (its workflow is ${workflowStatus})`;
      await books.endOpen(executionId, { status: "Error", message });
      await executions.end(executionId, "Error", message);
      await executions.settle([executionId]);
    }
    await events.release(executionId, eventMaxAgeMs);
  }

  async #startLost(signal: AbortSignal): Promise<number> {
    const { books, starter } = this.#options;
    const lost = await books.lost(this.#graceMs, BATCH);
    for (const pending of lost) {
      signal.throwIfAborted();
      await starter.beginPending(pending, { signal });
    }
    return lost.length;
  }

  async #startWaiting(signal: AbortSignal): Promise<number> {
    const { books, starter } = this.#options;
    let started = 0;
    for (const policyId of await books.policiesWithoutActive(BATCH)) {
      signal.throwIfAborted();
      if ((await starter.startWaiting(policyId, { signal })) !== null) started += 1;
    }
    return started;
  }

  async #followChanges(signal: AbortSignal): Promise<number> {
    const { events, workflows, eventMaxAgeMs } = this.#options;
    for (const executionId of await events.heldByEnded(BATCH)) await events.release(executionId, eventMaxAgeMs);
    const policies = await events.policiesDue(this.#graceMs);
    for (const policyId of policies) await workflows.triggerEvents(policyId, 0, { signal });
    this.#changes = await events.depth();
    return policies.length;
  }

  get #graceMs(): number {
    return this.#options.graceMs ?? GRACE_MS;
  }
}

function nothing(): Counts {
  return { started: 0, ended: 0, cancelled: 0, dequeued: 0, triggered: 0, schedules: 0, uploads: 0, problems: 0 };
}
