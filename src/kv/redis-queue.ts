/** The claim queue over Redis: one script for each call, which nobody else interrupts. */
import type { Claim, ClaimQueue, Mark, SlotState, SubscribeHandlers, Subscription } from "./kv.ts";
import { wakeMessage } from "./queue-wake.ts";
import * as scripts from "./redis-scripts.ts";
import type { RedisScript } from "./redis-scripts.ts";

/** Runs one of the scripts; false and nil arrive as null. */
export type RunScript = (script: RedisScript, keys: readonly string[], args: readonly (string | number)[]) => Promise<unknown>;

export interface RedisQueueParts {
  /** Its name tells the scripts those of the other keys. */
  readonly counter: string;
  readonly channel: string;
  readonly run: RunScript;
  readonly watch: (handlers: SubscribeHandlers) => Promise<Subscription>;
}

/** Members of one script call: Redis serves nobody else while it runs. */
const CHUNK = 5_000;

export class RedisClaimQueue implements ClaimQueue {
  readonly #parts: RedisQueueParts;
  #expiries = 0;

  constructor(parts: RedisQueueParts) {
    this.#parts = parts;
  }

  async mark(marks: readonly Mark[]): Promise<number> {
    const added = await this.#chunked(scripts.QUEUE_MARK, marks, (chunk) => [
      this.#parts.channel,
      wakeMessage(chunk),
      ...chunk.flatMap(({ slot, member, urgent }) => [slot, member, urgent ? 1 : 0]),
    ]);
    return added.reduce<number>((sum, count) => sum + Number(count), 0);
  }

  async claim(slots: readonly number[], limit: number, leaseMs: number): Promise<Claim[]> {
    if (slots.length === 0 || limit === 0) return [];
    const [first, expired, now, found] = await this.#run(scripts.QUEUE_CLAIM, [Math.min(limit, CHUNK), leaseMs, ...slots]);
    const token = String(first);
    const picked = Array.isArray(found) ? (found as unknown[]) : [];
    this.#expiries += Number(expired ?? 0);
    const claims: Claim[] = [];
    for (let index = 0; index < picked.length;) {
      const slot = Number(picked[index]);
      const end = index + 2 + Number(picked[index + 1]) * 2;
      for (index += 2; index < end; index += 2) {
        claims.push({ slot, member: String(picked[index]), token, ageMs: Math.max(0, Number(now) - Number(picked[index + 1])) });
      }
    }
    return claims;
  }

  async complete(claims: readonly Claim[]): Promise<void> {
    await this.#chunked(scripts.QUEUE_COMPLETE, claims, flatten);
  }

  async extend(claims: readonly Claim[], leaseMs: number): Promise<void> {
    await this.#chunked(scripts.QUEUE_EXTEND, claims, (chunk) => [leaseMs, ...flatten(chunk)]);
  }

  get expiries(): number {
    return this.#expiries;
  }

  async states(slots: readonly number[]): Promise<SlotState[]> {
    const answer = slots.length === 0 ? [] : await this.#run(scripts.QUEUE_STATES, slots);
    return slots.map((slot, index) => ({ slot, depth: Number(answer[index * 2]), oldestAgeMs: Number(answer[index * 2 + 1]) }));
  }

  watch(handlers: SubscribeHandlers): Promise<Subscription> {
    return this.#parts.watch(handlers);
  }

  async #chunked<T>(script: RedisScript, items: readonly T[], args: (chunk: readonly T[]) => (string | number)[]): Promise<unknown[]> {
    const calls: Promise<unknown>[] = [];
    for (let start = 0; start < items.length; start += CHUNK) {
      calls.push(this.#parts.run(script, [this.#parts.counter], args(items.slice(start, start + CHUNK))));
    }
    return Promise.all(calls);
  }

  async #run(script: RedisScript, args: readonly (string | number)[]): Promise<unknown[]> {
    const answer = await this.#parts.run(script, [this.#parts.counter], args);
    return Array.isArray(answer) ? answer : [];
  }
}

function flatten(claims: readonly Claim[]): (string | number)[] {
  return claims.flatMap(({ slot, member, token }) => [slot, member, token]);
}
