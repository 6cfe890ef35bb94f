/**
 * Real servers for tests. A running server is used when the environment names one (a whole test run shares them); otherwise a test file
 * starts its own, once.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { Database } from "../../src/db/pool.ts";
import { migrate } from "../../src/db/migrate.ts";
import { missingTool } from "./tools.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface TestDatabase {
  readonly url: string;
  readonly database: Database;
}

export type ServiceName = "postgres" | "redis" | "temporal";

export const SERVICE_VARIABLES: Readonly<Record<ServiceName, string>> = {
  postgres: "SLIPWAY_TEST_DATABASE_URL",
  redis: "SLIPWAY_TEST_REDIS_URL",
  temporal: "SLIPWAY_TEST_TEMPORAL_ADDRESS",
};

const HOST = fileURLToPath(new URL("./service-host.ts", import.meta.url));
const started = new Map<ServiceName, Promise<string>>();

/** Where the server is; it is started when nobody named one. */
export function serviceAddress(name: ServiceName): Promise<string> {
  const named = process.env[SERVICE_VARIABLES[name]];
  if (named) return Promise.resolve(named);
  let address = started.get(name);
  if (!address) {
    address = startService(name);
    started.set(name, address);
  }
  return address;
}

async function startService(name: ServiceName): Promise<string> {
  const child = spawn(process.execPath, [HOST, name], { stdio: ["pipe", "pipe", "inherit"] });
  const exited = once(child, "exit").then(([code]: unknown[]) => {
    throw new Error(`the ${name} for tests did not start (code ${String(code)})`);
  });
  const lines = createInterface({ input: child.stdout });
  const [line] = (await Promise.race([once(lines, "line"), exited])) as [string];
  exited.catch(() => undefined);
  lines.close();
  // It ends when our end of its stdin closes, which must not keep us alive.
  child.unref();
  (child.stdin as unknown as Socket).unref();
  (child.stdout as unknown as Socket).unref();
  return (JSON.parse(line) as { address: string }).address;
}

/** A database of the test's own, with the whole schema; dropped afterwards. */
export async function testDatabase(t: Cleanable, options: { migrated?: boolean } = {}): Promise<TestDatabase> {
  const adminUrl = await serviceAddress("postgres");
  const name = `test_${randomBytes(6).toString("hex")}`;
  await asAdmin(adminUrl, `CREATE DATABASE ${name}`);
  const url = new URL(adminUrl);
  url.pathname = `/${name}`;
  const database = new Database({ url: url.href, poolSize: 10 });
  t.after(async () => {
    await database.close();
    await asAdmin(adminUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  });
  if (options.migrated !== false) await migrate(database);
  return { url: url.href, database };
}

async function asAdmin(url: string, statement: string): Promise<void> {
  const admin = new pg.Client({ connectionString: url });
  await admin.connect();
  try {
    await admin.query(statement);
  } finally {
    await admin.end();
  }
}

/** For `test(title, { skip: missingRedis() }, ...)`: false when there is one, else the reason. */
export function missingRedis(): string | false {
  return process.env[SERVICE_VARIABLES.redis] ? false : missingTool("redis-server");
}

/** A Redis of the test run; keys are kept apart by the prefix that the test chooses. */
export function testRedisUrl(): Promise<string> {
  return serviceAddress("redis");
}

export function testTemporalAddress(): Promise<string> {
  return serviceAddress("temporal");
}
