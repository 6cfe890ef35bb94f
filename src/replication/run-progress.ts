/** Figures of a run with its pace: what this process saw of it lately is kept for that, bounded, and may be lost. */
import { LRUCache } from "lru-cache";
import { addSample, estimate } from "./plan/progress.ts";
import type { ProgressSample } from "./plan/progress.ts";
import type { ItemAction, ItemStatus } from "./plan/item.ts";
import type { ItemCount, RunDetail } from "./run-view.ts";

export interface ItemTotals {
  readonly total: number;
  readonly pending: number;
  readonly succeeded: number;
  readonly skipped: number;
  readonly failed: number;
  readonly stopped: number;
  /** Found as they should be, so that they never became items. */
  readonly unchanged: number;
}

export interface Progress {
  readonly bytesTotal: number;
  readonly bytesCopied: number;
  readonly bytesMounted: number;
  readonly bytesSkipped: number;
  readonly bytesPerSecond: number | null;
  readonly secondsLeft: number | null;
  readonly planned: boolean;
  readonly items: ItemTotals;
}

const MAX_RUNS = 1_000;

export class RunProgress {
  readonly #samples = new LRUCache<number, ProgressSample[]>({ max: MAX_RUNS });

  of(detail: RunDetail): Progress {
    const { execution, run } = detail;
    const items = totalsOf(detail.items, run?.itemsUnchanged ?? 0);
    const bytes = {
      bytesTotal: run?.bytesTotal ?? 0,
      bytesCopied: run?.bytesCopied ?? 0,
      bytesMounted: run?.bytesMounted ?? 0,
      bytesSkipped: run?.bytesSkipped ?? 0,
    };
    const planned = execution.plannedAt !== null;
    const goal = { bytesTotal: bytes.bytesTotal, itemsTotal: items.total, planned };
    const now: ProgressSample = {
      atMs: detail.readAt.getTime(),
      bytesCopied: bytes.bytesCopied,
      bytesDone: bytes.bytesCopied + bytes.bytesMounted + bytes.bytesSkipped,
      itemsDone: items.total - items.pending,
    };
    if (execution.status === "Running") {
      const known = this.#samples.get(execution.id) ?? beginning(execution.startedAt);
      const { bytesPerSecond, secondsLeft } = estimate(known, now, goal);
      this.#samples.set(execution.id, addSample(known, now));
      return { ...bytes, bytesPerSecond, secondsLeft, planned, items };
    }
    this.#samples.delete(execution.id);
    if (execution.endedAt === null) return { ...bytes, bytesPerSecond: null, secondsLeft: null, planned, items };
    const { bytesPerSecond } = estimate(beginning(execution.startedAt), { ...now, atMs: execution.endedAt.getTime() }, goal);
    return { ...bytes, bytesPerSecond, secondsLeft: 0, planned, items };
  }
}

/** Nothing was done when the run began. */
function beginning(startedAt: Date | null): ProgressSample[] {
  return startedAt ? [{ atMs: startedAt.getTime(), bytesCopied: 0, bytesDone: 0, itemsDone: 0 }] : [];
}

export function totalsOf(counts: readonly ItemCount[], unchanged: number): ItemTotals {
  const sum = (status: ItemStatus): number => sumOf(counts.filter((count) => count.status === status));
  return {
    total: sumOf(counts),
    pending: sum("Pending"),
    succeeded: sum("Success"),
    skipped: sum("Skipped"),
    failed: sum("Error"),
    stopped: sum("Stopped"),
    unchanged,
  };
}

export function itemsToDo(counts: readonly ItemCount[], action: ItemAction): number {
  return sumOf(counts.filter((count) => count.action === action));
}

function sumOf(counts: readonly ItemCount[]): number {
  return counts.reduce((total, { count }) => total + count, 0);
}
