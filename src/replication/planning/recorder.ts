/** Collects the stretches that become ready while the database is busy with earlier ones, and writes them together. */
import type { PlanningRight, Stretch, StretchStore } from "./stretch-store.ts";

interface Waiting {
  readonly stretch: Stretch;
  readonly done: () => void;
  readonly failed: (error: unknown) => void;
}

/** Artifacts and rows of one transaction stay bounded. */
const STRETCHES_PER_WRITE = 100;

export class Recorder {
  readonly #store: Pick<StretchStore, "record">;
  readonly #right: PlanningRight;
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

  /** Resolves when it is in the database. */
  record(stretch: Stretch): Promise<void> {
    const open = stretch.batches.filter(({ tasks }) => tasks.some(({ outcome }) => outcome === undefined));
    this.#batches += open.length;
    return new Promise((done, failed) => {
      this.#waiting.push({ stretch, done, failed });
      if (!this.#isWriting) void this.#write();
    });
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    // Those that are ready in this very turn go together.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, STRETCHES_PER_WRITE);
      try {
        await this.#store.record(
          this.#right,
          batch.map(({ stretch }) => stretch),
        );
        for (const { done } of batch) done();
      } catch (error) {
        for (const { failed } of batch) failed(error);
      }
    }
    this.#isWriting = false;
  }
}
