/** Chooses the driver: Redis where an address is given, else the database that is there anyway. */
import type { Database } from "../db/pool.ts";
import type { Kv } from "./kv.ts";
import { PostgresKv } from "./postgres-kv.ts";

export interface OpenKvOptions {
  readonly redisUrl: string | null;
  readonly database: Database;
  /** Keeps deployments that share a server apart. */
  readonly prefix: string;
  /** How the server lists our connections. */
  readonly connectionName?: string;
  /** Told about connections that fail; the drivers make new ones by themselves. */
  readonly onError?: (error: unknown) => void;
}

/** Resolves also while the service is away: every call then fails with KV_UNAVAILABLE until it is back. */
export async function openKv(options: OpenKvOptions): Promise<Kv> {
  const { redisUrl, database, ...shared } = options;
  if (redisUrl === null) return await PostgresKv.open({ ...shared, database });
  const { RedisKv } = await import("./redis-kv.ts");
  return await RedisKv.open({ ...shared, url: redisUrl });
}
