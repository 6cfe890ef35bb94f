/** A database that does not answer at all must not hold anybody longer than the named time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isSlipwayError } from "../../src/core/errors.ts";
import { Database } from "../../src/db/pool.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";

test("statements and transactions without an answer end as DATABASE_UNAVAILABLE, and the connections that hung are not used again", async (t) => {
  const s = scope(t);
  const { url } = await testDatabase(s, { migrated: false });
  const target = new URL(url);
  const proxy = await startFaultProxy(s, { address: target.hostname, port: Number(target.port || "5432") });
  target.hostname = "127.0.0.1";
  target.port = String(proxy.port);
  const database = new Database({ url: target.href, poolSize: 2, statementTimeoutMs: 200 });
  s.after(() => database.close());
  await database
    .transaction(async (tx) => {
      await tx.query("SELECT 1");
      proxy.set({ hang: true });
      await assert.rejects(tx.query("SELECT 2"));
      throw new Error("the work gives up");
    })
    .catch((error: unknown) => assert.equal((error as Error).message, "the work gives up"));
  proxy.heal();
  await database.query("SELECT 3");
  proxy.set({ hang: true });
  const results = await Promise.allSettled([database.query("SELECT 4"), database.transaction((tx) => tx.query("SELECT 5"))]);
  for (const result of results) assert.ok(result.status === "rejected" && isSlipwayError(result.reason, "DATABASE_UNAVAILABLE"));
  proxy.heal();
  assert.equal((await database.query<{ n: number }>("SELECT 6 AS n")).rows[0]?.n, 6);
});
