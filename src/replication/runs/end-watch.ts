/**
 * Ends the work on executions that are over, whoever ended them, also while the workflow service is away: one look a second at all executions
 * that this process works for.
 */
import type { Logger } from "../../telemetry/logger.ts";
import type { RunBooks } from "./run-books.ts";

export interface EndWatchOptions {
  readonly books: Pick<RunBooks, "ended">;
  readonly logger: Logger;
  readonly everyMs?: number;
}

const EVERY_MS = 1_000;

export class EndWatch {
  readonly #options: EndWatchOptions;
  readonly #watched = new Map<number, Set<AbortController>>();
  #timer: NodeJS.Timeout | null = null;
  #isLooking = false;

  constructor(options: EndWatchOptions) {
    this.#options = options;
  }

  /** Null when the work was given up since the execution is over. */
  async during<T>(executionId: number, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T | null> {
    const over = new AbortController();
    this.#add(executionId, over);
    try {
      return await work(AbortSignal.any([signal, over.signal]));
    } catch (error) {
      if (over.signal.aborted && !signal.aborted) return null;
      throw error;
    } finally {
      this.#remove(executionId, over);
    }
  }

  #add(executionId: number, over: AbortController): void {
    const watchers = this.#watched.get(executionId) ?? new Set();
    watchers.add(over);
    this.#watched.set(executionId, watchers);
    this.#timer ??= setInterval(() => void this.#look(), this.#options.everyMs ?? EVERY_MS).unref();
  }

  #remove(executionId: number, over: AbortController): void {
    const watchers = this.#watched.get(executionId);
    watchers?.delete(over);
    if (watchers?.size === 0) this.#watched.delete(executionId);
    if (this.#watched.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }

  async #look(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      for (const executionId of await this.#options.books.ended([...this.#watched.keys()])) {
        for (const over of this.#watched.get(executionId) ?? []) over.abort(new Error("the execution is over"));
      }
    } catch (error) {
      this.#options.logger.debug({ error }, "whether runs are over could not be looked up");
    } finally {
      this.#isLooking = false;
    }
  }
}
