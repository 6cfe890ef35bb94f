/**
 * The net under the marks: task changes that nobody looked at for a while are marked again, and marks that the queue could not take are
 * replayed. While the queue is away the sweep settles by itself.
 */
import { isSlipwayError } from "../../core/errors.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Marked } from "../plan/slots.ts";
import type { BatchSettler } from "./batch-settler.ts";
import type { RefreshQueue } from "./refresh-queue.ts";
import type { RefreshStore } from "./refresh-store.ts";

export interface SweeperOptions {
  readonly store: Pick<RefreshStore, "listOverdue" | "listMarks" | "removeMarks">;
  readonly queue: Pick<RefreshQueue, "mark">;
  readonly settler: Pick<BatchSettler, "settle">;
  readonly logger: Logger;
  readonly batch: number;
}

export interface SweepResult {
  readonly replayed: number;
  /** Task changes that were found; those whose mark is there already included. */
  readonly found: number;
  readonly marked: number;
  /** Settled by the sweep itself. */
  readonly settled: number;
  /** The queue did not take marks: what was saved waits for the next sweep. */
  readonly away: boolean;
}

/** What was changed more recently is about to be refreshed by its mark. */
export const OVERDUE_MS = 10_000;
const PAGE = 5_000;

export class Sweeper {
  readonly #options: SweeperOptions;

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  /** A page whose marks are all there already is the last: then the queue is whole. */
  async sweep(signal: AbortSignal, olderThanMs = OVERDUE_MS): Promise<SweepResult> {
    const { store } = this.#options;
    const result = { ...(await this.#replay(signal)), found: 0, marked: 0, settled: 0 };
    for (let after = 0; !signal.aborted;) {
      const { marked, next } = await store.listOverdue({ olderThanMs, limit: PAGE, after });
      if (next === null) break;
      const { added, settled } = await this.#mark(marked);
      result.found += marked.length;
      result.marked += added;
      result.settled += settled;
      result.away ||= settled > 0;
      if (added + settled === 0 && marked.length > 0) break;
      after = next;
    }
    return result;
  }

  async #replay(signal: AbortSignal): Promise<{ replayed: number; away: boolean }> {
    const { store, queue, logger, batch } = this.#options;
    let replayed = 0;
    try {
      for (;;) {
        const marks = await store.listMarks(batch);
        if (marks.length === 0 || signal.aborted) return { replayed, away: false };
        await queue.mark(marks);
        await store.removeMarks(marks);
        replayed += marks.length;
      }
    } catch (error) {
      logger.debug({ error }, "saved marks cannot be replayed yet");
      return { replayed, away: true };
    }
  }

  async #mark(marked: readonly Marked[]): Promise<{ added: number; settled: number }> {
    const { queue, settler, batch } = this.#options;
    try {
      return { added: await queue.mark(marked.map((one) => ({ ...one, urgent: false }))), settled: 0 };
    } catch (error) {
      if (!isSlipwayError(error, "KV_UNAVAILABLE")) throw error;
    }
    let settled = 0;
    for (let start = 0; start < marked.length; start += batch) {
      const { done, trouble } = await settler.settle(marked.slice(start, start + batch).map(({ id }) => id));
      if (trouble !== null) throw trouble;
      settled += done.length;
    }
    return { added: 0, settled };
  }
}
