/** The relay of the outbox as one long activity. */
import { Context } from "@temporalio/activity";
import { withHeartbeat } from "../shared/heartbeat.ts";
import type { ActivityServices } from "../services.ts";

/** Then another activity takes over, so that histories stay small and work moves to new workers. */
const TURN_MS = 60 * 60_000;

export function outboxActivities({ relay }: ActivityServices) {
  return {
    /** Returns how many entries were handled in this turn. */
    async relayOutbox(): Promise<number> {
      const counter = { handled: 0 };
      await withHeartbeat(
        () => counter.handled,
        async (signal) => {
          const turn = AbortSignal.any([signal, AbortSignal.timeout(TURN_MS)]);
          await relay.run(turn, (handled) => {
            counter.handled += handled;
          });
        },
      );
      const context = Context.current();
      const details = context.cancellationDetails;
      // A worker that shuts down hands over at once; only a person's stop ends the relay.
      if (context.cancellationSignal.aborted && !details?.workerShutdown) context.cancellationSignal.throwIfAborted();
      return counter.handled;
    },
  };
}
