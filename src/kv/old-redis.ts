/**
 * Raw keys of a Redis that other programs, or earlier versions, write to. Everything is read in bounded steps. Names are strings of bytes (latin1), so
 * that what is no text can be removed too.
 */
import { Redis } from "ioredis";
import { withDeadline } from "./deadline.ts";

export interface Page {
  /** Null after the last. */
  readonly next: string | null;
  readonly found: readonly string[];
}

export interface OldKeys {
  /** As Redis calls it: "set", "string", "none", ... */
  typeOf(key: string): Promise<string>;
  scan(pattern: string, cursor: string, count: number): Promise<Page>;
  scanSet(key: string, cursor: string, count: number): Promise<Page>;
  remove(keys: readonly string[]): Promise<void>;
  removeMembers(key: string, members: readonly string[]): Promise<void>;
  close(): void;
}

const DEADLINE_MS = 5_000;

export class OldRedis implements OldKeys {
  readonly #redis: Redis;

  private constructor(redis: Redis) {
    this.#redis = redis;
  }

  static async open(url: string, onError: (error: unknown) => void): Promise<OldRedis> {
    const redis = new Redis(url, {
      protocol: 2,
      lazyConnect: true,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      connectTimeout: 2_000,
      retryStrategy: () => null,
      connectionName: "slipway-old-marks",
    });
    redis.on("error", onError);
    try {
      await withDeadline(redis.connect(), DEADLINE_MS);
    } catch (error) {
      redis.disconnect();
      throw error;
    }
    return new OldRedis(redis);
  }

  typeOf(key: string): Promise<string> {
    return withDeadline(this.#redis.type(key), DEADLINE_MS);
  }

  async scan(pattern: string, cursor: string, count: number): Promise<Page> {
    return toPage(await withDeadline(this.#redis.scanBuffer(cursor, "MATCH", pattern, "COUNT", count), DEADLINE_MS));
  }

  async scanSet(key: string, cursor: string, count: number): Promise<Page> {
    return toPage(await withDeadline(this.#redis.sscanBuffer(key, cursor, "COUNT", count), DEADLINE_MS));
  }

  async remove(keys: readonly string[]): Promise<void> {
    if (keys.length > 0) await withDeadline(this.#redis.unlink(keys.map(toBytes)), DEADLINE_MS);
  }

  async removeMembers(key: string, members: readonly string[]): Promise<void> {
    if (members.length > 0) await withDeadline(this.#redis.srem(key, members.map(toBytes)), DEADLINE_MS);
  }

  close(): void {
    this.#redis.disconnect();
  }
}

function toPage([cursor, found]: [Buffer, Buffer[]]): Page {
  const next = cursor.toString("latin1");
  return { next: next === "0" ? null : next, found: found.map((name) => name.toString("latin1")) };
}

function toBytes(name: string): Buffer {
  return Buffer.from(name, "latin1");
}
