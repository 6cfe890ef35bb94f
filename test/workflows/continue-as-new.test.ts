/** Long runs begin new histories and stay one execution. The server of this test suggests it early. */
import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { TestWorkflowEnvironment } from "@temporalio/testing";
import { findTemporal, temporalFolders } from "../../src/embedded/temporal-binary.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { TemporalConnection } from "../../src/temporal/connection.ts";
import { workflowIds } from "../../src/temporal/ids.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { installRuntime } from "../../workers/runtime.ts";
import { createTrash, noKv, quietLogger, startMaintenance, tableCollection } from "../support/maintenance.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";

const path = await findTemporal({ cliPath: process.env["TEMPORAL_CLI_PATH"] ?? null, keepIn: temporalFolders(tmpdir()) });

test("runs with more batches than a history should hold continue as new, and remain one execution each", async (t) => {
  const end = scope(t);
  const { database } = await testDatabase(end);
  await installRuntime(quietLogger);
  const extraArgs = ["--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=60"];
  const server = await TestWorkflowEnvironment.createLocal({
    server: { executable: { type: "existing-path", path }, extraArgs },
  });
  end.after(() => server.teardown());
  const temporal = new TemporalConnection({ address: server.address, namespace: "default" });
  end.after(() => temporal.close());
  await createTrash(database, { count: 4_000, state: "linked" });
  await createTrash(database, { count: 4_000, state: "upload" });
  const dataDir = await tempDir(end);
  const group = startMaintenance({ database, temporal, dataDir, collection: tableCollection(database, 0), kv: noKv });
  end.after(() => group.close());
  const starters = createMaintenanceStarters(temporal);
  const executions = new ExecutionStore(database);

  const starts = [await starters.startGarbageCollection({ trigger: "manual" }), await starters.startUploadExpiry({ trigger: "manual" })];
  for (const start of starts) {
    await temporal.call((client) => client.workflow.getHandle(start.workflowId).result(), { timeoutMs: 30_000 });
    const last = await temporal.call((client) => client.workflow.getHandle(start.workflowId).describe());
    assert.notEqual(last.runId, start.runId, "the chain has more than one run");
    assert.ok(last.historyLength < 200);
    const rows = await executions.list({ workflowId: start.workflowId, limit: 10 });
    assert.deepEqual(
      rows.map((row) => [row.runId, row.status]),
      [[start.runId, "Success"]],
    );
  }
  const states = await database.query<{ state: string; count: number }>("SELECT state, count(*) FROM trash GROUP BY state ORDER BY state");
  assert.deepEqual(states.rows, [
    { state: "expired", count: 4_000 },
    { state: "gone", count: 4_000 },
  ]);
  const collected = await executions.list({ workflowId: workflowIds.garbageCollection, limit: 1 });
  const tasks = await new TaskStore(database).list(collected[0]?.id ?? 0, { limit: 10 });
  assert.deepEqual(
    tasks.map((task) => task.extraAttrs["items"]),
    [0, 4_000, 4_000, 4_000],
    "totals are carried over",
  );
});
