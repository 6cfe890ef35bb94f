/**
 * The key-value contract over Postgres, for deployments without Redis: unlogged tables, one statement per call, the server's clock.
 * What has expired counts as absent at once and is swept away later, in bounded batches.
 */
import { randomUUID } from "node:crypto";
import type { Database, Queryable } from "../db/pool.ts";
import { withDeadline } from "./deadline.ts";
import type { ClaimQueue, Group, GroupEntry, Kv, Lease, SetOptions, SubscribeHandlers, Subscription } from "./kv.ts";
import { PostgresListener } from "./postgres-listener.ts";
import { PostgresClaimQueue } from "./postgres-queue.ts";

export interface PostgresKvOptions {
  readonly database: Database;
  readonly prefix: string;
  /** How the server lists the connection that listens. */
  readonly connectionName?: string;
  readonly commandTimeoutMs?: number;
  readonly connectWaitMs?: number;
  readonly sweepIntervalMs?: number;
  readonly onError?: (error: unknown) => void;
}

const COMMAND_TIMEOUT_MS = 2_000;
const CONNECT_WAIT_MS = 2_000;
const SWEEP_INTERVAL_MS = 30_000;
const SWEEP_BATCH = 1_000;
const SWEEP_BATCHES = 20;
/** $3: milliseconds, or null for ever. */
const EXPIRY = "clock_timestamp() + $3::float8 * interval '1 millisecond'";
const LIVE = "(kv_entries.expires_at IS NULL OR kv_entries.expires_at > clock_timestamp())";

const SET = `INSERT INTO kv_entries (key, value, expires_at) VALUES ($1, $2, ${EXPIRY})
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at`;

const INCREMENT = `INSERT INTO kv_entries (key, value, expires_at) VALUES ($1, $2::bigint::text, ${EXPIRY})
ON CONFLICT (key) DO UPDATE SET
  value = CASE WHEN ${LIVE} THEN (kv_entries.value::bigint + $2::bigint)::text ELSE excluded.value END,
  expires_at = CASE WHEN ${LIVE} THEN kv_entries.expires_at ELSE excluded.expires_at END
RETURNING value`;

/** The fence is at least the clock in microseconds, so that it also grows when the table was emptied by a crash. */
const LEASE_ACQUIRE = `INSERT INTO kv_leases (key, owner, fence, expires_at)
VALUES ($1, $2, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint, ${EXPIRY})
ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, fence = greatest(excluded.fence, kv_leases.fence + 1), expires_at = excluded.expires_at
WHERE kv_leases.expires_at <= clock_timestamp()
RETURNING fence`;

const GROUP_LIST = "SELECT member, value FROM kv_groups WHERE name = $1 AND expires_at > clock_timestamp() ORDER BY member";

const SWEEPS = [
  `DELETE FROM kv_entries WHERE key IN (SELECT key FROM kv_entries WHERE expires_at <= clock_timestamp() ORDER BY expires_at LIMIT ${SWEEP_BATCH} FOR UPDATE SKIP LOCKED)`,
  `DELETE FROM kv_groups WHERE (name, member) IN (SELECT name, member FROM kv_groups WHERE expires_at <= clock_timestamp() LIMIT ${SWEEP_BATCH} FOR UPDATE SKIP LOCKED)`,
  `DELETE FROM kv_leases WHERE key IN (SELECT key FROM kv_leases WHERE expires_at <= clock_timestamp() - interval '1 day' LIMIT ${SWEEP_BATCH} FOR UPDATE SKIP LOCKED)`,
] as const;

export class PostgresKv implements Kv {
  readonly driver = "postgres";
  readonly #db: Queryable;
  readonly #listener: PostgresListener;
  readonly #prefix: string;
  readonly #sweeper: NodeJS.Timeout;
  #sweeping: Promise<unknown> | null = null;

  private constructor(options: PostgresKvOptions) {
    const { database } = options;
    const timeoutMs = options.commandTimeoutMs ?? COMMAND_TIMEOUT_MS;
    const onError = options.onError ?? (() => undefined);
    this.#prefix = options.prefix;
    this.#db = { query: (text, values) => withDeadline(database.query(text, values), timeoutMs) };
    this.#listener = new PostgresListener({
      url: database.url,
      prefix: options.prefix,
      name: options.connectionName ?? "slipway-kv",
      onError,
    });
    this.#sweeper = setInterval(
      () => {
        this.#sweeping ??= this.sweep()
          .catch(onError)
          .finally(() => {
            this.#sweeping = null;
          });
      },
      (options.sweepIntervalMs ?? SWEEP_INTERVAL_MS) * (0.75 + Math.random() / 2),
    );
    this.#sweeper.unref();
  }

  /** Resolves when it listens, or when the wait is over: the driver goes on trying. */
  static async open(options: PostgresKvOptions): Promise<PostgresKv> {
    const kv = new PostgresKv(options);
    await kv.#listener.connected(options.connectWaitMs ?? CONNECT_WAIT_MS);
    return kv;
  }

  async get(key: string): Promise<string | null> {
    const [value] = await this.getMany([key]);
    return value ?? null;
  }

  async getMany(keys: readonly string[]): Promise<(string | null)[]> {
    if (keys.length === 0) return [];
    const names = keys.map((key) => this.#key(key));
    const { rows } = await this.#db.query<{ key: string; value: string }>(
      `SELECT key, value FROM kv_entries WHERE key = ANY($1::text[]) AND ${LIVE}`,
      [names],
    );
    const values = new Map(rows.map((row) => [row.key, row.value]));
    return names.map((name) => values.get(name) ?? null);
  }

  async set(key: string, value: string, options: SetOptions = {}): Promise<boolean> {
    const guard = options.ifAbsent ? ` WHERE NOT ${LIVE}` : "";
    const { rowCount } = await this.#db.query(`${SET}${guard}`, [this.#key(key), value, options.ttlMs ?? null]);
    return rowCount === 1;
  }

  async remove(...keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return;
    await this.#db.query(
      `DELETE FROM kv_entries WHERE key IN (SELECT key FROM kv_entries WHERE key = ANY($1::text[]) ORDER BY key FOR UPDATE)`,
      [keys.map((key) => this.#key(key))],
    );
  }

  async increment(key: string, by: number, ttlMs?: number): Promise<number> {
    const { rows } = await this.#db.query<{ value: string }>(INCREMENT, [this.#key(key), by, ttlMs ?? null]);
    return Number(rows[0]?.value);
  }

  async listPrefix(prefix: string, limit: number): Promise<{ key: string; value: string }[]> {
    const from = this.#key(prefix);
    // The bytes of U+10FFFF come after those of every other character.
    const { rows } = await this.#db.query<{ key: string; value: string }>(
      `SELECT key, value FROM kv_entries WHERE key >= $1 AND key < $2 AND ${LIVE} ORDER BY key LIMIT $3`,
      [from, `${from}\u{10FFFF}`, limit],
    );
    return rows.map((row) => ({ key: row.key.slice(this.#prefix.length), value: row.value }));
  }

  group(name: string): Group {
    const group = this.#key(name);
    const list = async (): Promise<GroupEntry[]> => (await this.#db.query<{ member: string; value: string }>(GROUP_LIST, [group])).rows;
    return {
      list,
      // Written and committed before the list is read: the later of two writers sees the earlier.
      put: async (member, value, ttlMs) => {
        await this.#db.query(
          `INSERT INTO kv_groups (name, member, expires_at, value) VALUES ($1, $2, ${EXPIRY}, $4)
           ON CONFLICT (name, member) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at`,
          [group, member, ttlMs, value],
        );
        return await list();
      },
      remove: async (member) => void (await this.#db.query("DELETE FROM kv_groups WHERE name = $1 AND member = $2", [group, member])),
    };
  }

  async acquireLease(key: string, owner: string, ttlMs: number): Promise<Lease | null> {
    const name = this.#key(key);
    const { rows } = await this.#db.query<{ fence: number }>(LEASE_ACQUIRE, [name, `${owner}:${randomUUID()}`, ttlMs]);
    const fence = rows[0]?.fence;
    if (fence === undefined) return null;
    return {
      key,
      fence,
      renew: async (milliseconds) => {
        const { rowCount } = await this.#db.query(
          `UPDATE kv_leases SET expires_at = ${EXPIRY} WHERE key = $1 AND fence = $2 AND expires_at > clock_timestamp()`,
          [name, fence, milliseconds],
        );
        return rowCount === 1;
      },
      // Not deleted: the next fence grows from this one.
      release: async () =>
        void (await this.#db.query("UPDATE kv_leases SET expires_at = clock_timestamp() WHERE key = $1 AND fence = $2", [name, fence])),
    };
  }

  publish(channel: string, message: string): Promise<void> {
    return this.#listener.publish(channel, message);
  }

  subscribe(channel: string, handlers: SubscribeHandlers): Promise<Subscription> {
    return this.#listener.subscribe(channel, handlers);
  }

  queue(name: string): ClaimQueue {
    const channel = `queue:${name}`;
    return new PostgresClaimQueue({
      db: this.#db,
      queue: this.#key(name),
      channel: this.#listener.physicalName(channel),
      watch: (handlers) => this.subscribe(channel, handlers),
    });
  }

  async check(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    await this.#db.query("SELECT 1");
  }

  /** Removes what has expired, at most some thousands of rows; the next sweep goes on. */
  async sweep(): Promise<number> {
    let removed = 0;
    for (const statement of SWEEPS) {
      for (let batch = 0; batch < SWEEP_BATCHES; batch += 1) {
        const { rowCount } = await this.#db.query(statement);
        removed += rowCount ?? 0;
        if ((rowCount ?? 0) < SWEEP_BATCH) break;
      }
    }
    return removed;
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    await this.#sweeping;
    await this.#listener.close();
  }

  #key(key: string): string {
    return `${this.#prefix}${key}`;
  }
}
