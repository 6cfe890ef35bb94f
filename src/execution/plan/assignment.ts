/** Which instance refreshes which slots: by rendezvous hashing within a bound, or by the fixed numbers that instances were given. Pure. */

export interface FixedShard {
  readonly id: number;
  readonly total: number;
}

export interface Instance {
  readonly bootId: string;
  readonly host: string;
  readonly joinedAt: number;
  /** Null: finds its share by itself. */
  readonly fixed: FixedShard | null;
}

/** Slots by boot id. Every slot has an owner as long as there is an instance. */
export type Assignment = Readonly<Record<string, readonly number[]>>;

export interface AssignmentPlan {
  readonly assignment: Assignment;
  /** What is wrong with the numbers of the instances, one sentence each. */
  readonly problems: readonly string[];
}

export function planAssignment(instances: readonly Instance[], slots: number, previous: Assignment = {}): AssignmentPlan {
  const sorted = sortInstances(instances);
  if (sorted.some(({ fixed }) => fixed !== null)) return planFixed(sorted, slots);
  const ids = sorted.map(({ bootId }) => bootId);
  return { assignment: balance(ids, range(slots), previous), problems: [] };
}

/** By age, so that numbers shown to people stay as they are when another joins. */
export function sortInstances<Kind extends Pick<Instance, "bootId" | "joinedAt">>(instances: readonly Kind[]): Kind[] {
  return instances.toSorted((a, b) => a.joinedAt - b.joinedAt || (a.bootId < b.bootId ? -1 : 1));
}

/** How an instance is called in the log: its own number, or its place among all. */
export function shardOf(instances: readonly Instance[], bootId: string): FixedShard {
  const sorted = sortInstances(instances);
  const index = sorted.findIndex((instance) => instance.bootId === bootId);
  return sorted[index]?.fixed ?? { id: Math.max(0, index), total: sorted.length };
}

export function sameAssignment(a: Assignment, b: Assignment): boolean {
  const [left, right] = [Object.keys(a).toSorted(), Object.keys(b).toSorted()];
  return left.join() === right.join() && left.every((bootId) => a[bootId]?.join() === b[bootId]?.join());
}

/**
 * Owners keep what they have, up to their quota; every other slot goes to the instance that weighs most for it among those with room.
 * A join or a leave so moves no more than the quotas demand, and without a memory the weights alone give every planner the same.
 */
function balance(ids: readonly string[], slots: readonly number[], previous: Assignment): Assignment {
  if (ids.length === 0) return {};
  const free = new Set(slots);
  const had = new Map(ids.map((id) => [id, (previous[id] ?? []).filter((slot) => free.has(slot))]));
  const quotas = quotasOf(had, slots.length);
  const owned = new Map<string, number[]>();
  for (const [id, quota] of quotas) {
    const kept = (had.get(id) ?? []).toSorted((a, b) => weight(id, b) - weight(id, a)).slice(0, quota);
    owned.set(id, kept);
    for (const slot of kept) free.delete(slot);
  }
  const pairs = [...free].flatMap((slot) => ids.map((id) => ({ slot, id, weight: weight(id, slot) })));
  for (const { slot, id } of pairs.toSorted((a, b) => b.weight - a.weight || a.slot - b.slot || (a.id < b.id ? -1 : 1))) {
    const own = owned.get(id) ?? [];
    if (!free.has(slot) || own.length >= (quotas.get(id) ?? 0)) continue;
    own.push(slot);
    free.delete(slot);
  }
  return Object.fromEntries([...owned].map(([id, own]) => [id, own.toSorted((a, b) => a - b)]));
}

/** The even share for each; the slots that are left over stay with those that have the most. */
function quotasOf(had: ReadonlyMap<string, readonly number[]>, slots: number): Map<string, number> {
  const order = [...had].toSorted(([a, own], [b, other]) => other.length - own.length || (a < b ? -1 : 1));
  const share = Math.floor(slots / had.size);
  return new Map(order.map(([id], index) => [id, share + (index < slots % had.size ? 1 : 0)]));
}

/** Slot s belongs to s % total. What nobody, or nobody alone, claims by its number is reported and worked all the same. */
function planFixed(instances: readonly Instance[], slots: number): AssignmentPlan {
  const total = Math.max(...instances.map(({ fixed }) => fixed?.total ?? 0));
  const owners = new Map<number, Instance>();
  const problems: string[] = [];
  for (const instance of instances) {
    const { fixed, host } = instance;
    if (fixed === null) {
      problems.push(`${host} has no instance id, while others have one of ${total}`);
    } else if (fixed.total !== total) {
      problems.push(`${host} is ${fixed.id} of ${fixed.total}, while others are of ${total}`);
    } else if (owners.has(fixed.id)) {
      problems.push(`instance id ${fixed.id} of ${total} is used by ${owners.get(fixed.id)?.host} and by ${host}`);
    } else {
      owners.set(fixed.id, instance);
    }
  }
  for (const id of range(total)) if (!owners.has(id)) problems.push(`instance id ${id} of ${total} is missing`);
  const orphans = range(slots).filter((slot) => !owners.has(slot % total));
  const standIns = owners.size > 0 ? [...owners.values()] : instances;
  const extra = balance(
    standIns.map(({ bootId }) => bootId),
    orphans,
    {},
  );
  const assignment: Record<string, number[]> = Object.fromEntries(instances.map(({ bootId }) => [bootId, [...(extra[bootId] ?? [])]]));
  for (const slot of range(slots)) {
    const owner = owners.get(slot % total);
    if (owner) assignment[owner.bootId]?.push(slot);
  }
  return { assignment: Object.fromEntries(Object.entries(assignment).map(([id, own]) => [id, own.toSorted((a, b) => a - b)])), problems };
}

/**
 * The number of an instance, from a number or from a name that ends with one, as those of a StatefulSet's pods do (core-3). Null when
 * the name has none.
 */
export function instanceIdFrom(name: string): number | null {
  const [, digits] = /^(?:.*-)?(\d{1,6})$/.exec(name) ?? [];
  return digits === undefined ? null : Number(digits);
}

/** How much an instance wants a slot: FNV-1a over both names, mixed so that neighbours differ in every bit. */
function weight(id: string, slot: number): number {
  let hash = 0x811c9dc5;
  for (const character of `${id}|${slot}`) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}
