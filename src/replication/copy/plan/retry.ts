/** When a task is tried again, and for how long trying makes sense. Pure. */
import { backoffDelay } from "../../../core/backoff.ts";
import type { ExecutionTrigger } from "../../../execution/plan/status.ts";

const HOUR_MS = 3_600_000;
/** An event has nobody who would start it again; a schedule comes round and a person looks. */
const BUDGET_MS: Readonly<Record<ExecutionTrigger, number>> = { event: 72 * HOUR_MS, scheduled: 6 * HOUR_MS, manual: 6 * HOUR_MS };

const BACKOFF = {
  limited: { baseMs: 10_000, capMs: HOUR_MS },
  unavailable: { baseMs: 4_000, capMs: HOUR_MS },
} as const;

export interface RetryQuestion {
  readonly reason: "limited" | "unavailable";
  /** As the other side asked; null when it did not. */
  readonly retryAfterMs: number | null;
  readonly round: number;
  readonly trigger: ExecutionTrigger;
  /** Since the execution began. */
  readonly elapsedMs: number;
  readonly random?: () => number;
}

/** Null: the budget is spent. */
export function retryDelay(question: RetryQuestion): number | null {
  const { reason, retryAfterMs, round, random } = question;
  const own = backoffDelay(Math.max(1, round + 1), { ...BACKOFF[reason], ...(random ? { random } : {}) });
  // A little later than asked for, so that those who were told the same do not come together.
  const delay = retryAfterMs === null ? own : Math.round(retryAfterMs * (1 + 0.1 * (random ?? Math.random)())) + 250;
  return question.elapsedMs + delay > BUDGET_MS[question.trigger] ? null : delay;
}
