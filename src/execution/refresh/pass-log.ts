/** The published log lines: one pair for each pass that did something, where a pass is from the first batch until the slots are empty. */
import type { Logger } from "../../telemetry/logger.ts";
import type { FixedShard } from "../plan/assignment.ts";
import type { RefreshQueue } from "./refresh-queue.ts";

export interface PassCounts {
  readonly succeeded: number;
  readonly failed: number;
}

/** Under a steady trickle there is no end: then it is told so often, and at most so often. */
const LONGEST_MS = 30_000;
const SHORTEST_MS = 1_000;

interface Pass {
  readonly startedAt: number;
  readonly foreign: number;
  succeeded: number;
  failed: number;
}

export class PassLog {
  readonly #logger: Logger;
  readonly #queue: Pick<RefreshQueue, "states">;
  readonly #shard: FixedShard;
  readonly #own: ReadonlySet<number>;
  #pass: Pass | null = null;

  constructor(logger: Logger, queue: Pick<RefreshQueue, "states">, holding: { shard: FixedShard; slots: readonly number[] }) {
    this.#logger = logger;
    this.#queue = queue;
    this.#shard = holding.shard;
    this.#own = new Set(holding.slots);
  }

  /** Before the batch is worked on: what is claimed still counts as found. */
  async begin(): Promise<void> {
    if (this.#pass) return;
    const pass: Pass = { startedAt: performance.now(), foreign: 0, succeeded: 0, failed: 0 };
    this.#pass = pass;
    const states = await this.#queue.states().catch(() => []);
    const found = states.reduce((sum, state) => sum + state.depth, 0);
    const foreign = states.reduce((sum, state) => sum + (this.#own.has(state.slot) ? 0 : state.depth), 0);
    this.#pass = { ...pass, foreign };
    this.#logger.info(
      { ...this.#fields(), found, own: found - foreign },
      `${this.#name()}: found ${found} executions in queue, will process assigned subset`,
    );
  }

  count({ succeeded, failed }: PassCounts): void {
    if (!this.#pass) return;
    this.#pass.succeeded += succeeded;
    this.#pass.failed += failed;
    if (performance.now() - this.#pass.startedAt > LONGEST_MS) this.end();
  }

  /** The slots are empty; a pass that has only begun waits for what may come. */
  pause(): void {
    if (this.#pass && performance.now() - this.#pass.startedAt > SHORTEST_MS) this.end();
  }

  end(): void {
    const pass = this.#pass;
    if (!pass) return;
    this.#pass = null;
    const { succeeded, failed, foreign } = pass;
    this.#logger.info(
      { ...this.#fields(), succeeded, failed, skipped: foreign, ms: Math.round(performance.now() - pass.startedAt) },
      `${this.#name()}: refresh outdate execution status done, ${succeeded} succeed, ${failed} failed, ${foreign} skipped (assigned to other instances)`,
    );
  }

  #name(): string {
    return `instance ${this.#shard.id}/${this.#shard.total}`;
  }

  #fields(): Record<string, number> {
    return { instance: this.#shard.id, instances: this.#shard.total, slots: this.#own.size };
  }
}
