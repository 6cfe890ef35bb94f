import assert from "node:assert/strict";
import { test } from "node:test";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { ItemStore } from "../../src/replication/item-store.ts";
import { RunFigures } from "../../src/replication/run-figures.ts";
import { addRunMetrics, MAX_LABELS, runFamilies } from "../../src/replication/run-metrics.ts";
import { RunStore } from "../../src/replication/run-store.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import { registerSecret } from "../../src/telemetry/redact.ts";
import { addPolicy } from "../support/replication-api.ts";
import { testDatabase } from "../support/services.ts";

test("metrics of replication", async (t) => {
  const { database } = await testDatabase(t);
  const executions = new ExecutionStore(database);
  const runs = new RunStore(database);
  const items = new ItemStore(database);
  const policy = await addPolicy(database, "nightly");
  const metrics = new Metrics();
  let now = 0;
  addRunMetrics(metrics, { figures: new RunFigures(database), clock: { now: () => now } });

  async function run(kind: "copy" | "dry-run" = "copy"): Promise<number> {
    const { id } = await executions.create({ vendor: "REPLICATION", vendorId: policy, trigger: "manual" });
    await runs.create({ executionId: id, policyId: policy, kind });
    return id;
  }

  async function series(): Promise<Map<string, number>> {
    now += 10_000;
    const lines = (await metrics.render()).split("\n").filter((line) => line.startsWith("slipway_replication"));
    return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]));
  }

  await t.test("count outcomes, also those that tasks decided, and keep them when executions are removed", async () => {
    const copied = await run();
    await executions.adopt(copied, { workflowId: "w1", runId: "r1" });
    const attrs = {
      operation: "copy",
      resource_type: "image",
      src_resource: "a",
      dst_resource: "b",
      src_repository: "a",
      dst_repository: "b",
      destination: 0,
      target_registry_id: 0,
      items: 1,
      target_empty: true,
    } as const;
    await items.plan(copied, [{ key: "one", attrs, items: [{ action: "copy", tag: "v1", digest: null }] }]);
    await database.query("UPDATE replication_items SET bytes_copied = 4711 WHERE execution_id = $1", [copied]);
    await database.query("UPDATE tasks SET status = 'Success', started_at = now(), ended_at = now() WHERE execution_id = $1", [copied]);
    await executions.completePlanning(copied);
    await executions.settle([copied]);
    for (const outcome of ["Error", "Skipped", "Skipped", "Stopped"] as const) await executions.end(await run(), outcome, "");
    await executions.end(await run("dry-run"), "Success", "");
    const before = await series();
    const count = (outcome: string): number | undefined =>
      before.get(`slipway_replication_runs_total{policy="nightly",outcome="${outcome}"}`);
    assert.deepEqual(["succeeded", "failed", "skipped", "stopped"].map(count), [1, 1, 2, 1]);
    assert.equal(before.get('slipway_replication_bytes_total{target="Local"}'), 4_711);
    await database.query("DELETE FROM executions");
    await executions.end(await run(), "Error", "");
    const after = await series();
    assert.equal(after.get('slipway_replication_runs_total{policy="nightly",outcome="failed"}'), 2);
    assert.equal(after.get('slipway_replication_bytes_total{target="Local"}'), 4_711);
  });

  await t.test("tell what goes on, and how old the last success is", async () => {
    const waiting = await run();
    await executions.adopt(await run(), { workflowId: "w2", runId: "r2" });
    await database.query("UPDATE replication_outcomes SET last_at = now() - interval '1 hour' WHERE outcome = 'Success'");
    await addPolicy(database, "off", { enabled: false });
    const found = await series();
    assert.deepEqual(
      ["pending", "running", "paused"].map((state) => found.get(`slipway_replication_executions{state="${state}"}`)),
      [1, 1, 0],
    );
    const age = found.get('slipway_replication_last_success_age_seconds{policy="nightly"}') ?? 0;
    assert.ok(age >= 3_600 && age < 3_700, String(age));
    assert.equal(found.get('slipway_replication_last_success_age_seconds{policy="off"}'), undefined);
    await executions.end(waiting, "Stopped", "");
  });

  await t.test("add nothing twice however many processes add", async () => {
    for (let count = 0; count < 30; count += 1) await executions.end(await run(), "Error", "");
    await Promise.all(Array.from({ length: 4 }, () => new RunFigures(database).fold()));
    assert.equal((await series()).get('slipway_replication_runs_total{policy="nightly",outcome="failed"}'), 32);
  });

  await t.test("are added up where nobody scrapes", async () => {
    const stop = new RunFigures(database).keepFolding(20);
    await executions.end(await run(), "Error", "");
    for (;;) {
      const { rowCount } = await database.query("SELECT FROM replication_endings");
      if (rowCount === 0) break;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    stop();
  });

  await t.test("go with their policy", async () => {
    const id = await run();
    await database.query("DELETE FROM replication_policies WHERE id = $1", [policy]);
    await executions.end(id, "Error", "");
    const found = await series();
    assert.deepEqual(
      [...found.keys()].filter((name) => name.includes("nightly")),
      [],
    );
    const left = await database.query("SELECT FROM replication_endings");
    assert.equal(left.rowCount, 0);
  });
});

test("labels are bounded and show no secret", () => {
  registerSecret("hunter2-hunter2");
  const policies = Array.from({ length: MAX_LABELS + 3 }, (_, index) => ({
    name: index === 0 ? "with-hunter2-hunter2" : `p${index}`,
    enabled: true,
    outcomes: { Success: 1 },
    successAgeSeconds: 1,
  }));
  const families = runFamilies({ policies, targets: [], open: {} });
  const outcomes = families.find(({ name }) => name === "slipway_replication_runs_total")?.samples ?? [];
  const succeeded = outcomes.filter(({ labels }) => labels?.["outcome"] === "succeeded");
  assert.equal(succeeded.length, MAX_LABELS + 1);
  assert.deepEqual(succeeded.at(-1), { value: 3, labels: { policy: "other", outcome: "succeeded" } });
  assert.equal(families.find(({ name }) => name.includes("age"))?.samples?.length, MAX_LABELS);
  assert.ok(!JSON.stringify(families).includes("hunter2"));
});
