/**
 * Real servers for tests. A running server is used when the environment names one (a whole test run shares them); otherwise a test file
 * starts its own.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { Database } from "../../src/db/pool.ts";
import { migrate } from "../../src/db/migrate.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface TestDatabase {
  readonly url: string;
  readonly database: Database;
}

function adminUrl(): string {
  const url = process.env["SLIPWAY_TEST_DATABASE_URL"];
  if (!url) throw new Error("SLIPWAY_TEST_DATABASE_URL is not set");
  return url;
}

/** A database of the test's own, with the whole schema; dropped afterwards. */
export async function testDatabase(t: Cleanable, options: { migrated?: boolean } = {}): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString("hex")}`;
  const admin = new pg.Client({ connectionString: adminUrl() });
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  await admin.end();
  const url = new URL(adminUrl());
  url.pathname = `/${name}`;
  const database = new Database({ url: url.href, poolSize: 10 });
  t.after(async () => {
    await database.close();
    const client = new pg.Client({ connectionString: adminUrl() });
    await client.connect();
    await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    await client.end();
  });
  if (options.migrated !== false) await migrate(database);
  return { url: url.href, database };
}

/** A Redis of the test run; keys are kept apart by the prefix that the test chooses. */
export function testRedisUrl(): string {
  const url = process.env["SLIPWAY_TEST_REDIS_URL"];
  if (!url) throw new Error("SLIPWAY_TEST_REDIS_URL is not set");
  return url;
}

export function testTemporalAddress(): string {
  const address = process.env["SLIPWAY_TEST_TEMPORAL_ADDRESS"];
  if (!address) throw new Error("SLIPWAY_TEST_TEMPORAL_ADDRESS is not set");
  return address;
}
