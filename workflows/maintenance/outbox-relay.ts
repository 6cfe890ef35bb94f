/**
 * Keeps one relay of the outbox going: a long heartbeating activity, replaced every hour and as soon as its worker is gone. Each replacement
 * begins a new history.
 */
import { continueAsNew, isCancellation, log, rootCause, setCurrentDetails, sleep } from "@temporalio/workflow";
import { relays } from "../shared/activities.ts";

const PAUSE_AFTER_FAILURE = "10s";

export async function outboxRelay(handledBefore = 0): Promise<never> {
  let handled = handledBefore;
  setCurrentDetails(`${handled} entries handled by earlier runs`);
  try {
    handled += await relays.relayOutbox();
  } catch (error) {
    if (isCancellation(error)) throw error;
    // Whatever the reason, the outbox must go on being emptied.
    log.warn("the outbox relay failed and is started anew", { reason: rootCause(error) });
    await sleep(PAUSE_AFTER_FAILURE);
  }
  return continueAsNew<typeof outboxRelay>(handled);
}
