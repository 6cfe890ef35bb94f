/**
 * Writes stretches together: those in which nothing is to do wait for company, since losing them costs a comparison and no more; the others are
 * written at once, with whatever else is ready.
 */
import type { PlanningRight, Stretch, StretchStore } from "./stretch-store.ts";

interface Waiting {
  readonly stretch: Stretch;
  readonly done: () => void;
  readonly failed: (error: unknown) => void;
}

/** Rows of one transaction stay bounded, as does what waits. */
const STRETCHES_PER_WRITE = 100;

export class Recorder {
  readonly #store: Pick<StretchStore, "record">;
  readonly #right: PlanningRight;
  readonly #idle: Stretch[] = [];
  readonly #waiting: Waiting[] = [];
  #isWriting = false;
  #batches = 0;

  constructor(store: Pick<StretchStore, "record">, right: PlanningRight) {
    this.#store = store;
    this.#right = right;
  }

  /** Of what was handed over in this step. */
  get batches(): number {
    return this.#batches;
  }

  /** Resolves when it is in the database, or when it may wait. */
  async record(stretch: Stretch): Promise<void> {
    const isIdle = stretch.batches.length === 0 && stretch.next === null && stretch.follows === undefined;
    if (isIdle && this.#idle.length < STRETCHES_PER_WRITE) {
      this.#idle.push(stretch);
      return;
    }
    this.#batches += stretch.batches.filter(({ tasks }) => tasks.some(({ outcome }) => outcome === undefined)).length;
    await this.#write(stretch);
  }

  /** At the end of a step. */
  async flush(): Promise<void> {
    const last = this.#idle.pop();
    if (last) await this.#write(last);
  }

  #write(stretch: Stretch): Promise<void> {
    return new Promise((done, failed) => {
      this.#waiting.push({ stretch, done, failed });
      if (!this.#isWriting) void this.#writeAll();
    });
  }

  async #writeAll(): Promise<void> {
    this.#isWriting = true;
    // Those that are ready in this very turn go together.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, STRETCHES_PER_WRITE);
      const idle = this.#idle.splice(0);
      try {
        await this.#store.record(this.#right, [...idle, ...batch.map(({ stretch }) => stretch)]);
        for (const { done } of batch) done();
      } catch (error) {
        for (const { failed } of batch) failed(error);
      }
    }
    this.#isWriting = false;
  }
}
