/** History is kept by count and by age, as long as each vendor says, and open executions always. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { loadConfig } from "../../src/config/config.ts";
import { isSlipwayError } from "../../src/core/errors.ts";
import type { Database } from "../../src/db/pool.ts";
import { parseVendorKept, retentionRules } from "../../src/execution/plan/retention-rules.ts";
import { pruneExecutions } from "../../src/execution/retention.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";

const DAY_MS = 86_400_000;

async function seed(
  database: Database,
  vendor: string,
  count: number,
  options: { vendorId?: number; daysAgo?: number } = {},
): Promise<void> {
  const { vendorId = null, daysAgo = 0 } = options;
  await database.query(
    `INSERT INTO executions (vendor, vendor_id, trigger, status, planned_at, started_at, ended_at)
     SELECT $2, $3::bigint, 'manual', 'Success', now(), now(), now() - make_interval(days => $4::integer) FROM generate_series(1, $1)`,
    [count, vendor, vendorId, daysAgo],
  );
}

async function left(database: Database): Promise<Record<string, number>> {
  const { rows } = await database.query<{ name: string; count: number }>(
    "SELECT vendor || coalesce('/' || vendor_id, '') AS name, count(*) AS count FROM executions GROUP BY 1",
  );
  return Object.fromEntries(rows.map(({ name, count }) => [name, count]));
}

test("each vendor keeps its own count and age, in batches, and nothing that is open goes", async (t) => {
  const { database } = await testDatabase(scope(t));
  await seed(database, "TUF", 5, { daysAgo: 40 });
  await seed(database, "WARM_UP", 2, { daysAgo: 10 });
  await seed(database, "REPLICATION", 30, { vendorId: 1 });
  await seed(database, "REPLICATION", 4, { vendorId: 2 });
  await seed(database, "WARM_UP", 30);
  await seed(database, "GARBAGE_COLLECTION", 30);
  await seed(database, "TUF", 3);
  await database.query(
    "INSERT INTO executions (vendor, trigger, status) SELECT 'WARM_UP', 'manual', 'Running' FROM generate_series(1, 20)",
  );
  const rules = retentionRules({
    replication: { keep: 10, days: 90 },
    others: { keep: 25, days: 30 },
    named: [{ vendor: "WARM_UP", keep: 3, days: 7 }],
  });
  const batches: number[] = [];
  for (const { vendors, keep, days } of rules) {
    for (let removed = 1; removed > 0;) {
      removed = await pruneExecutions(database, { vendors, keep, maxAgeMs: days * DAY_MS, limit: 8 });
      batches.push(removed);
    }
  }
  assert.ok(Math.max(...batches) <= 8, `batches of ${Math.max(...batches)}`);
  assert.deepEqual(await left(database), {
    "REPLICATION/1": 10,
    "REPLICATION/2": 4,
    WARM_UP: 23,
    GARBAGE_COLLECTION: 25,
    TUF: 3,
  });
});

test("settings of single vendors are read, and what makes no sense is refused", () => {
  assert.deepEqual(parseVendorKept("WARM_UP=50/7"), { vendor: "WARM_UP", keep: 50, days: 7 });
  assert.deepEqual(loadConfig({ env: { SLIPWAY_KEEP_BY_VENDOR: "WARM_UP=50/7,TUF=9/365" } }).settings.maintenance.keep_by_vendor, [
    "WARM_UP=50/7",
    "TUF=9/365",
  ]);
  for (const text of ["WARM_UP", "WARM_UP=0/7", "warm_up=5/7", "WARM_UP=5", "REPLICATION=5/7", "TUF=1/1,TUF=2/2"]) {
    assert.throws(
      () => loadConfig({ env: { SLIPWAY_KEEP_BY_VENDOR: text } }),
      (error) => isSlipwayError(error, "CONFIG_INVALID"),
      text,
    );
  }
});
