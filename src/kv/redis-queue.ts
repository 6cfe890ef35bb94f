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
    const calls: Promise<unknown>[] = [];
    for (let start = 0; start < marks.length; start += CHUNK) {
      const chunk = marks.slice(start, start + CHUNK);
      const groups = Map.groupBy(chunk, ({ slot, urgent }) => slot * 2 + (urgent ? 1 : 0));
      const args: (string | number)[] = [this.#parts.channel, wakeMessage(chunk)];
      for (const [group, some] of groups) {
        args.push(group >> 1, group & 1, some.length);
        for (const { member } of some) args.push(member);
      }
      calls.push(this.#run(scripts.QUEUE_MARK, args));
    }
    return (await Promise.all(calls)).reduce<number>((sum, count) => sum + Number(count), 0);
  }

  async claim(slots: readonly number[], limit: number, leaseMs: number): Promise<Claim[]> {
    if (slots.length === 0 || limit === 0) return [];
    const [token, expired, now, parts] = listOf(await this.#run(scripts.QUEUE_CLAIM, [Math.min(limit, CHUNK), leaseMs, ...slots]));
    this.#expiries += Number(expired ?? 0);
    const found = listOf(parts).map((part) => listOf(part));
    const size = found.reduce((sum, [, picked]) => sum + listOf(picked).length / 2, 0);
    return found.flatMap(([place, list]) => {
      const [slot, picked] = [Number(place), listOf(list)];
      return Array.from({ length: picked.length / 2 }, (_, index) => {
        const score = Number(picked[index * 2 + 1]);
        const markedAt = score < 0 ? score + scripts.URGENT_AHEAD_MS : score;
        return { slot, member: String(picked[index * 2]), token: `${String(token)}:${size}`, ageMs: Math.max(0, Number(now) - markedAt) };
      });
    });
  }

  async complete(claims: readonly Claim[]): Promise<void> {
    await this.#ofEach(claims, async (token, whole, members) => {
      if (whole && Number(await this.#run(scripts.QUEUE_COMPLETE, [token])) >= 0) return;
      await this.#run(scripts.QUEUE_COMPLETE_SOME, [token, ...members()]);
    });
  }

  async extend(claims: readonly Claim[], leaseMs: number): Promise<void> {
    await this.#ofEach(claims, async (token, whole, members) => {
      if (whole && Number(await this.#run(scripts.QUEUE_EXTEND, [token, leaseMs])) >= 0) return;
      await this.#run(scripts.QUEUE_EXTEND_SOME, [token, leaseMs, ...members()]);
    });
  }

  get expiries(): number {
    return this.#expiries;
  }

  async states(slots: readonly number[]): Promise<SlotState[]> {
    const answer = slots.length === 0 ? [] : listOf(await this.#run(scripts.QUEUE_STATES, slots));
    return slots.map((slot, index) => ({ slot, depth: Number(answer[index * 2]), oldestAgeMs: Number(answer[index * 2 + 1]) }));
  }

  watch(handlers: SubscribeHandlers): Promise<Subscription> {
    return this.#parts.watch(handlers);
  }

  /** The token tells how many were claimed with it: all of them together need not be named. */
  async #ofEach(
    claims: readonly Claim[],
    call: (token: string, whole: boolean, members: () => (string | number)[]) => Promise<void>,
  ): Promise<void> {
    const batches = [...Map.groupBy(claims, ({ token }) => token)];
    await Promise.all(
      batches.map(([name, some]) => {
        const [token = "", size] = name.split(":");
        return call(token, some.length === Number(size), () => flatten(some));
      }),
    );
  }

  #run(script: RedisScript, args: readonly (string | number)[]): Promise<unknown> {
    return this.#parts.run(script, [this.#parts.counter], args);
  }
}

function listOf(answer: unknown): readonly unknown[] {
  return Array.isArray(answer) ? (answer as unknown[]) : [];
}

function flatten(claims: readonly Claim[]): (string | number)[] {
  return [...Map.groupBy(claims, ({ slot }) => slot)].flatMap(([slot, some]) => [slot, some.length, ...some.map(({ member }) => member)]);
}
