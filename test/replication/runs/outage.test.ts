/** The database or the workflow service goes away in the middle of a run, and comes back. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { Database } from "../../../src/db/pool.ts";
import type { Execution, ExecutionStore } from "../../../src/execution/execution-store.ts";
import { TemporalConnection } from "../../../src/temporal/connection.ts";
import { eventually } from "../../support/maintenance.ts";
import { FaultProxy } from "../../support/fault-proxy.ts";
import { createPolicy, createScriptTables, deeds, openRuns, startReplicationWorkers, writeScript } from "../../support/replication-runs.ts";
import { scope } from "../../support/scope.ts";
import { testDatabase } from "../../support/services.ts";
import { testNamespace } from "../../support/temporal.ts";

function ended(executions: ExecutionStore, id: number): Promise<Execution> {
  return eventually(
    "the run ends",
    async () => {
      const found = await executions.find(id);
      return found !== null && found.endedAt !== null && found;
    },
    90_000,
  );
}

test("while the database is away activities are tried again, and nothing is there twice afterwards", async (t) => {
  const end = scope(t);
  const direct = await testDatabase(end);
  const { temporal } = await testNamespace(end);
  await createScriptTables(direct.database);
  const target = new URL(direct.url);
  const network = await new FaultProxy({ address: target.hostname, port: Number(target.port) }).start();
  end.after(() => network.stop());
  target.host = `127.0.0.1:${network.port}`;
  const database = new Database({ url: target.href, poolSize: 6, acquireTimeoutMs: 1_000, onError: () => undefined });
  end.after(() => database.close());
  const { group } = startReplicationWorkers({ database, temporal });
  end.after(() => group.close());
  const { control, executions } = openRuns(direct.database, temporal);
  const policyId = await createPolicy(direct.database);
  await writeScript(direct.database, policyId, { steps: 4, batchesPerStep: 3, stepMs: 400, copyMs: 400 });
  const { executionId } = await control.start({ policyId, trigger: "manual" });
  await eventually("copies go on", async () => (await deeds(direct.database, "copy", executionId)).length >= 2, 60_000);
  network.set({ refuse: true });
  network.dropConnections();
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  assert.equal((await executions.find(executionId))?.status, "Running", "an outage is no failure");
  network.set({ refuse: false });
  const execution = await ended(executions, executionId);
  assert.deepEqual([execution.status, execution.tasks.total, execution.tasks.succeeded], ["Success", 12, 12]);
  const { rows } = await direct.database.query<{ items: number; keys: number }>(
    "SELECT count(*) AS items, count(DISTINCT src_repository) AS keys FROM replication_items WHERE execution_id = $1 AND status = 'Success'",
    [executionId],
  );
  assert.deepEqual(rows[0], { items: 12, keys: 12 });
});

test("while the workflow service is away copies under way come to their end, and the run goes on when it is back", async (t) => {
  const end = scope(t);
  const { database } = await testDatabase(end);
  const { temporal, address, namespace } = await testNamespace(end);
  await createScriptTables(database);
  const [host = "", port] = address.split(":");
  const network = await new FaultProxy({ address: host, port: Number(port) }).start();
  end.after(() => network.stop());
  const behind = new TemporalConnection({ address: `127.0.0.1:${network.port}`, namespace });
  end.after(() => behind.close());
  const { group } = startReplicationWorkers({ database, temporal: behind, copySlots: 3 });
  end.after(() => group.close());
  const { control, executions } = openRuns(database, temporal);
  const policyId = await createPolicy(database);
  await writeScript(database, policyId, { batchesPerStep: 6, copyMs: 2_500 });
  const { executionId } = await control.start({ policyId, trigger: "manual" });
  await eventually("copies go on", async () => (await deeds(database, "copy", executionId)).length >= 3, 60_000);
  network.set({ refuse: true });
  network.dropConnections();
  await eventually("they come to their end", async () => (await deeds(database, "copied", executionId)).length >= 3, 30_000);
  assert.equal((await executions.find(executionId))?.status, "Running");
  network.set({ refuse: false });
  const execution = await ended(executions, executionId);
  assert.deepEqual([execution.status, execution.tasks.total, execution.tasks.succeeded], ["Success", 6, 6]);
  const { rows } = await database.query<{ items: number; attempts: number }>(
    "SELECT count(*) AS items, sum(attempts)::int AS attempts FROM replication_items WHERE execution_id = $1 AND status = 'Success'",
    [executionId],
  );
  assert.deepEqual(rows[0], { items: 6, attempts: 6 }, "what was done is not done again");
});
