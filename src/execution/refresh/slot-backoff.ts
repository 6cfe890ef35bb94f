/** Slots whose batch met trouble of the database rest, each longer the more often it happened, so that nothing spins while it is away. */
import { backoffDelay } from "../../core/backoff.ts";

const PAUSE = { baseMs: 500, capMs: 10_000 } as const;

export class SlotBackoff {
  readonly #resting = new Map<number, { readonly failures: number; readonly until: number }>();

  ready(slots: readonly number[], now: number): number[] {
    if (this.#resting.size === 0) return [...slots];
    return slots.filter((slot) => (this.#resting.get(slot)?.until ?? 0) <= now);
  }

  /** Returns the longest pause. */
  failed(slots: Iterable<number>, now: number): number {
    let longest = 0;
    for (const slot of new Set(slots)) {
      const failures = (this.#resting.get(slot)?.failures ?? 0) + 1;
      const pause = backoffDelay(failures, PAUSE);
      this.#resting.set(slot, { failures, until: now + pause });
      longest = Math.max(longest, pause);
    }
    return longest;
  }

  worked(slots: Iterable<number>): void {
    if (this.#resting.size > 0) for (const slot of slots) this.#resting.delete(slot);
  }

  get size(): number {
    return this.#resting.size;
  }
}
