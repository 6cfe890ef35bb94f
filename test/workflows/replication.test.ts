/** Runs of replication on a real Temporal and a real Postgres: how they go on, wait, pause, stop and end. Planner and copier follow a script. */
import { test } from "node:test";
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { Database } from "../../src/db/pool.ts";
import type { Execution } from "../../src/execution/execution-store.ts";
import { eventually } from "../support/maintenance.ts";
import type { RunningRuns, RunsParts, Script } from "../support/replication-runs.ts";
import { createPolicy, createScriptTables, deeds, startReplicationWorkers, writeScript } from "../support/replication-runs.ts";
import type { PolicyOptions } from "../support/replication-runs.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";
import type { TemporalConnection } from "../../src/temporal/connection.ts";

interface Fixture extends RunningRuns {
  readonly database: Database;
  readonly temporal: TemporalConnection;
  policy(script: Partial<Script>, options?: PolicyOptions): Promise<number>;
  start(policyId: number): Promise<number>;
  ended(executionId: number): Promise<Execution>;
}

async function fixture(t: TestContext, options: Partial<RunsParts> = {}): Promise<Fixture> {
  const end = scope(t);
  const { database } = await testDatabase(end);
  const { temporal } = await testNamespace(end);
  await createScriptTables(database);
  const running = startReplicationWorkers({ database, temporal, dataDir: await tempDir(end), ...options });
  end.after(() => running.group.close());
  const { executions, control } = running.replication;
  return {
    ...running,
    database,
    temporal,
    async policy(script, policyOptions) {
      const id = await createPolicy(database, policyOptions);
      await writeScript(database, id, script);
      return id;
    },
    async start(policyId) {
      return (await control.start({ policyId, trigger: "manual" })).executionId;
    },
    ended: (executionId) =>
      eventually(
        `execution ${executionId} ends`,
        async () => {
          const found = await executions.find(executionId);
          return found !== null && found.endedAt !== null && found;
        },
        30_000,
      ),
  };
}

test("a run plans, copies beside it, and ends as its tasks say", async (t) => {
  const f = await fixture(t);
  const id = await f.start(await f.policy({ steps: 3, batchesPerStep: 5 }));
  const execution = await f.ended(id);
  assert.equal(execution.status, "Success");
  assert.deepEqual([execution.tasks.total, execution.tasks.succeeded], [15, 15]);
  assert.equal((await deeds(f.database, "copied", id)).length, 15);
  const handle = await f.temporal.call(async (client) => client.workflow.getHandle(execution.workflowId ?? ""));
  const result = await f.temporal.call(() => handle.result(), { timeoutMs: 10_000 });
  assert.deepEqual(result, { status: "Success", message: "", succeeded: 15, failed: 0 });
});
