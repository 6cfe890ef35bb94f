/**
 * The key-value contract over Redis. A command waits a moment and never in a queue: whoever uses this has something else to do when Redis
 * is away. Keys that one script touches share a hash tag.
 */
import { randomUUID } from "node:crypto";
import { Redis } from "ioredis";
import type { RedisOptions } from "ioredis";
import { checkMessageSize, toKvUnavailable, withDeadline } from "./deadline.ts";
import type { ClaimQueue, Group, GroupEntry, Kv, Lease, SetOptions, SubscribeHandlers, Subscription } from "./kv.ts";
import { RedisClaimQueue } from "./redis-queue.ts";
import type { RunScript } from "./redis-queue.ts";
import * as scripts from "./redis-scripts.ts";
import { RedisSubscriber } from "./redis-subscriber.ts";

export interface RedisKvOptions {
  readonly url: string;
  /** In front of every key and channel. */
  readonly prefix: string;
  /** How the server lists our connections. */
  readonly connectionName?: string;
  readonly commandTimeoutMs?: number;
  /** Longest wait for the first connections; the driver goes on trying afterwards. */
  readonly connectWaitMs?: number;
  readonly onError?: (error: unknown) => void;
}

const COMMAND_TIMEOUT_MS = 300;
/** Work in batches has time; a claim whose answer comes too late is lost until its lease ends. */
const QUEUE_TIMEOUT_MS = 2_000;
const CONNECT_WAIT_MS = 2_000;
const PING_INTERVAL_MS = 2_000;
const SUBSCRIBE_TIMEOUT_MS = 2_000;
const SCAN_STEP = 500;

export class RedisKv implements Kv {
  readonly driver = "redis";
  readonly #redis: Redis;
  readonly #subscriber: RedisSubscriber;
  readonly #prefix: string;
  readonly #timeoutMs: number;
  readonly #run: RunScript;
  readonly #runPatiently: RunScript;

  private constructor(redis: Redis, subscriber: Redis, options: RedisKvOptions) {
    this.#redis = redis;
    this.#prefix = options.prefix;
    this.#timeoutMs = options.commandTimeoutMs ?? COMMAND_TIMEOUT_MS;
    const onError = options.onError ?? (() => undefined);
    for (const script of scripts.REDIS_SCRIPTS) redis.defineCommand(script.name, { lua: script.lua, numberOfKeys: script.keys });
    // The methods that defineCommand adds are unknown to the types.
    const commands = redis as unknown as Record<string, (...args: (string | number)[]) => Promise<unknown>>;
    const send: RunScript = (script, keys, args) => commands[script.name]?.(...keys, ...args) ?? Promise.reject(new Error(script.name));
    this.#run = (script, keys, args) => this.#within(send(script, keys, args));
    this.#runPatiently = (script, keys, args) => withDeadline(send(script, keys, args), Math.max(this.#timeoutMs, QUEUE_TIMEOUT_MS));
    for (const connection of [redis, subscriber]) connection.on("error", onError);
    this.#subscriber = new RedisSubscriber({
      redis: subscriber,
      pingIntervalMs: PING_INTERVAL_MS,
      timeoutMs: SUBSCRIBE_TIMEOUT_MS,
      onError,
    });
  }

  /** Resolves when connected, or when the wait is over: a Redis that is away does not keep a process from starting. */
  static async open(options: RedisKvOptions): Promise<RedisKv> {
    const name = options.connectionName ?? "slipway";
    const settings = {
      protocol: 2,
      lazyConnect: true,
      enableOfflineQueue: false,
      autoResubscribe: false,
      // A command whose answer was lost may have run: only its caller knows whether it may run again.
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      connectTimeout: 2_000,
      retryStrategy: (attempt: number) => Math.min(50 * 2 ** (attempt - 1), 1_000) * (0.75 + Math.random() / 2),
    } satisfies RedisOptions;
    const redis = new Redis(options.url, { ...settings, connectionName: name, socketTimeout: 5_000 });
    // A subscriber is silent while nothing is published: its ping finds a dead connection, not a socket timeout.
    const subscriber = new Redis(options.url, { ...settings, connectionName: `${name}-subscriber` });
    const kv = new RedisKv(redis, subscriber, options);
    const connected = Promise.all([redis.connect(), subscriber.connect()]).then(() => undefined);
    await withDeadline(connected, options.connectWaitMs ?? CONNECT_WAIT_MS).catch(options.onError ?? (() => undefined));
    return kv;
  }

  get(key: string): Promise<string | null> {
    return this.#within(this.#redis.get(this.#key(key)));
  }

  async getMany(keys: readonly string[]): Promise<(string | null)[]> {
    if (keys.length === 0) return [];
    // Not MGET: in a cluster the keys live in different slots.
    return await this.#within(Promise.all(keys.map((key) => this.#redis.get(this.#key(key)))));
  }

  async set(key: string, value: string, options: SetOptions = {}): Promise<boolean> {
    const name = this.#key(key);
    const { ttlMs, ifAbsent } = options;
    if (ttlMs === undefined) {
      const answer = ifAbsent ? this.#redis.set(name, value, "NX") : this.#redis.set(name, value);
      return (await this.#within(answer)) !== null;
    }
    const answer = ifAbsent ? this.#redis.set(name, value, "PX", ttlMs, "NX") : this.#redis.set(name, value, "PX", ttlMs);
    return (await this.#within(answer)) !== null;
  }

  async remove(...keys: readonly string[]): Promise<void> {
    await this.#within(Promise.all(keys.map((key) => this.#redis.unlink(this.#key(key)))));
  }

  async increment(key: string, by: number, ttlMs?: number): Promise<number> {
    return Number(await this.#run(scripts.INCREMENT, [this.#key(key)], [by, ttlMs ?? ""]));
  }

  async listPrefix(prefix: string, limit: number): Promise<{ key: string; value: string }[]> {
    const pattern = `${this.#key(prefix).replace(/[\\*?[\]]/g, "\\$&")}*`;
    const names = new Set<string>();
    let cursor = "0";
    do {
      const [next, found] = await this.#within(this.#redis.scan(cursor, "MATCH", pattern, "COUNT", SCAN_STEP));
      for (const name of found) names.add(name);
      cursor = next;
    } while (cursor !== "0" && names.size < limit);
    const keys = [...names].slice(0, limit).map((name) => name.slice(this.#key("").length));
    const values = await this.getMany(keys);
    return keys.flatMap((key, index) => {
      const value = values[index];
      return typeof value === "string" ? [{ key, value }] : [];
    });
  }

  group(name: string): Group {
    const keys = this.#tagged(`g:${name}`, ["v", "e"]);
    return {
      put: async (member, value, ttlMs) => toGroupEntries(await this.#run(scripts.GROUP_PUT, keys, [member, value, ttlMs])),
      list: async () => toGroupEntries(await this.#run(scripts.GROUP_READ, keys, [])),
      remove: async (member) => void (await this.#run(scripts.GROUP_REMOVE, keys, [member])),
    };
  }

  async acquireLease(key: string, owner: string, ttlMs: number): Promise<Lease | null> {
    const [name, fenceName] = this.#tagged(`l:${key}`, ["o", "f"]) as [string, string];
    // Two owners of one name are told apart.
    const identity = `${owner}:${randomUUID()}`;
    const fence = await this.#run(scripts.LEASE_ACQUIRE, [name, fenceName], [identity, ttlMs]);
    if (typeof fence !== "string") return null;
    const value = `${fence}:${identity}`;
    return {
      key,
      fence: Number(fence),
      renew: async (milliseconds) => (await this.#run(scripts.LEASE_RENEW, [name], [value, milliseconds])) === 1,
      release: async () => void (await this.#run(scripts.LEASE_RELEASE, [name], [value])),
    };
  }

  async publish(channel: string, message: string): Promise<void> {
    checkMessageSize(message);
    await this.#within(this.#redis.publish(this.#channel(channel), message));
  }

  subscribe(channel: string, handlers: SubscribeHandlers): Promise<Subscription> {
    return this.#subscriber.subscribe(this.#channel(channel), handlers);
  }

  queue(name: string): ClaimQueue {
    const [counter = ""] = this.#tagged(`q:${name}`, ["n"]);
    const channel = `queue:${name}`;
    return new RedisClaimQueue({
      counter,
      channel: this.#channel(channel),
      run: this.#runPatiently,
      watch: (handlers) => this.subscribe(channel, handlers),
    });
  }

  async check(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    await this.#within(this.#redis.ping());
  }

  async close(): Promise<void> {
    this.#subscriber.close();
    await this.#within(this.#redis.quit()).catch(() => undefined);
    this.#redis.disconnect();
  }

  #within<T>(work: Promise<T>): Promise<T> {
    return withDeadline(work, this.#timeoutMs);
  }

  #key(key: string): string {
    return `${this.#prefix}k:${key}`;
  }

  #channel(channel: string): string {
    return `${this.#prefix}c:${channel}`;
  }

  #tagged(tag: string, parts: readonly string[]): string[] {
    return parts.map((part) => `${this.#prefix}{${tag}}:${part}`);
  }
}

function toTexts(answer: unknown): string[] {
  if (!Array.isArray(answer)) throw toKvUnavailable(new Error("Redis sent an answer of another shape"));
  return answer.map(String);
}

function toGroupEntries(answer: unknown): GroupEntry[] {
  const texts = toTexts(answer);
  const entries: GroupEntry[] = [];
  for (let index = 0; index < texts.length; index += 2) entries.push({ member: texts[index] as string, value: texts[index + 1] as string });
  return entries;
}
