/** Reconciliation as a workflow: it begins by itself on a new database, outlives a killed worker, and keeps collection away until it is done. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Collection } from "../../src/catalog/collection.ts";
import { writeLinkRecords } from "../../src/catalog/link-records.ts";
import { writeProjectRecords } from "../../src/catalog/project-records.ts";
import { Rebuilder } from "../../src/catalog/rebuild.ts";
import { runReconcile } from "../../src/cli/reconcile.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { workflowIds } from "../../src/temporal/ids.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { catalogFixture, pushImage } from "../catalog/support.ts";
import type { Fixture } from "../catalog/support.ts";
import { eventually, idleRebuilder, noKv, startMaintenance, tableCollection } from "../support/maintenance.ts";
import type { MaintenanceParts } from "../support/maintenance.ts";
import type { ReconcileChildSettings } from "../support/reconcile-child.ts";
import { scope } from "../support/scope.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";

const CHILD = fileURLToPath(new URL("../support/reconcile-child.ts", import.meta.url));

function handlers({ database, context: { store } }: Fixture): NonNullable<MaintenanceParts["handlers"]> {
  return {
    "link-record": (rows, signal) => writeLinkRecords(rows, store, signal),
    "project-record": (rows, signal) => writeProjectRecords(rows, { database, store }, signal),
  };
}

async function count({ database }: Fixture, table: "blob_links" | "manifests" | "tags"): Promise<number> {
  return (await database.query<{ n: number }>(`SELECT count(*) AS n FROM ${table}`)).rows[0]?.n ?? 0;
}

test("on a new database over old storage it begins by itself, and goes on when its worker is killed", async (t) => {
  const end = scope(t);
  const first = await catalogFixture(t);
  const images = [];
  for (let n = 0; n < 40; n += 1) images.push(await pushImage(first, "team/app", { tags: [`v${n}`] }));
  const drainer = await testNamespace(end);
  const dataDir = await tempDir(end);
  const relay = startMaintenance({
    database: first.database,
    temporal: drainer.temporal,
    dataDir,
    collection: tableCollection(first.database, 0),
    kv: noKv,
    handlers: handlers(first),
  });
  await eventually(
    "the records are written",
    async () => (await first.database.query("SELECT 1 FROM outbox WHERE kind <> 'event' LIMIT 1")).rowCount === 0,
  );
  await relay.close();

  const second = await catalogFixture(t, { wrapStore: () => first.store });
  const { temporal, address, namespace } = await testNamespace(end);
  const settings: ReconcileChildSettings = {
    address,
    namespace,
    databaseUrl: second.databaseUrl,
    dataDir,
    storeRoot: first.store.filePath(images[0]?.digest ?? "").split("/blobs/")[0] ?? "",
    pauseMs: 100,
  };
  const child = spawn(process.execPath, [CHILD, JSON.stringify(settings)], { stdio: "inherit" });
  end.after(() => void child.kill("SIGKILL"));
  await eventually("some rows are back", async () => (await count(second, "blob_links")) > 0, 30_000);
  child.kill("SIGKILL");
  await once(child, "exit");
  const halfway = await count(second, "blob_links");
  assert.ok(halfway < 80, `${halfway} links were rebuilt when the worker was killed`);

  const executions = new ExecutionStore(second.database);
  const rebuilder = new Rebuilder(second.context, { registriesScope: "registries" });
  const group = startMaintenance({
    database: second.database,
    temporal,
    dataDir,
    collection: tableCollection(second.database, 0),
    kv: noKv,
    handlers: handlers(second),
    rebuilder,
  });
  end.after(() => group.close());
  await temporal.call((client) => client.workflow.getHandle(workflowIds.reconcile).result(), { timeoutMs: 40_000 });
  assert.deepEqual([await count(second, "blob_links"), await count(second, "manifests"), await count(second, "tags")], [80, 40, 40]);
  const runs = await executions.list({ vendor: "RECONCILE", limit: 10 });
  assert.deepEqual(
    runs.map((run) => [run.trigger, run.status]),
    [["event", "Success"]],
  );
  assert.equal(await rebuilder.isDue(), false, "it is done once");

  const lines: string[] = [];
  const services = {
    executions,
    tasks: new TaskStore(second.database),
    starters: createMaintenanceStarters(temporal),
    print: (line: string) => void lines.push(line),
    signal: AbortSignal.timeout(30_000),
  };
  assert.equal(await runReconcile(["run"], services), 0, lines.join("\n"));
  assert.match(lines.join("\n"), /rebuild +0 rebuilt, 0 without bytes \(Success\)/);
  await runReconcile(["status"], services);
  assert.match(lines.join("\n"), /event reconciliation: Success/);
});

test("bytes whose rows were lost are no garbage as long as the rows have not been rebuilt", async (t) => {
  const end = scope(t);
  const first = await catalogFixture(t);
  const image = await pushImage(first, "team/app", { tags: ["a"] });
  const second = await catalogFixture(t, { wrapStore: () => first.store });
  const { temporal } = await testNamespace(end);
  let due = true;
  const group = startMaintenance({
    database: second.database,
    temporal,
    dataDir: await tempDir(end),
    collection: new Collection(second.context),
    kv: noKv,
    rebuilder: { ...idleRebuilder, isDue: () => Promise.resolve(due), noteFinished: async () => void (due = false) },
  });
  end.after(() => group.close());
  const starters = createMaintenanceStarters(temporal);
  await temporal.call((client) => client.workflow.getHandle(workflowIds.reconcile).result(), { timeoutMs: 20_000 }).catch(() => undefined);
  due = true;
  const collect = async (): Promise<number> => {
    await starters.startGarbageCollection({ trigger: "manual" });
    await temporal.call((client) => client.workflow.getHandle(workflowIds.garbageCollection).result(), { timeoutMs: 20_000 });
    return (await second.database.query("SELECT 1 FROM blobs")).rowCount ?? 0;
  };
  assert.equal(await collect(), 0);
  await eventually("a rebuild was asked for", async () => !due);
  assert.equal(await collect(), 3);
  assert.ok(await first.store.stat(image.digest));
});
