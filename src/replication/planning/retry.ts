/** A page that fails is asked for again within the step; after that the step fails, and is repeated later. */
import { backoffDelay } from "../../core/backoff.ts";
import { sleep } from "../../core/clock.ts";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";

const ATTEMPTS = 3;
const BACKOFF = { baseMs: 200, capMs: 2_000 };
/** A registry that wants to be left alone for longer is asked by the next step. */
const LONGEST_WAIT_MS = 5_000;

export async function insist<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    if (signal.aborted) throw new SlipwayError("CANCELLED", { cause: signal.reason });
    try {
      return await work();
    } catch (error) {
      const wait = waitFor(error, attempt);
      if (wait === null) throw error;
      await sleep(wait, signal).catch((cause: unknown) => {
        throw new SlipwayError("CANCELLED", { cause });
      });
    }
  }
}

function waitFor(error: unknown, attempt: number): number | null {
  if (!isSlipwayError(error) || !error.retryable || attempt >= ATTEMPTS) return null;
  const asked = error.retryAfterSeconds === undefined ? 0 : error.retryAfterSeconds * 1000;
  return asked > LONGEST_WAIT_MS ? null : Math.max(asked, backoffDelay(attempt, BACKOFF));
}
