/** The Postgres driver against a real Postgres: the contract, the sweep, and what happens while the server refuses. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { isSlipwayError } from "../../src/core/errors.ts";
import type { Database } from "../../src/db/pool.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { PostgresKv } from "../../src/kv/postgres-kv.ts";
import { eventually, kvConformance, recorder } from "../support/kv-conformance.ts";
import type { KvSubject } from "../support/kv-conformance.ts";
import { testDatabase } from "../support/services.ts";

const cleanups: (() => Promise<void> | void)[] = [];
let database: Database;
let subject: KvSubject;

before(async () => {
  ({ database } = await testDatabase({ after: (fn) => void cleanups.push(fn) }));
  const a = await PostgresKv.open({ database, prefix: "t:", commandTimeoutMs: 10_000 });
  const b = await PostgresKv.open({ database, prefix: "t:", commandTimeoutMs: 10_000, connectionName: "listener-b" });
  subject = { a, b, cutSubscriber: () => terminate("listener-b") };
});

after(async () => {
  await subject.a.close();
  await subject.b.close();
  for (const cleanup of cleanups.toReversed()) await cleanup();
});

async function terminate(applicationName: string): Promise<void> {
  const { rowCount } = await database.query(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
    [applicationName],
  );
  assert.equal(rowCount, 1);
}

kvConformance("postgres", () => subject);

test("postgres: prefixes keep deployments apart", async (t) => {
  const other = await openKv({ redisUrl: null, database, prefix: "u:" });
  t.after(() => other.close());
  assert.equal(other.driver, "postgres");
  const heard = recorder();
  await other.subscribe("c", heard);
  await subject.a.set("shared", "a");
  await subject.a.queue("q").mark([{ slot: 0, member: "m" }]);
  await subject.a.publish("c", "from a");
  await other.publish("c", "own");
  await eventually(() => heard.events.includes("message own"), "its own message arrives");
  assert.deepEqual(heard.events, ["ready", "message own"]);
  assert.equal(await other.get("shared"), null);
  assert.equal((await other.queue("q").states([0]))[0]?.depth, 0);
});

test("postgres: what has expired is swept away in bounded batches, the rest stays", async () => {
  const kv = subject.a as PostgresKv;
  await kv.sweep();
  await database.query(
    "INSERT INTO kv_entries (key, value, expires_at) SELECT 't:old' || n, 'x', now() - interval '1 second' FROM generate_series(1, 2500) n",
  );
  await kv.set("kept", "1");
  await kv.set("kept-long", "1", { ttlMs: 60_000 });
  await kv.group("g").put("gone", "1", 1);
  await eventually(async () => (await kv.group("g").list()).length === 0, "the member has expired");
  assert.equal(await kv.sweep(), 2_501);
  assert.equal(await kv.sweep(), 0);
  assert.deepEqual(await kv.getMany(["kept", "kept-long"]), ["1", "1"]);
});

test("postgres: fences grow although the table was emptied by a crash of the server", async () => {
  const lease = await subject.a.acquireLease("fence", "me", 60_000);
  await database.query("TRUNCATE kv_leases");
  const next = await subject.b.acquireLease("fence", "me", 60_000);
  assert.ok(lease && next && next.fence > lease.fence);
});

test("postgres: calls fail with KV_UNAVAILABLE within the deadline while the tables are locked", async (t) => {
  const kv = await PostgresKv.open({ database, prefix: "t:", commandTimeoutMs: 150 });
  t.after(() => kv.close());
  await database.transaction(async (tx) => {
    await tx.query("LOCK TABLE kv_entries IN ACCESS EXCLUSIVE MODE");
    const started = performance.now();
    await assert.rejects(kv.get("x"), (error) => isSlipwayError(error, "KV_UNAVAILABLE"));
    assert.ok(performance.now() - started < 2_000);
  });
  await kv.check();
});

test("postgres: a driver opens while the listener cannot connect, and listens when it can", async (t) => {
  const { rows } = await database.query<{ name: string }>("SELECT current_database() AS name");
  const name = rows[0]?.name ?? "";
  // Superusers are let in whatever the limit says: only a login of its own is refused.
  const url = new URL(database.url);
  await database.query(`CREATE ROLE "${name}" NOLOGIN PASSWORD '${decodeURIComponent(url.password) || "unused"}'`);
  url.username = name;
  const kv = await PostgresKv.open({ database: withUrl(url.href), prefix: "t:", connectWaitMs: 100 });
  t.after(async () => {
    await kv.close();
    await database.query(`DROP ROLE "${name}"`);
  });
  const heard = recorder();
  await kv.subscribe("late", heard);
  await assert.rejects(kv.publish("late", "x"), (error) => isSlipwayError(error, "KV_UNAVAILABLE"));
  assert.deepEqual(heard.events, []);
  await database.query(`ALTER ROLE "${name}" LOGIN`);
  await eventually(() => heard.events.includes("ready"), "it listens");
  await kv.publish("late", "x");
  await eventually(() => heard.events.includes("message x"), "the message arrives");
});

/** The same pool under another address: only the listener uses the address. */
function withUrl(url: string): Database {
  return new Proxy(database, {
    get: (target, key) => {
      if (key === "url") return url;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
