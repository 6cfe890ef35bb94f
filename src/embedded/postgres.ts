/** The embedded Postgres server: on a socket below the data folder where the path allows, else on a loopback port with a password. */
import { join } from "node:path";
import pg from "pg";
import { sleep } from "../core/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { ProcessSpec } from "./guarded-spawn.ts";
import { freePort } from "./ports.ts";
import { clearPidFile, POSTGRES_USER, prepareCluster } from "./postgres-cluster.ts";
import type { Cluster } from "./postgres-cluster.ts";
import { program } from "./postgres-install.ts";
import { WatchedProcess } from "./watched-process.ts";
import type { ProcessState } from "./watched-process.ts";

export interface EmbeddedPostgresOptions {
  /** Absolute; exists. The caller owns it (data lock). */
  readonly dataDir: string;
  readonly log: Logger;
  readonly database?: string;
  readonly maxConnections?: number;
  /** False: no fsync, for tests whose data nobody will miss. */
  readonly durable?: boolean;
  readonly avoidNamespace?: boolean;
  readonly handOverBase?: string;
  /** Listen on a port even where the socket path would be short enough. */
  readonly forcePort?: boolean;
  readonly onChange?: (state: ProcessState) => void;
}

export interface EmbeddedPostgres {
  readonly url: string;
  state(): ProcessState;
  close(): Promise<void>;
}

interface Address {
  readonly socketDir: string | null;
  readonly port: number;
}

/** Linux has 108 bytes for a socket path with its end mark, macOS 104. */
const SOCKET_PATH_BYTES = 103;
const SOCKET_PORT = 5432;
const START_MS = 60_000;

export async function startPostgres(options: EmbeddedPostgresOptions, signal?: AbortSignal): Promise<EmbeddedPostgres> {
  const durable = options.durable ?? true;
  const cluster = await prepareCluster({ ...options, durable }, signal);
  const address = await chooseAddress(cluster, options.forcePort === true);
  const url = (database: string): string => connectionUrl(address, cluster, database);
  const server = new WatchedProcess({
    name: "postgres",
    spec: async () => {
      await clearPidFile(cluster.dir, options.log);
      return serverSpec(cluster, address, { durable, maxConnections: options.maxConnections ?? 200 });
    },
    ready: (stop) => untilReady(url("postgres"), stop),
    readyTimeoutMs: START_MS,
    firstAttempts: 5,
    // Fast shutdown, then immediate shutdown, which costs a recovery at the next start.
    stop: [
      { signal: "SIGINT", waitMs: 15_000 },
      { signal: "SIGQUIT", waitMs: 5_000 },
    ],
    log: options.log,
    ...(options.onChange ? { onChange: options.onChange } : {}),
  });
  await server.start(signal);
  const database = options.database ?? "slipway";
  try {
    await ensureDatabase(url("postgres"), database);
  } catch (error) {
    await server.close();
    throw error;
  }
  return { url: url(database), state: () => server.state, close: () => server.close() };
}

async function chooseAddress(cluster: Cluster, forcePort: boolean): Promise<Address> {
  const socket = join(cluster.socketDir, `.s.PGSQL.${SOCKET_PORT}`);
  // Windows has no such sockets, and a quote would end the quoted list entry.
  const usable = process.platform !== "win32" && !socket.includes('"') && Buffer.byteLength(socket) <= SOCKET_PATH_BYTES;
  if (usable && !forcePort) return { socketDir: cluster.socketDir, port: SOCKET_PORT };
  return { socketDir: null, port: await freePort() };
}

function connectionUrl(address: Address, cluster: Cluster, database: string): string {
  if (address.socketDir !== null) return `postgres://${POSTGRES_USER}@${encodeURIComponent(address.socketDir)}/${database}`;
  return `postgres://${POSTGRES_USER}:${cluster.password}@127.0.0.1:${address.port}/${database}`;
}

function serverSpec(cluster: Cluster, address: Address, options: { durable: boolean; maxConnections: number }): ProcessSpec {
  const settings: Record<string, string | number> = {
    port: address.port,
    listen_addresses: address.socketDir === null ? "127.0.0.1" : "",
    unix_socket_directories: address.socketDir === null ? "" : `"${address.socketDir}"`,
    unix_socket_permissions: "0700",
    max_connections: options.maxConnections,
    shared_buffers: "128MB",
    max_wal_size: "1GB",
    // Short statements on indexes: compiling and parallel workers cost more than they save.
    jit: "off",
    max_parallel_workers_per_gather: 0,
    timezone: "UTC",
    log_timezone: "UTC",
    logging_collector: "off",
    log_destination: "stderr",
    log_min_messages: "warning",
    ...(options.durable ? {} : { fsync: "off", synchronous_commit: "off", full_page_writes: "off", autovacuum_naptime: "10min" }),
  };
  return {
    command: program(cluster.install, "postgres"),
    args: ["-D", cluster.dir, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
    env: cluster.install.env,
    cwd: "/",
    runAs: cluster.runAs,
    deathSignal: "SIGINT",
  };
}

async function untilReady(url: string, stop: AbortSignal): Promise<void> {
  for (;;) {
    stop.throwIfAborted();
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
    client.on("error", () => undefined);
    try {
      await client.connect();
      await client.query("SELECT 1");
      await client.end();
      return;
    } catch {
      await client.end().catch(() => undefined);
      await sleep(15, stop);
    }
  }
}

async function ensureDatabase(url: string, name: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rowCount } = await client.query("SELECT 1 FROM pg_database WHERE datname = $1", [name]);
    if (rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
  } finally {
    await client.end();
  }
}
