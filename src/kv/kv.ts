/**
 * The key-value contract: caches, counters, publish/subscribe, leases and the claim queue. Everything in it may be lost at any time;
 * losing it costs time, never data. Two drivers (Redis; Postgres where there is no Redis) pass one contract test.
 */

/** The longest message of publish in bytes; longer ones are refused by both drivers, since NOTIFY carries no more. */
export const MAX_MESSAGE_BYTES = 7_900;

export interface SetOptions {
  readonly ttlMs?: number;
  /** Only when the key is absent. */
  readonly ifAbsent?: boolean;
}

export interface Lease {
  readonly key: string;
  /** Grows with every owner; storage that checks it refuses a slow former owner. */
  readonly fence: number;
  /** False when another has the lease meanwhile. */
  renew(ttlMs: number): Promise<boolean>;
  release(): Promise<void>;
}

export interface Mark {
  readonly slot: number;
  readonly member: string;
  /** Before everything of its slot that is not; a member that waits already moves up. */
  readonly urgent?: boolean;
}

export interface Claim {
  readonly slot: number;
  readonly member: string;
  /** Must be given back to complete; a mark that came after the claim makes complete a no-op. */
  readonly token: string;
  /** How long it had waited when it was claimed, since its first mark. */
  readonly ageMs: number;
}

export interface SlotState {
  readonly slot: number;
  /** Members that are not completed, claimed ones included. */
  readonly depth: number;
  /** Age in ms of the oldest unclaimed mark, 0 when there is none. */
  readonly oldestAgeMs: number;
}

/** Members wait in slots, which are apart from each other: a claim may take from many at once. Every call is one round trip for its batch. */
export interface ClaimQueue {
  /** Adds members or, when present, notes that they were marked again. Whoever watches the queue is woken. Returns how many are new. */
  mark(marks: readonly Mark[]): Promise<number>;
  /** Oldest first in each slot. No slot takes more than its even share while another has something left. */
  claim(slots: readonly number[], limit: number, leaseMs: number): Promise<Claim[]>;
  /** Removes what was not marked again since its claim; the rest becomes claimable at once. */
  complete(claims: readonly Claim[]): Promise<void>;
  /** Also shortens: what is extended by nothing may be claimed again at once, waiting since its first mark. */
  extend(claims: readonly Claim[], leaseMs: number): Promise<void>;
  /** Of these slots, in their order. */
  states(slots: readonly number[]): Promise<SlotState[]>;
  /** A message for every batch of marks: the slots, separated by commas, or an empty text when they are many. */
  watch(handlers: SubscribeHandlers): Promise<Subscription>;
  /** Leases that this object's claims found run out, whoever had them: of killed claimers, or given back. */
  readonly expiries: number;
}

export interface GroupEntry {
  readonly member: string;
  readonly value: string;
}

/** A small set of named values that expire one by one, such as the live processes; written and read without a scan. */
export interface Group {
  /** Writes, then lists what lives: of two writers at once at least one sees the other. */
  put(member: string, value: string, ttlMs: number): Promise<GroupEntry[]>;
  list(): Promise<GroupEntry[]>;
  remove(member: string): Promise<void>;
}

export interface Subscription {
  close(): Promise<void>;
}

export interface SubscribeHandlers {
  onMessage(message: string): void;
  /** The channel was lost: messages may have been missed until onReady is called. */
  onLost(): void;
  /** Subscribed, at first and after every loss. */
  onReady(): void;
}

export interface Kv {
  readonly driver: "redis" | "postgres";
  get(key: string): Promise<string | null>;
  getMany(keys: readonly string[]): Promise<(string | null)[]>;
  set(key: string, value: string, options?: SetOptions): Promise<boolean>;
  remove(...keys: readonly string[]): Promise<void>;
  /** Adds and returns the new value; the TTL is set when the counter is created. */
  increment(key: string, by: number, ttlMs?: number): Promise<number>;
  /** Keys by prefix in bounded steps. Redis walks its whole key space for it: for repair and tests; what is read often is a group. */
  listPrefix(prefix: string, limit: number): Promise<{ key: string; value: string }[]>;
  group(name: string): Group;
  /** Null while somebody has it, the asker included. */
  acquireLease(key: string, owner: string, ttlMs: number): Promise<Lease | null>;
  publish(channel: string, message: string): Promise<void>;
  /**
   * Works also while the service is away; onReady says when it listens. Messages of all channels of this Kv arrive in the order in which
   * the service took them.
   */
  subscribe(channel: string, handlers: SubscribeHandlers): Promise<Subscription>;
  queue(name: string): ClaimQueue;
  check(signal?: AbortSignal): Promise<void>;
  close(): Promise<void>;
}
