/** What the refresh workflow decides about instances, and what it hands to its activities. Pure: the workflow imports it. */
import { planAssignment, shardOf, sortInstances } from "../../execution/plan/assignment.ts";
import type { Assignment, FixedShard, Instance } from "../../execution/plan/assignment.ts";

/** The instances that announce themselves as well, as one process sees them. */
export interface Membership {
  readonly instances: readonly Instance[];
  readonly slots: number;
}

/** Handed from run to run. */
export interface RefreshState {
  /** Null before anybody was asked. */
  readonly membership: Membership | null;
  /** Boot ids of instances that announce themselves but do not work. */
  readonly suspects: readonly string[];
  readonly assignment: Assignment;
}

export interface SlotHolding {
  readonly bootId: string;
  readonly queue: string;
  readonly slots: readonly number[];
  readonly shard: FixedShard;
  readonly sweeps: boolean;
}

export interface RefreshPlan {
  readonly holdings: readonly SlotHolding[];
  readonly assignment: Assignment;
  readonly problems: readonly string[];
}

export type RefreshEvent =
  | { readonly kind: "membership"; readonly membership: Membership }
  /** An activity ended in order, because its hour or its worker did. */
  | { readonly kind: "turn" }
  | { readonly kind: "failed"; readonly bootId: string }
  | { readonly kind: "well"; readonly bootId: string };

export const NO_REFRESH_STATE: RefreshState = { membership: null, suspects: [], assignment: {} };

export function planRefresh(state: RefreshState, queueOf: (instance: Instance) => string): RefreshPlan {
  const { instances, slots } = state.membership ?? { instances: [], slots: 0 };
  const usable = sortInstances(instances.filter(({ bootId }) => !state.suspects.includes(bootId)));
  const { assignment, problems } = planAssignment(usable, slots, state.assignment);
  const holdings = usable.flatMap((instance, index) => {
    const own = assignment[instance.bootId] ?? [];
    if (own.length === 0 && index > 0) return [];
    const { bootId } = instance;
    return [{ bootId, queue: queueOf(instance), slots: own, shard: shardOf(usable, bootId), sweeps: index === 0 }];
  });
  return { holdings, assignment, problems };
}

/** The state after an event. Instances that are gone are forgotten as suspects: they come back under another boot id. */
export function afterEvent(state: RefreshState, event: RefreshEvent): RefreshState {
  switch (event.kind) {
    case "membership": {
      const present = new Set(event.membership.instances.map(({ bootId }) => bootId));
      return { ...state, membership: event.membership, suspects: state.suspects.filter((bootId) => present.has(bootId)) };
    }
    case "failed":
      return { ...state, suspects: [...new Set([...state.suspects, event.bootId])] };
    case "well":
      return { ...state, suspects: state.suspects.filter((bootId) => bootId !== event.bootId) };
    case "turn":
      return state;
  }
}

/** By what two memberships are told apart. */
export function membershipKey({ instances, slots }: Membership): string {
  const lines = instances.map(({ bootId, fixed }) => `${bootId} ${fixed === null ? "" : `${fixed.id}/${fixed.total}`}`);
  return [String(slots), ...lines.toSorted()].join("\n");
}
