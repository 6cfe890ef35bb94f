/**
 * Planning of a run, step by step. A step goes through phases in their order until it has done its share; what it finds is written as it is found, under
 * the number of the step, so that the same step given again returns the same.
 */
import { randomUUID } from "node:crypto";
import type { Clock } from "../../core/clock.ts";
import { SlipwayError } from "../../core/errors.ts";
import type { Database } from "../../db/pool.ts";
import { ExecutionStore } from "../../execution/execution-store.ts";
import type { Execution } from "../../execution/execution-store.ts";
import { LogStore } from "../../execution/log-store.ts";
import type { AdapterFactory } from "../adapters/adapter.ts";
import { ItemStore } from "../item-store.ts";
import { KnownStore } from "../known-store.ts";
import { compileFilters } from "../plan/filters.ts";
import type { Policy } from "../plan/policy.ts";
import type { PlannedStep, PlanStep } from "../plan/run.ts";
import type { Planner } from "../planner.ts";
import { RunStore } from "../run-store.ts";
import type { Run } from "../run-store.ts";
import { DeletionStore } from "./deletion-store.ts";
import { summarize } from "./dry-run.ts";
import { PlannedEvents } from "./event-store.ts";
import { NameStore } from "./name-store.ts";
import { runPhases } from "./phases.ts";
import { firstCursor, formatCursor, parseCursor } from "./plan/cursor.ts";
import type { PlanCursor, PlanPhase } from "./plan/cursor.ts";
import { joinBatches } from "./plan/drafts.ts";
import { Recorder } from "./recorder.ts";
import { SourcePages } from "./source-pages.ts";
import { StepContext } from "./step-context.ts";
import type { StepLimits } from "./step-context.ts";
import { StretchStore } from "./stretch-store.ts";
import { Views } from "./views.ts";

export interface PlannerOptions {
  readonly database: Database;
  readonly adapters: AdapterFactory;
  readonly policies: { find(id: number): Promise<Policy | null> };
  readonly clock: Clock;
  readonly limits?: Partial<PlannerLimits>;
}

export interface PlannerLimits {
  /** Short, so that copying begins soon. */
  readonly firstStep: StepLimits;
  readonly laterSteps: StepLimits;
  /** Artifacts of one batch: few at first, so that all workers get something, more later. */
  readonly firstBatchWeight: number;
  readonly batchWeight: number;
}

export const DEFAULT_PLANNER_LIMITS: PlannerLimits = {
  firstStep: { durationMs: 1_000, batches: 20 },
  laterSteps: { durationMs: 10_000, batches: 200 },
  firstBatchWeight: 10,
  batchWeight: 50,
};

/** Those who watch the activity hear of it at least so often. */
const PROGRESS_MS = 1_000;

export function createPlanner(options: PlannerOptions): Planner {
  return new StepPlanner(options);
}

class StepPlanner implements Planner {
  readonly #options: PlannerOptions;
  readonly #limits: PlannerLimits;
  readonly #stretches: StretchStore;
  readonly #views = new Views();
  readonly #pages = new SourcePages();

  constructor(options: PlannerOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULT_PLANNER_LIMITS, ...options.limits };
    this.#stretches = new StretchStore(options.database);
  }

  async step(step: PlanStep, signal: AbortSignal, onProgress: (cursor: string | null) => void): Promise<PlannedStep> {
    const { execution, run, policy } = await this.#load(step.executionId);
    if (execution.endedAt !== null || execution.plannedAt !== null) return { batches: [], next: null };
    const cursor = step.cursor === null ? firstCursor(firstPhase(execution, run)) : parseCursor(step.cursor);
    const timer = setInterval(() => onProgress(step.cursor), PROGRESS_MS);
    try {
      const context = await this.#open({ execution, run, policy, cursor }, signal);
      const next = await runPhases(context, this.#stores(), cursor);
      await context.options.recorder.flush();
      if (next === null) await this.#finish(execution.id, run);
      return {
        batches: await this.#batches(execution.id, cursor),
        next: next === null ? null : formatCursor({ ...next, step: cursor.step + 1 }),
      };
    } finally {
      clearInterval(timer);
    }
  }

  async #load(executionId: number): Promise<{ execution: Execution; run: Run; policy: Policy }> {
    const { database, policies } = this.#options;
    const [execution, run] = await Promise.all([new ExecutionStore(database).find(executionId), new RunStore(database).find(executionId)]);
    if (!execution || !run) throw new SlipwayError("NOT_FOUND", { message: `execution ${executionId} not found` });
    const policy = await policies.find(run.policyId);
    if (!policy) throw new SlipwayError("NOT_FOUND", { message: `replication policy ${run.policyId} not found` });
    return { execution, run, policy };
  }

  async #open(
    { execution, run, policy, cursor }: { execution: Execution; run: Run; policy: Policy; cursor: PlanCursor },
    signal: AbortSignal,
  ): Promise<StepContext> {
    const { adapters, clock, database } = this.#options;
    // As of the start: a run that goes on tomorrow selects the same.
    const filters = compileFilters(policy.filters, execution.createdAt);
    const source = await adapters.open(policy.sourceRegistryId, signal);
    const targets = await Promise.all(
      policy.destinations.map(async (destination) => {
        const adapter = await adapters.openTarget(
          { registryId: destination.registryId, sourceRegistryId: policy.sourceRegistryId },
          signal,
        );
        return { destination, adapter, capabilities: adapter.capabilities };
      }),
    );
    const right = { executionId: execution.id, step: cursor.step, token: randomUUID() };
    const recorded = await this.#stretches.begin(right);
    const logs = new LogStore(database);
    const context = new StepContext({
      executionId: execution.id,
      run,
      policy,
      filters,
      source,
      targets,
      known: new KnownStore(database),
      views: this.#views,
      pages: this.#pages,
      recorder: new Recorder(this.#stretches, right),
      log: (drafts) => logs.append(execution.id, drafts),
      recorded,
      limits: cursor.step === 1 ? this.#limits.firstStep : this.#limits.laterSteps,
      clock,
      signal,
    });
    if (cursor.step === 1 && filters.needs.labels && !source.capabilities.listsLabels)
      await context.note("the source knows no labels, so that nothing has one", "WARNING");
    return context;
  }

  #stores(): Parameters<typeof runPhases>[1] {
    const { database } = this.#options;
    return {
      stretches: this.#stretches,
      names: new NameStore(database),
      deletions: new DeletionStore(database),
      events: new PlannedEvents(database),
      items: new ItemStore(database),
      known: new KnownStore(database),
    };
  }

  async #batches(executionId: number, cursor: PlanCursor): Promise<PlannedStep["batches"]> {
    const weight = cursor.step === 1 ? this.#limits.firstBatchWeight : this.#limits.batchWeight;
    return joinBatches(await this.#stretches.batches(executionId, cursor.step), weight);
  }

  async #finish(executionId: number, run: Run): Promise<void> {
    const { database } = this.#options;
    if (run.kind === "dry-run") await summarize({ stretches: this.#stretches, executions: new ExecutionStore(database) }, executionId);
    await new NameStore(database).clear(executionId);
    await new DeletionStore(database).clear(executionId);
  }
}

function firstPhase(execution: Execution, run: Run): PlanPhase {
  if (run.retryOf !== null) return "retry";
  return execution.trigger === "event" && run.kind === "copy" ? "events" : "names";
}
