/** The relay of the outbox as one long activity. */
import { Context } from "@temporalio/activity";
import { withHeartbeat } from "../shared/heartbeat.ts";
import type { ActivityServices } from "../services.ts";

/** Then another activity takes over, so that histories stay small and work moves to new workers. */
const TURN_MS = 60 * 60_000;

export function outboxActivities({ relay }: ActivityServices, stopping: AbortSignal) {
  return {
    /** Returns how many entries were handled in this turn. */
    relayOutbox: async (): Promise<number> => {
      const counter = { handled: 0 };
      await withHeartbeat(
        () => counter.handled,
        async (signal) => {
          const turn = AbortSignal.any([signal, stopping, AbortSignal.timeout(TURN_MS)]);
          await relay.run(turn, (handled) => {
            counter.handled += handled;
          });
        },
      );
      const { cancellationDetails, cancellationSignal } = Context.current();
      // A worker that shuts down hands over by completing; only a stop from outside ends the relay.
      if (!cancellationDetails?.workerShutdown) cancellationSignal.throwIfAborted();
      return counter.handled;
    },
  };
}
