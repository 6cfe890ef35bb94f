/** Follows changes of local content: notes them for the policies that they concern, and asks for a run a moment later. */
import type { CatalogEvent } from "../../catalog/content-records.ts";
import type { EventListener } from "../../catalog/event-dispatcher.ts";
import { toSlipwayError } from "../../core/errors.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { ReplicationWorkflows } from "../../temporal/replication.ts";
import { changesFor } from "../plan/events.ts";
import type { Policy } from "../plan/policy.ts";
import type { EventStore } from "./event-store.ts";

export interface ReplicationListenerOptions {
  readonly policies: { listEventPolicies(): Promise<Policy[]> };
  readonly events: Pick<EventStore, "note">;
  readonly workflows: Pick<ReplicationWorkflows, "triggerEvents">;
  readonly debounceMs: number;
  readonly logger: Logger;
}

/** The rows are what counts: once they are written, a run that could not be asked for is started by the reconciler. */
export function replicationListener({ policies, events, workflows, debounceMs, logger }: ReplicationListenerOptions): EventListener {
  return async (changes: readonly CatalogEvent[], signal) => {
    const candidates = changes.filter(({ origin }) => origin !== "fill");
    if (candidates.length === 0) return;
    const concerned: number[] = [];
    for (const policy of await policies.listEventPolicies()) {
      const noted = safely(() => changesFor(policy, candidates), policy, logger);
      if (noted.length === 0) continue;
      await events.note(noted.map((change) => ({ policyId: policy.id, ...change })));
      concerned.push(policy.id);
    }
    for (const policyId of concerned) {
      await workflows.triggerEvents(policyId, debounceMs, { signal }).catch((error: unknown) => {
        logger.warn({ policy: policyId, reason: toSlipwayError(error).message }, "a run for changed content starts later");
      });
    }
  };
}

/** A policy whose filters cannot be read must not hold up the others. */
function safely<T>(work: () => T[], policy: Policy, logger: Logger): T[] {
  try {
    return work();
  } catch (error) {
    logger.warn({ policy: policy.id, error }, "the filters of a policy cannot be read");
    return [];
  }
}
