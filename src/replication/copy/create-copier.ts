/** Copying as the activities see it: a batch of tasks goes in; tasks, items, logs and figures are written, and what has to wait comes out. */
import { setMaxListeners } from "node:events";
import { isSlipwayError, SlipwayError, toSlipwayError } from "../../core/errors.ts";
import type { MetricFamily } from "../../telemetry/metrics.ts";
import type { TaskChange } from "../../execution/task-store.ts";
import type { WorkTask } from "../item-store.ts";
import { announceRun } from "../run-feed.ts";
import type { BatchOutcome, BatchRequest, TaskAgain } from "../plan/run.ts";
import { abandonAt, abandonUploads } from "./abandon.ts";
import { loadBatch } from "./batch-load.ts";
import type { LoadedBatch } from "./batch-load.ts";
import { Batch } from "./batch.ts";
import { copyMetrics } from "./copy-metrics.ts";
import type { Copier } from "./copier.ts";
import type { CopierOptions } from "./open-copier.ts";
import { Reporter } from "./reporter.ts";
import { CopyServices } from "./services.ts";
import { sweepSpools } from "./spool.ts";

export interface OpenCopier extends Copier {
  metrics(): MetricFamily[];
  close(): Promise<void>;
}

/** How soon a batch that found its target busy comes again. */
const BUSY_MS = 500;
const SWEEP_MS = 3_600_000;
const ABANDON_MS = 5_000;

export function createCopier(options: CopierOptions): OpenCopier {
  const services = new CopyServices(options);
  const sweep = async (): Promise<void> => {
    try {
      const { content, uploads, known } = services;
      await Promise.all([content.prune(), uploads.prune(), known.prune(), sweepSpools(options.stagingFolder)]);
    } catch (error) {
      options.logger.warn({ error }, "what copying left behind could not be swept");
    }
  };
  const timer = setInterval(() => void sweep(), SWEEP_MS);
  timer.unref();
  return {
    copyBatch: (request, signal) => new BatchRun(services, request, signal).run(),
    abandonUploads: (executionId, signal) => abandonUploads(services, executionId, signal),
    metrics: () => copyMetrics(services),
    close: async () => {
      clearInterval(timer);
      await services.ledger.flush();
      services.ledger.close();
    },
  };
}

class BatchRun {
  readonly #services: CopyServices;
  readonly #request: BatchRequest;
  readonly #signal: AbortSignal;

  constructor(services: CopyServices, request: BatchRequest, signal: AbortSignal) {
    this.#services = services;
    this.#request = request;
    this.#signal = signal;
    setMaxListeners(0, signal);
  }

  async run(): Promise<BatchOutcome> {
    const { shares, items } = this.#services;
    const tasks = await items.tasks(this.#request.tasks);
    const targets = [...new Set(tasks.map((task) => task.attrs.target_registry_id))];
    const entered = new Set(targets.filter((target) => shares.enter(target)));
    this.#services.counters.busy += targets.length - entered.size;
    try {
      const mine = tasks.filter((task) => entered.has(task.attrs.target_registry_id));
      const busy = tasks.filter((task) => !entered.has(task.attrs.target_registry_id));
      const outcome = mine.length === 0 ? NOTHING : await this.#copy(mine);
      if (busy.length === 0) return outcome;
      const delayMs = BUSY_MS + Math.round(Math.random() * BUSY_MS);
      return { ...outcome, again: [...outcome.again, { tasks: busy.map((task) => task.id), delayMs, tried: false }] };
    } finally {
      for (const target of entered) shares.leave(target);
    }
  }

  async #copy(tasks: readonly WorkTask[]): Promise<BatchOutcome> {
    const { executionId, round: revision } = this.#request;
    this.#checkCancelled();
    await this.#services.tasks.updateMany(
      executionId,
      tasks.map(({ key }) => ({ key, status: "Running" as const, revision })),
    );
    let loaded: LoadedBatch | null;
    try {
      loaded = await loadBatch(this.#services, this.#request, tasks, this.#signal);
    } catch (error) {
      if (!isSlipwayError(error, "NOT_FOUND")) throw error;
      return await this.#failAll(tasks, error);
    }
    return loaded === null ? NOTHING : await this.#work(tasks, loaded);
  }

  async #work(tasks: readonly WorkTask[], loaded: LoadedBatch): Promise<BatchOutcome> {
    const { items, known, runs, logs, options } = this.#services;
    const { executionId } = this.#request;
    const governor = this.#services.governor(loaded.policy.id);
    const reporter = new Reporter({
      executionId,
      items,
      known,
      runs,
      logs,
      logger: options.logger,
      onTick: () => this.#services.watchSpeed(executionId, governor),
      announce: () => announceRun(options.kv, executionId),
    });
    const batch = new Batch({ services: this.#services, request: this.#request, loaded, reporter, signal: this.#signal });
    try {
      await batch.run();
    } catch (error) {
      // What was done stays done, whatever ends the batch.
      await reporter.close().catch(() => undefined);
      if (this.#signal.aborted) await this.#abandonIfStopped(loaded);
      throw isSlipwayError(error) ? error : toSlipwayError(error);
    }
    await reporter.close();
    return await this.#settle(tasks, batch.again);
  }

  async #settle(tasks: readonly WorkTask[], again: ReadonlyMap<number, number>): Promise<BatchOutcome> {
    const { executionId, round: revision } = this.#request;
    const tally = await this.#services.items.tally(tasks.map((task) => task.id));
    let failed = 0;
    const changes = tasks.map((task): TaskChange & { key: string } => {
      const { failed: bad, done } = tally.get(task.id) ?? { failed: 0, done: 0 };
      const delay = again.get(task.id);
      if (delay !== undefined) {
        return { key: task.key, status: "Error", revision, message: "waits to be tried again", retryAt: new Date(Date.now() + delay) };
      }
      if (bad === 0) return { key: task.key, status: "Success", revision };
      failed += 1;
      return { key: task.key, status: "Error", revision, message: `${bad} of ${bad + done} items failed` };
    });
    await this.#services.tasks.updateMany(executionId, changes);
    return { again: groupAgain(again), failed, succeeded: tasks.length - failed - again.size };
  }

  /** The policy or the source registry is gone: nothing of this can be done any more. */
  async #failAll(tasks: readonly WorkTask[], error: SlipwayError): Promise<BatchOutcome> {
    const { items, tasks: taskStore } = this.#services;
    const { executionId, round: revision } = this.#request;
    const open = await items.openItems(tasks.map((task) => task.id));
    await items.report(open.map((item) => ({ ...item, status: "Error" as const, reason: "failed" as const, message: error.message })));
    const changes = tasks.map(({ key }) => ({ key, status: "Error" as const, revision, message: error.message }));
    await taskStore.updateMany(executionId, changes);
    return { again: [], succeeded: 0, failed: tasks.length };
  }

  /** Uploads of a run that was stopped are cancelled at their targets; those of a paused run or a worker that shuts down are continued. */
  async #abandonIfStopped(loaded: LoadedBatch): Promise<void> {
    const { executions, options } = this.#services;
    const { executionId } = this.#request;
    const deadline = AbortSignal.timeout(ABANDON_MS);
    try {
      const execution = await executions.find(executionId);
      if (execution !== null && execution.endedAt === null) return;
      for (const target of loaded.targets.values()) {
        if (target instanceof SlipwayError) continue;
        await abandonAt(this.#services, { executionId, adapter: target.adapter }, deadline);
      }
    } catch (error) {
      options.logger.warn({ error, executionId }, "uploads of a stopped run could not be cancelled");
    }
  }

  #checkCancelled(): void {
    if (this.#signal.aborted) throw new SlipwayError("CANCELLED", { cause: this.#signal.reason });
  }
}

const NOTHING: BatchOutcome = { again: [], succeeded: 0, failed: 0 };

/** Tasks that wait about as long come back together. */
function groupAgain(again: ReadonlyMap<number, number>): TaskAgain[] {
  const groups = Map.groupBy(again, ([, delayMs]) => Math.ceil(Math.log2(Math.max(1, delayMs))));
  return [...groups.values()].map((group) => ({
    tasks: group.map(([task]) => task),
    delayMs: Math.max(...group.map(([, delayMs]) => delayMs)),
    tried: true,
  }));
}
