/**
 * What people, schedules and events do with runs: start, stop, pause, retry. The row comes first and the workflow after it; the id of the
 * workflow is the lock, and only a run that holds it for another execution makes a start wait or be skipped.
 */
import { backoffDelay } from "../../core/backoff.ts";
import { sleep } from "../../core/clock.ts";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import type { Execution, ExecutionStore } from "../../execution/execution-store.ts";
import type { ExecutionTrigger } from "../../execution/plan/status.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { CallOptions } from "../../temporal/connection.ts";
import type { Launch, LaunchOutcome, ReplicationWorkflows, RunAddress } from "../../temporal/replication.ts";
import type { Policy } from "../plan/policy.ts";
import type { RunKind } from "../plan/run.ts";
import type { Run, RunStore } from "../run-store.ts";
import type { PendingRun, RunBooks } from "./run-books.ts";

export interface StartRequest {
  readonly policyId: number;
  readonly trigger: ExecutionTrigger;
  readonly kind?: RunKind;
  /** A mirror may delete more than the policy's limits. */
  readonly force?: boolean;
  readonly retryOf?: number | null;
  /** Who asks for it, as people are told. */
  readonly operator?: string;
  /** Names a start that may be repeated: the same key is the same run. */
  readonly startKey?: string;
}

/** "joined": a run that waits already will do what was asked for; the id is that one's. "ended": it was over before it began. */
export type StartOutcome = "started" | "skipped" | "queued" | "joined" | "ended";

export interface Started {
  readonly executionId: number;
  readonly outcome: StartOutcome;
}

export interface ReplicationRunsOptions {
  readonly policies: { find(id: number): Promise<Policy | null> };
  readonly executions: Pick<ExecutionStore, "find" | "end" | "settle" | "setAttrs">;
  readonly runs: Pick<RunStore, "find" | "queue" | "unqueue" | "waiting" | "setSpeed">;
  readonly books: RunBooks;
  /** Null where there is no workflow service: rows are kept for the reconciler. */
  readonly workflows: Pick<ReplicationWorkflows, "launch" | "cancel" | "signal" | "namespace"> | null;
  readonly logger: Logger;
  /** Where people look at workflows. */
  readonly uiUrl: string | null;
}

export const SKIPPED_TEXT = "Execution skipped: active replication still in progress.";
const RETRY_AFTER_SECONDS = 5;
/** How long a start waits for a run that is over in the books and still holds its id. */
const CLOSING_MS = 8_000;
const CLOSING_LOOKS = { baseMs: 50, capMs: 500 } as const;

export class ReplicationRuns {
  readonly #options: ReplicationRunsOptions;

  constructor(options: ReplicationRunsOptions) {
    this.#options = options;
  }

  /** TEMPORAL_UNAVAILABLE tells the execution's id as its detail: the row is kept, and started when the service is back. */
  async start(request: StartRequest, options: CallOptions = {}): Promise<Started> {
    const { kind = "copy" } = request;
    const policy = await this.#policy(request.policyId);
    if (!policy.enabled && kind !== "dry-run") {
      throw new SlipwayError("PRECONDITION_FAILED", { message: `the policy ${policy.id} is disabled` });
    }
    const executionId = await this.#options.books.create({
      policyId: policy.id,
      trigger: request.trigger,
      kind,
      force: request.force ?? false,
      retryOf: request.retryOf ?? null,
      operator: request.operator ?? "",
      startKey: request.startKey ?? null,
    });
    return this.#begin({ executionId, policyId: policy.id, kind, trigger: request.trigger }, policy, options);
  }

  /** Starts a row that was left behind by a start that got lost. Ends it when its policy no longer allows it. */
  async beginPending(pending: PendingRun, options: CallOptions = {}): Promise<Started> {
    const { executionId } = pending;
    const policy = await this.#options.policies.find(pending.policyId);
    if (policy === null || (!policy.enabled && pending.kind !== "dry-run")) {
      const reason = policy === null ? "its policy was deleted before it started" : "its policy was disabled before it started";
      await this.#options.executions.end(executionId, "Stopped", reason);
      return { executionId, outcome: "ended" };
    }
    return this.#begin(pending, policy, options);
  }

  /** Starts the run that waits for the policy's active one; null when none waits. Waits itself while that one is closing. */
  async startWaiting(policyId: number, options: CallOptions = {}): Promise<Started | null> {
    const { runs, books } = this.#options;
    const waiting = await runs.waiting(policyId);
    if (waiting === null || !(await runs.unqueue(waiting.executionId))) return null;
    const pending = await books.pending(waiting.executionId);
    return pending === null ? null : this.beginPending(pending, options);
  }

  /** Works in every state, also without the workflow service and for runs that it has lost. Stopping what is over changes nothing. */
  async stop(executionId: number, by = ""): Promise<void> {
    const { books, executions } = this.#options;
    const execution = await this.#find(executionId);
    if (execution.endedAt !== null) return;
    if (!(await books.stop(executionId, by === "" ? "stopped" : `stopped by ${by}`))) return;
    await executions.settle([executionId]);
    await this.cancelStopped(executionId);
  }

  /** Tells the workflow of a stopped run; what fails is done again by the reconciler. */
  async cancelStopped(executionId: number): Promise<boolean> {
    const { workflows, books, executions, logger } = this.#options;
    const address = addressOf(await executions.find(executionId));
    try {
      if (address !== null) {
        if (workflows === null) return false;
        await workflows.cancel(address);
      }
      await books.setCancelling(executionId, false);
      return true;
    } catch (error) {
      logger.warn({ execution: executionId, error }, "a stopped run could not be told, it is tried again");
      return false;
    }
  }

  async pause(executionId: number): Promise<void> {
    await this.#setPaused(executionId, true);
  }

  async resume(executionId: number): Promise<void> {
    await this.#setPaused(executionId, false);
  }

  /** Null: as the policy says. Takes effect within seconds on every worker. */
  async setSpeed(executionId: number, speedKb: number | null): Promise<void> {
    const execution = await this.#find(executionId);
    if (execution.endedAt !== null) throw over(executionId);
    await this.#options.runs.setSpeed(executionId, speedKb);
  }

  /** A run of its own for what failed or was stopped; of a run that failed before it knew its items, the whole. */
  async retry(executionId: number, operator = ""): Promise<Started> {
    const execution = await this.#find(executionId);
    const run = await this.#run(executionId);
    if (execution.endedAt === null) {
      throw new SlipwayError("PRECONDITION_FAILED", { message: `the execution ${executionId} is still in progress` });
    }
    const { items, unfinished } = await this.#options.books.unfinishedItems(executionId);
    const failedWhole = items === 0 && execution.status !== "Success";
    if (unfinished === 0 && !failedWhole) {
      throw new SlipwayError("PRECONDITION_FAILED", { message: `the execution ${executionId} has nothing to retry` });
    }
    return this.start({
      policyId: run.policyId,
      trigger: "manual",
      kind: run.kind,
      force: run.force,
      retryOf: failedWhole ? null : executionId,
      operator,
    });
  }

  /** The run in the Temporal UI; null before it has begun, and where no UI is known. */
  workflowUrl(execution: Pick<Execution, "workflowId" | "runId">): string | null {
    const { uiUrl, workflows } = this.#options;
    const address = addressOf(execution);
    if (uiUrl === null || workflows === null || address === null) return null;
    const path = ["namespaces", workflows.namespace, "workflows", address.workflowId, address.runId].map(encodeURIComponent).join("/");
    return `${uiUrl.replace(/\/$/, "")}/${path}`;
  }

  async #begin(pending: PendingRun, policy: Policy, options: CallOptions): Promise<Started> {
    const { executionId } = pending;
    const giveUp = Date.now() + CLOSING_MS;
    for (let look = 1; ; look += 1) {
      const launched = await this.#launch(pending, policy, options);
      if (launched.outcome === "started") return { executionId, outcome: "started" };
      const active = launched.executionId;
      if ((await this.#isOver(active)) && Date.now() < giveUp) {
        await sleep(backoffDelay(look, CLOSING_LOOKS), options.signal);
        continue;
      }
      if (policy.overlap !== "queue-one") return this.#skip(executionId, active);
      const queued = await this.#queue(pending, active);
      if (queued !== null) return queued;
    }
  }

  async #launch(pending: PendingRun, policy: Policy, options: CallOptions): Promise<LaunchOutcome> {
    const { executionId, policyId, trigger, kind } = pending;
    const launch: Launch = {
      request: { executionId, policyId, trigger },
      kind,
      mayOverlap: policy.overlap === "allow",
      policyName: policy.name,
      sourceRegistryId: policy.sourceRegistryId,
      targetRegistryIds: policy.destinations.map(({ registryId }) => registryId),
    };
    try {
      if (this.#options.workflows === null) throw new SlipwayError("TEMPORAL_UNAVAILABLE");
      return await this.#options.workflows.launch(launch, options);
    } catch (error) {
      if (!isSlipwayError(error, "TEMPORAL_UNAVAILABLE")) throw error;
      throw new SlipwayError("TEMPORAL_UNAVAILABLE", {
        cause: error,
        detail: { executionId },
        ...(error.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: error.retryAfterSeconds }),
      });
    }
  }

  async #skip(executionId: number, active: number | null): Promise<Started> {
    const { executions } = this.#options;
    await executions.setAttrs(executionId, { active_execution: active });
    const ended = await executions.end(executionId, "Skipped", SKIPPED_TEXT);
    return { executionId, outcome: ended === null ? "ended" : "skipped" };
  }

  /** Null: look again, the active run ended or the waiting one began in the meantime. */
  async #queue({ executionId, policyId }: PendingRun, active: number | null): Promise<Started | null> {
    const { runs, books } = this.#options;
    const queued = await runs.queue(executionId);
    if (queued === "ended") return { executionId, outcome: "ended" };
    if (queued === "taken") {
      const waiting = await runs.waiting(policyId);
      if (waiting === null) return null;
      if (waiting.executionId === executionId) return { executionId, outcome: "queued" };
      await books.discard(executionId);
      return { executionId: waiting.executionId, outcome: "joined" };
    }
    // A run closes its books before it looks for one that waits: it has seen this one, or its end is seen here.
    if (!(await this.#isOver(active))) return { executionId, outcome: "queued" };
    return (await runs.unqueue(executionId)) ? null : { executionId, outcome: "started" };
  }

  async #isOver(executionId: number | null): Promise<boolean> {
    if (executionId === null) return false;
    const execution = await this.#options.executions.find(executionId);
    return execution !== null && execution.endedAt !== null;
  }

  /** The books first, since the copier reads there why it is cancelled; taken back when the workflow cannot be told. */
  async #setPaused(executionId: number, paused: boolean): Promise<void> {
    const { books, workflows } = this.#options;
    const execution = await this.#find(executionId);
    if (execution.endedAt !== null) throw over(executionId);
    const address = addressOf(execution);
    const wanted = paused ? "Running" : "Paused";
    const already = execution.status === (paused ? "Paused" : "Running");
    if (address === null || (execution.status !== wanted && !already)) {
      throw new SlipwayError("PRECONDITION_FAILED", { message: `the execution ${executionId} has not begun yet` });
    }
    const changed = await books.setPaused(executionId, paused);
    try {
      if (workflows === null) throw new SlipwayError("TEMPORAL_UNAVAILABLE");
      if (!(await workflows.signal(address, paused ? "pause" : "resume"))) throw over(executionId);
    } catch (error) {
      if (changed) await books.setPaused(executionId, !paused);
      if (!isSlipwayError(error, "TEMPORAL_UNAVAILABLE")) throw error;
      throw new SlipwayError("TEMPORAL_UNAVAILABLE", {
        message: `the workflow service is not available: execution ${executionId} stays as it is; ${paused ? "pause" : "resume"} it when the service is back, or stop it now`,
        retryAfterSeconds: error.retryAfterSeconds ?? RETRY_AFTER_SECONDS,
        cause: error,
      });
    }
  }

  async #policy(id: number): Promise<Policy> {
    const policy = await this.#options.policies.find(id);
    if (policy === null) throw new SlipwayError("NOT_FOUND", { message: `replication policy ${id} not found` });
    return policy;
  }

  async #find(executionId: number): Promise<Execution> {
    const execution = await this.#options.executions.find(executionId);
    if (execution === null) throw unknown(executionId);
    await this.#run(executionId);
    return execution;
  }

  async #run(executionId: number): Promise<Run> {
    const run = await this.#options.runs.find(executionId);
    if (run === null) throw unknown(executionId);
    return run;
  }
}

function addressOf(execution: Pick<Execution, "workflowId" | "runId"> | null): RunAddress | null {
  if (execution === null || execution.workflowId === null || execution.runId === null) return null;
  return { workflowId: execution.workflowId, runId: execution.runId };
}

function unknown(executionId: number): SlipwayError {
  return new SlipwayError("NOT_FOUND", { message: `replication execution ${executionId} not found` });
}

function over(executionId: number): SlipwayError {
  return new SlipwayError("PRECONDITION_FAILED", { message: `the execution ${executionId} has ended` });
}
