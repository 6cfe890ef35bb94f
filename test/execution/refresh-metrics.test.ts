/** The series of the refresh, and the alert rules over them. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../src/core/clock.ts";
import { addRefreshMetrics, markFamilies } from "../../src/execution/refresh/refresh-metrics.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import { eventually, quietLogger } from "../support/maintenance.ts";
import { ALL_SLOTS, countByStatus, openTestKv, seedExecutions, testRefresh } from "../support/refresh.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";
import { missingTool, runTool } from "../support/tools.ts";

const RULES = fileURLToPath(new URL("../../docs/alerts/refresh.yml", import.meta.url));
const CASES = new URL("./fixtures/refresh-alerts.yml", import.meta.url);

async function render(parts: Parameters<typeof addRefreshMetrics>[1]): Promise<string> {
  const metrics = new Metrics();
  addRefreshMetrics(metrics, parts);
  return await metrics.render();
}

for (const driver of ["redis", "postgres"]) {
  test(`${driver}: the series tell what waits by slot and vendor, and then what was done`, async (t) => {
    const end = scope(t);
    const { database } = await testDatabase(end);
    const kv = await openTestKv(end, driver, database);
    const refresh = testRefresh({ kv, database, logger: quietLogger });
    const parts = { ...refresh, instances: { known: () => [], problems: () => ["a gap"] }, clock: systemClock };
    const ids = await seedExecutions(database, 128);
    const strange = await seedExecutions(database, 2, { vendor: "SOMEBODY_ELSE" });
    await refresh.marker.markAll(ids.map((id) => ({ id, vendor: "REPLICATION" })));
    await refresh.marker.markAll([...strange, ...strange].map((id) => ({ id, vendor: "SOMEBODY_ELSE" })));
    assert.deepEqual(
      markFamilies(refresh.marker.stats())[0]?.samples?.map(({ value, labels }) => `${labels?.["result"]} ${value}`),
      ["queued 130", "coalesced 2", "saved 0", "dropped 0"],
    );
    refresh.counters.holds([0, 1]);
    await database.query("INSERT INTO refresh_failures (execution_id, last_error, set_aside_at) VALUES ($1, 'breaks', now())", [ids[0]]);
    const waiting = await render(parts);
    assert.match(waiting, /^slipway_refresh_depth\{slot="0",vendor="REPLICATION"\} 2$/m);
    assert.match(waiting, /^slipway_refresh_oldest_seconds\{slot="1",vendor="REPLICATION"\} [\d.]+$/m);
    assert.doesNotMatch(waiting, /slot="2"/, "of another instance");
    assert.match(waiting, /^slipway_refresh_queue_depth 130$/m);
    assert.match(waiting, /^slipway_refresh_set_aside 1$/m);
    assert.match(waiting, /^slipway_refresh_slots_held 2$/m);
    assert.match(waiting, /^slipway_refresh_slot_moves_total\{direction="gained"\} 2$/m);
    assert.match(waiting, /^slipway_refresh_instance_problems 1$/m);

    await database.query("DELETE FROM refresh_failures");
    const stop = new AbortController();
    const holding = refresh.refresher.hold({ slots: ALL_SLOTS, shard: { id: 0, total: 1 }, sweeps: false }, stop.signal);
    await eventually("all are done", async () => (await countByStatus(database))["Success"] === 130, 30_000);
    await eventually("the queue is empty", async () => (await refresh.queue.states()).every(({ depth }) => depth === 0));
    const done = await render(parts);
    stop.abort();
    await holding;
    assert.match(done, /^slipway_refresh_processed_total\{vendor="REPLICATION"\} 128$/m);
    assert.match(done, /^slipway_refresh_changed_total\{vendor="other"\} 2$/m);
    assert.match(done, /^slipway_refresh_failed_total\{vendor="REPLICATION"\} 0$/m);
    assert.match(done, /^slipway_refresh_lag_seconds_count 130$/m);
    assert.match(done, /^slipway_refresh_batch_executions_sum 130$/m);
    assert.match(done, /^slipway_refresh_statements_total\{kind="batch"\} [1-9]/m);
    assert.match(done, /^slipway_refresh_slot_moves_total\{direction="gained"\} 64$/m);
    assert.match(done, /^slipway_refresh_queue_oldest_seconds 0$/m);
    assert.doesNotMatch(done, /^slipway_refresh_depth\{/m);
    const rules = await readFile(RULES, "utf8");
    const named = new Set(Array.from(rules.matchAll(/slipway_refresh_\w+/g), ([name]) => name.replace(/_count$/, "")));
    assert.ok(named.size >= 6);
    for (const name of named) assert.ok(done.includes(`# TYPE ${name} `), `the alerts name ${name}`);
  });
}

test("the alert rules fire when they should and only then", { skip: missingTool("promtool") }, async (t) => {
  const checked = await runTool("promtool", ["check", "rules", RULES]);
  assert.equal(checked.code, 0, checked.stdout + checked.stderr);
  const cases = join(await tempDir(t), "cases.yml");
  await writeFile(cases, (await readFile(CASES, "utf8")).replace("RULES", RULES));
  const tested = await runTool("promtool", ["test", "rules", cases]);
  assert.equal(tested.code, 0, tested.stdout + tested.stderr);
});
