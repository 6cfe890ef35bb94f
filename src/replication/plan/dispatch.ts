/**
 * Which planned batch of a run goes next, and how many at once. Pure: the workflow asks it, and carries its state on when it continues as new.
 */
import type { BatchOutcome, PlannedBatch } from "./run.ts";

export interface Batch {
  readonly tasks: readonly number[];
  readonly targets: readonly number[];
  /** Of the attempt; grows with every repetition that was tried. */
  readonly round: number;
}

/** Given again when its time has come. */
export interface DelayedBatch extends Batch {
  readonly dueAt: number;
}

export interface DispatchState {
  readonly ready: readonly Batch[];
  readonly delayed: readonly DelayedBatch[];
  readonly window: number;
}

export interface WindowRules {
  /** Batches in flight of one run at first. Workers have their own bounds. */
  readonly first: number;
  /** After workers had no room for a batch, the window stays as it is for so long. */
  readonly restMs: number;
  /** Batches that have to end well, as a multiple of the window, before it grows by one. */
  readonly patience: number;
}

/** A worker takes few batches, so the window begins small and soon follows what all workers together take. */
export const WINDOW_RULES: WindowRules = { first: 8, restMs: 2_000, patience: 0 };
/** Of runs that began before these rules. */
export const FORMER_WINDOW_RULES: WindowRules = { first: 16, restMs: 30_000, patience: 1 };
const LARGEST_WINDOW = 32;
/** Planning pauses while so many tasks wait: they travel with the run when it continues as new. */
export const MOST_TASKS_HELD = 10_000;
/** Delays end together where they can, so that the run wakes up less often. */
const DELAY_STEP_MS = 500;

export class Dispatch {
  readonly #ready: Batch[];
  #delayed: DelayedBatch[];
  readonly #inFlight = new Set<Batch>();
  #window: number;
  #growAfter = 0;
  #grown = 0;
  readonly #rules: WindowRules;

  constructor(state: DispatchState | undefined, rules: WindowRules) {
    this.#rules = rules;
    this.#ready = [...(state?.ready ?? [])];
    this.#delayed = [...(state?.delayed ?? [])];
    this.#window = state?.window ?? rules.first;
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  get waiting(): number {
    return this.#ready.length + this.#delayed.length;
  }

  /** Nothing waits and nothing is under way. */
  get isEmpty(): boolean {
    return this.waiting === 0 && this.inFlight === 0;
  }

  get isFull(): boolean {
    const count = (sum: number, batch: Batch): number => sum + batch.tasks.length;
    return this.#ready.reduce(count, 0) + this.#delayed.reduce(count, 0) >= MOST_TASKS_HELD;
  }

  plan(batches: readonly PlannedBatch[]): void {
    for (const { tasks, targets } of batches) this.#ready.push({ tasks, targets, round: 1 });
  }

  /** The next one, which is under way from then on; null when nothing may go now. */
  take(now: number): Batch | null {
    this.#wake(now);
    if (this.#inFlight.size >= this.#window) return null;
    const index = this.#firstThatMayGo();
    if (index < 0) return null;
    const [batch] = this.#ready.splice(index, 1);
    if (!batch) return null;
    this.#inFlight.add(batch);
    return batch;
  }

  /** It was carried out; what is to be repeated waits for its time. */
  finish(batch: Batch, outcome: BatchOutcome, now: number): void {
    this.#inFlight.delete(batch);
    const untried = outcome.again.some(({ tried }) => !tried);
    if (untried) {
      this.#window = Math.max(2, Math.min(this.#window, this.#inFlight.size));
      this.#growAfter = now + this.#rules.restMs;
    } else this.#grow(now);
    for (const { tasks, delayMs, tried } of outcome.again) {
      const dueAt = Math.ceil((now + delayMs) / DELAY_STEP_MS) * DELAY_STEP_MS;
      this.#delayed.push({ tasks, targets: batch.targets, round: tried ? batch.round + 1 : batch.round, dueAt });
    }
  }

  /** It was cancelled in the middle: the same attempt goes on later. */
  giveBack(batch: Batch): void {
    this.#inFlight.delete(batch);
    this.#ready.unshift(batch);
  }

  /** When the next delayed one is due; null when there is none. */
  nextDueAt(): number | null {
    return this.#delayed.length === 0 ? null : Math.min(...this.#delayed.map(({ dueAt }) => dueAt));
  }

  /** While nothing is under way. */
  state(): DispatchState {
    return { ready: [...this.#ready], delayed: [...this.#delayed], window: this.#window };
  }

  #wake(now: number): void {
    const due = this.#delayed.filter(({ dueAt }) => dueAt <= now);
    if (due.length === 0) return;
    this.#delayed = this.#delayed.filter(({ dueAt }) => dueAt > now);
    for (const { tasks, targets, round } of due) this.#ready.push({ tasks, targets, round });
  }

  /** With more than one target none takes more than half of the window, so that a slow one leaves room for the others. */
  #firstThatMayGo(): number {
    const held = new Map<string, number>();
    for (const batch of this.#inFlight) held.set(keyOf(batch), (held.get(keyOf(batch)) ?? 0) + 1);
    const keys = this.#ready.map(keyOf);
    const isAlone = new Set([...keys, ...held.keys()]).size <= 1;
    return keys.findIndex((key) => isAlone || (held.get(key) ?? 0) < Math.ceil(this.#window / 2));
  }

  #grow(now: number): void {
    if (now < this.#growAfter || this.#window >= LARGEST_WINDOW) return;
    this.#grown += 1;
    if (this.#grown < this.#window * this.#rules.patience) return;
    this.#grown = 0;
    this.#window += 1;
  }
}

function keyOf({ targets }: Batch): string {
  return targets.join(",");
}
