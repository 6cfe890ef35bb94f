/** How fast a run goes and how long it may still take, from what was seen of it. Pure. */

/** What was done at one moment: bytes are those copied, mounted and found there already. */
export interface ProgressSample {
  readonly atMs: number;
  readonly bytesCopied: number;
  readonly bytesDone: number;
  readonly itemsDone: number;
}

export interface ProgressGoal {
  readonly bytesTotal: number;
  readonly itemsTotal: number;
  /** While planning goes on the totals grow, so that no end can be told. */
  readonly planned: boolean;
}

export interface ProgressEstimate {
  /** Null: nothing can be said yet. */
  readonly bytesPerSecond: number | null;
  readonly secondsLeft: number | null;
}

const WINDOW_MS = 30_000;
/** Of what lies closer together the pace would be noise. */
const LEAST_SPAN_MS = 1_000;

/** The samples that still count, with a new one; the last one before the window is kept as its beginning. */
export function addSample(samples: readonly ProgressSample[], sample: ProgressSample): ProgressSample[] {
  const since = sample.atMs - WINDOW_MS;
  const firstInside = samples.findIndex(({ atMs }) => atMs >= since);
  const kept = firstInside === -1 ? samples.slice(-1) : samples.slice(Math.max(0, firstInside - 1));
  const last = kept.at(-1);
  // One a second is enough, however many ask.
  if (last && sample.atMs - last.atMs < LEAST_SPAN_MS) return kept.length === samples.length ? [...samples] : kept;
  return [...kept, sample];
}

/** From the oldest sample to now; `now` is part of what is known even if it came too soon to be kept. */
export function estimate(samples: readonly ProgressSample[], now: ProgressSample, goal: ProgressGoal): ProgressEstimate {
  const from = samples[0];
  const spanMs = from ? now.atMs - from.atMs : 0;
  if (!from || spanMs < LEAST_SPAN_MS) return { bytesPerSecond: null, secondsLeft: null };
  const perSecond = (before: number, after: number): number => (Math.max(0, after - before) * 1000) / spanMs;
  const bytesPerSecond = Math.round(perSecond(from.bytesCopied, now.bytesCopied));
  if (!goal.planned) return { bytesPerSecond, secondsLeft: null };
  const left = [
    timeFor(goal.bytesTotal - now.bytesDone, perSecond(from.bytesDone, now.bytesDone)),
    timeFor(goal.itemsTotal - now.itemsDone, perSecond(from.itemsDone, now.itemsDone)),
  ].filter((seconds) => seconds !== null);
  return { bytesPerSecond, secondsLeft: left.length === 0 ? null : Math.ceil(Math.max(...left)) };
}

function timeFor(remaining: number, perSecond: number): number | null {
  if (remaining <= 0) return 0;
  return perSecond > 0 ? remaining / perSecond : null;
}
