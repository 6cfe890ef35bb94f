/** The long activities of the refresh: one watches who is there, one for each instance holds its slots. */
import { Context } from "@temporalio/activity";
import { sleep } from "../../src/core/clock.ts";
import type { RefreshInstances } from "../../src/execution/refresh/instances.ts";
import type { Refresher } from "../../src/execution/refresh/refresher.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import { membershipKey } from "../../src/temporal/plan/refresh.ts";
import type { Membership, SlotHolding } from "../../src/temporal/plan/refresh.ts";
import { guard } from "../shared/guard.ts";
import { withHeartbeat } from "../shared/heartbeat.ts";

export interface RefreshServices {
  readonly refresher: Pick<Refresher, "hold">;
  readonly instances: Pick<RefreshInstances, "waitForChange" | "slots">;
  readonly logger: Logger;
}

export type RefreshActivities = ReturnType<typeof refreshActivities>;

/** Then another activity takes over, so that work moves to new workers and histories stay small. */
const TURN_MS = 60 * 60_000;
const REPLACED_MS = 10_000;

export function refreshActivities({ refresher, instances, logger }: RefreshServices, stopping: AbortSignal) {
  return {
    /** Resolves when the membership differs from what the workflow knows. */
    watchInstances: guard(logger, (known: Membership | null): Promise<Membership> =>
      withHeartbeat(
        () => null,
        async (signal) => {
          const { slots } = instances;
          const before = known === null ? null : membershipKey(known);
          const found = await instances.waitForChange((seen) => membershipKey({ instances: seen, slots }) === before, signal);
          return { instances: found, slots };
        },
      ),
    ),

    /** Refreshes the slots until its turn is over. */
    holdSlots: guard(logger, async (holding: SlotHolding): Promise<void> => {
      await withHeartbeat(
        () => null,
        async (signal) => {
          const turn = AbortSignal.any([signal, stopping, AbortSignal.timeout(TURN_MS)]);
          await refresher.hold(holding, turn);
          // Replaced by a newer run, whose news of our end is under way: an answer of our own would find nobody.
          if (!turn.aborted) await sleep(REPLACED_MS, turn).catch(() => undefined);
        },
      );
      const { cancellationDetails, cancellationSignal } = Context.current();
      // A worker that shuts down hands over by completing.
      if (!cancellationDetails?.workerShutdown) cancellationSignal.throwIfAborted();
    }),

    /** Answers when the instance takes tasks at all. */
    probeInstance: guard(logger, async (): Promise<void> => undefined),
  };
}
