/** The queue of executions to refresh: a claim queue whose places are slots and lanes. */
import type { Claim, ClaimQueue, Kv, SubscribeHandlers, Subscription } from "../../kv/kv.ts";
import { isWokenBy } from "../../kv/queue-wake.ts";
import { decodeMember, encodeMember, laneOf, laneOfPlace, laneName, LANES, placeOf, placesOf, slotOf, slotOfPlace } from "../plan/slots.ts";
import type { Marked } from "../plan/slots.ts";

export interface RefreshMark extends Marked {
  readonly urgent: boolean;
}

export interface RefreshClaim extends Marked {
  readonly slot: number;
  readonly claim: Claim;
}

export interface LaneState {
  readonly slot: number;
  readonly vendor: string;
  readonly depth: number;
  readonly oldestAgeMs: number;
}

export interface WatchHandlers {
  /** Something was marked in one of the slots, or may have been. */
  onMarks(): void;
  /** Messages begin, or begin again: what was marked before may be lost with the service. */
  onBack(): void;
}

export class RefreshQueue {
  readonly slots: number;
  readonly #queue: ClaimQueue;
  #turn = 0;

  /** The number of slots is part of the name: processes with another number do not take each other's members for their own. */
  constructor(kv: Pick<Kv, "queue">, slots: number) {
    this.slots = slots;
    this.#queue = kv.queue(`execution-refresh-${slots}`);
  }

  /** Returns how many were not waiting before. */
  mark(marks: readonly RefreshMark[]): Promise<number> {
    return this.#queue.mark(
      marks.map((mark) => ({
        slot: placeOf(slotOf(mark.id, this.slots), laneOf(mark.vendor)),
        member: encodeMember(mark),
        urgent: mark.urgent,
      })),
    );
  }

  async claim(slots: readonly number[], limit: number, leaseMs: number): Promise<RefreshClaim[]> {
    this.#turn += 1;
    const claims = await this.#queue.claim(placesOf(slots, this.#turn), limit, leaseMs);
    const found = claims.map((claim) => ({ claim, marked: decodeMember(claim.member) }));
    const strange = found.filter(({ marked }) => marked === null).map(({ claim }) => claim);
    if (strange.length > 0) await this.#queue.complete(strange);
    return found.flatMap(({ claim, marked }) => (marked === null ? [] : [{ ...marked, slot: slotOfPlace(claim.slot), claim }]));
  }

  async complete(claims: readonly RefreshClaim[]): Promise<void> {
    if (claims.length > 0) await this.#queue.complete(claims.map(({ claim }) => claim));
  }

  async extend(claims: readonly RefreshClaim[], leaseMs: number): Promise<void> {
    if (claims.length > 0)
      await this.#queue.extend(
        claims.map(({ claim }) => claim),
        leaseMs,
      );
  }

  /** Leases that claims of this process found run out. */
  get expiries(): number {
    return this.#queue.expiries;
  }

  /** Every lane of every slot. */
  async states(): Promise<LaneState[]> {
    const places = Array.from({ length: this.slots * LANES }, (_, place) => place);
    const states = await this.#queue.states(places);
    return states.map(({ slot: place, depth, oldestAgeMs }) => ({
      slot: slotOfPlace(place),
      vendor: laneName(laneOfPlace(place)),
      depth,
      oldestAgeMs,
    }));
  }

  watch(slots: () => readonly number[], { onMarks, onBack }: WatchHandlers): Promise<Subscription> {
    // Nobody knows what happened before we listened, so the first time counts as a return too.
    let lost = true;
    const handlers: SubscribeHandlers = {
      onMessage: (message) => {
        if (isWokenBy(message, new Set(placesOf(slots(), 0)))) onMarks();
      },
      onLost: () => void (lost = true),
      onReady: () => {
        if (lost) onBack();
        lost = false;
        onMarks();
      },
    };
    return this.#queue.watch(handlers);
  }
}
