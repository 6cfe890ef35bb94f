/**
 * Where a mark goes: executions are spread over fixed logical slots, and within a slot every vendor has a lane of its own, so that the flood of
 * one does not delay the others. Pure, so that producers, instances and the refresh workflow agree without asking each other.
 */
import { vendors } from "./status.ts";

export interface Marked {
  readonly id: number;
  readonly vendor: string;
}

/**
 * Lanes by vendor. A number, once given, is never given to another vendor: processes of two versions share the queue. Vendors without
 * a lane of their own share the last.
 */
const LANE_OF: ReadonlyMap<string, number> = new Map(
  Object.entries({
    [vendors.replication]: 0,
    [vendors.garbageCollection]: 1,
    [vendors.cacheEviction]: 2,
    [vendors.uploadExpiry]: 3,
    [vendors.reconcile]: 4,
    [vendors.cacheWarmUp]: 5,
    TUF: 6,
  }),
);
export const LANES = 8;
const SHARED_LANE = LANES - 1;

export function slotOf(id: number, slots: number): number {
  return id % slots;
}

export function laneOf(vendor: string): number {
  return LANE_OF.get(vendor) ?? SHARED_LANE;
}

/** The vendor that a lane is for; "other" for the shared one. */
export function laneName(lane: number): string {
  for (const [vendor, number] of LANE_OF) if (number === lane) return vendor;
  return "other";
}

/** The number under which the queue keeps a lane of a slot. */
export function placeOf(slot: number, lane: number): number {
  return slot * LANES + lane;
}

export function slotOfPlace(place: number): number {
  return Math.floor(place / LANES);
}

export function laneOfPlace(place: number): number {
  return place % LANES;
}

/** All lanes of the slots, lane by lane of one slot after the other, beginning at another slot every time: none is always the first. */
export function placesOf(slots: readonly number[], turn: number): number[] {
  const first = slots.length === 0 ? 0 : turn % slots.length;
  const turned = [...slots.slice(first), ...slots.slice(0, first)];
  return turned.flatMap((slot) => Array.from({ length: LANES }, (_, lane) => placeOf(slot, lane)));
}

/** The published form of a member: `<id>:<VENDOR>`. */
export function encodeMember({ id, vendor }: Marked): string {
  return `${id}:${vendor}`;
}

/** Null for what is no member. */
export function decodeMember(text: string): Marked | null {
  const [, digits, vendor] = /^([1-9]\d{0,15}):([A-Z][A-Z0-9_]{0,63})$/.exec(text) ?? [];
  const id = Number(digits);
  return vendor === undefined || !Number.isSafeInteger(id) ? null : { id, vendor };
}

export interface MarkReason {
  /** A task ended for good, so its execution may have. */
  readonly mayBeFinal?: boolean;
  /** A person stopped the execution, or its task. */
  readonly stopped?: boolean;
  /** Somebody looks at the execution now. */
  readonly watched?: boolean;
}

/** Whether a mark goes before the others of its lane. */
export function isUrgent({ mayBeFinal = false, stopped = false, watched = false }: MarkReason): boolean {
  return mayBeFinal || stopped || watched;
}
