/** Keeps an activity's heartbeat going while it works, so that a dead worker is noticed within seconds and a cancellation arrives. */
import { Context } from "@temporalio/activity";

const EVERY_MS = 1_000;

/** The cursor is small: it ends up in histories. */
export async function withHeartbeat<T>(cursor: () => unknown, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const context = Context.current();
  context.heartbeat(cursor());
  const timer = setInterval(() => context.heartbeat(cursor()), EVERY_MS);
  try {
    return await work(context.cancellationSignal);
  } finally {
    clearInterval(timer);
  }
}
