/** Changes of local content start runs: together, without loops, until they are carried out. */
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import type { CatalogEvent } from "../../../src/catalog/content-records.ts";
import type { Database } from "../../../src/db/pool.ts";
import type { Execution } from "../../../src/execution/execution-store.ts";
import { replicationListener } from "../../../src/replication/runs/event-listener.ts";
import type { ReplicationWorkflows } from "../../../src/temporal/replication.ts";
import { eventually, testLogger } from "../../support/maintenance.ts";
import type { RunningRuns, Script } from "../../support/replication-runs.ts";
import { createPolicy, createScriptTables, deeds, startReplicationWorkers, writeScript } from "../../support/replication-runs.ts";
import type { PolicyOptions } from "../../support/replication-runs.ts";
import { scope } from "../../support/scope.ts";
import { testDatabase } from "../../support/services.ts";
import { testNamespace } from "../../support/temporal.ts";

const end = scope({ after });
let running: RunningRuns;
let database: Database;
let tell: (...events: Partial<CatalogEvent>[]) => Promise<void>;

before(async () => {
  ({ database } = await testDatabase(end));
  const { temporal } = await testNamespace(end);
  await createScriptTables(database);
  running = startReplicationWorkers({ database, temporal, graceMs: 0 });
  end.after(() => running.group.close());
  const { replication } = running;
  const listener = replicationListener({
    ...replication,
    workflows: replication.workflows as ReplicationWorkflows,
    debounceMs: 500,
    logger: testLogger,
  });
  tell = (...events) => listener(events.map(event), AbortSignal.timeout(20_000));
});

function event(parts: Partial<CatalogEvent>): CatalogEvent {
  return {
    type: "tag",
    repository: "team/app",
    digest: `sha256:${"a".repeat(64)}`,
    tag: "v1",
    mediaType: null,
    artifactType: null,
    subject: null,
    size: 1,
    principal: "user:1",
    origin: "push",
    originRegistry: null,
    at: new Date().toISOString(),
    ...parts,
  };
}

/** Only the policy of the test hears of changes. */
async function policyWith(script: Partial<Script>, options: PolicyOptions = {}): Promise<number> {
  await database.query("UPDATE replication_policies SET enabled = false");
  const id = await createPolicy(database, { trigger: "event_based", overlap: "queue-one", ...options });
  await writeScript(database, id, script);
  return id;
}

function executionsOf(policyId: number): Promise<Execution[]> {
  return running.replication.executions.list({ vendorId: policyId, limit: 20 });
}

async function runs(policyId: number, count: number): Promise<Execution[]> {
  return await eventually(
    `${count} runs of the policy have ended`,
    async () => {
      const found = await executionsOf(policyId);
      return found.length === count && found.every(({ endedAt }) => endedAt !== null) && found;
    },
    60_000,
  );
}

async function waiting(policyId: number): Promise<{ reference: string; attempts: number; taken: boolean }[]> {
  const { rows } = await database.query<{ reference: string; attempts: number; taken: boolean }>(
    "SELECT reference, attempts, execution_id IS NOT NULL AS taken FROM replication_events WHERE policy_id = $1 ORDER BY reference",
    [policyId],
  );
  return rows;
}

function forgotten(policyId: number): Promise<unknown> {
  return eventually("the changes are forgotten", async () => (await waiting(policyId)).length === 0);
}

test("changes that come close together make one run, which forgets them when they are carried out", async () => {
  const policyId = await policyWith({ batchesPerStep: 1 });
  await tell({ tag: "v1" }, { tag: "v2" });
  await tell({ tag: "v3" }, { tag: "v1" });
  assert.equal((await waiting(policyId)).length, 3);
  const [run] = await runs(policyId, 1);
  assert.deepEqual([run?.status, run?.trigger], ["Success", "event"]);
  await forgotten(policyId);
});

test("a change during a run gets a run of its own afterwards", async () => {
  const policyId = await policyWith({ batchesPerStep: 1, copyMs: 2_500 });
  await tell({ tag: "v1" });
  await eventually("the run copies", async () => {
    const [run] = await executionsOf(policyId);
    return run !== undefined && (await deeds(database, "copy", run.id)).length === 1;
  });
  assert.deepEqual(await waiting(policyId), [{ reference: "v1", attempts: 0, taken: true }]);
  await tell({ tag: "v1", digest: `sha256:${"b".repeat(64)}` }, { tag: "v2" });
  await runs(policyId, 2);
  await forgotten(policyId);
});

test("what failed waits and is tried again, what somebody stopped is forgotten", async () => {
  const policyId = await policyWith({ planError: "the target is down" });
  await tell({ tag: "v1" });
  await runs(policyId, 1);
  await eventually("it waits again", async () => (await waiting(policyId))[0]?.attempts === 1);
  await writeScript(database, policyId, { batchesPerStep: 1 });
  await database.query("UPDATE replication_events SET due_at = now() - interval '1 second' WHERE policy_id = $1", [policyId]);
  const report = await running.reconciler.run(AbortSignal.timeout(30_000));
  assert.equal(report.triggered, 1);
  assert.equal((await runs(policyId, 2))[0]?.status, "Success");
  await forgotten(policyId);

  await writeScript(database, policyId, { batchesPerStep: 1, copyMs: 60_000 });
  await tell({ tag: "v2" });
  const copying = await eventually("the run copies", async () => {
    const [run] = await executionsOf(policyId);
    return run?.status === "Running" && (await deeds(database, "copy", run.id)).length === 1 && run;
  });
  await running.replication.control.stop(copying.id);
  await forgotten(policyId);
});

test("changes that nobody was told of are found by the reconciler", async () => {
  const policyId = await policyWith({});
  await running.replication.events.note([{ policyId, repository: "team/app", reference: "v9", action: "copy", digest: null }]);
  assert.equal((await running.reconciler.run(AbortSignal.timeout(30_000))).triggered, 1);
  await runs(policyId, 1);
});

test("what came from the target, what a proxy fetched and what is filtered out starts nothing", async () => {
  const registry = await database.query<{ id: number }>(
    "INSERT INTO registries (name, url) VALUES ('there', 'https://there.example.com') RETURNING id",
  );
  const target = registry.rows[0]?.id ?? 0;
  const policyId = await policyWith({}, { target });
  await database.query(
    `UPDATE replication_policies SET filters = '[{"type":"name","kind":"glob","value":"team/**","decoration":"matches"}]' WHERE id = $1`,
    [policyId],
  );
  await tell(
    { origin: "replication", originRegistry: target },
    { origin: "fill", tag: "v2" },
    { repository: "other/app" },
    { type: "untag" },
  );
  assert.deepEqual(await waiting(policyId), []);
});
