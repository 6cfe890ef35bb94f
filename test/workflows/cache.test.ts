/** The cache's workflows over a real registry: eviction to the limit, fills that were left behind, the warm-up list by its schedule; each once per deployment. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { ActivityServices } from "../../activities/services.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { CacheUpkeep } from "../../src/proxy/upkeep.ts";
import { scheduleIds, workflowIds } from "../../src/temporal/ids.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { maintenanceSchedules } from "../../src/temporal/schedules.ts";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { buildImage } from "../support/image.ts";
import { eventually, noKv, startMaintenance, testLogger } from "../support/maintenance.ts";
import { ask, createProxyProject, serveImage } from "../support/proxy-server.ts";
import { startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";
import { testNamespace } from "../support/temporal.ts";

test("the cache is kept below its limit, completed and warmed up by workflows that run once", async (t) => {
  const end = scope(t);
  const upstream = await startFakeRegistry(end);
  const { app, url, backing } = await startRegistry(end);
  const { database, catalog, store } = app;
  const { temporal } = await testNamespace(end);
  const starters = createMaintenanceStarters(temporal);
  const project = await createProxyProject(app, { name: "hub", url: upstream.url });
  const images = ["a", "b", "c"].map((name) => serveImage(upstream, name, "1", buildImage({ layers: 2, layerBytes: 50_000 })));
  const warm = serveImage(upstream, "warm", "1");
  const cache: ActivityServices["cache"] = {
    evictor: app.evictor,
    upkeep: new CacheUpkeep({ db: database, logger: testLogger, ...app.proxy }),
    rules: { maxBytes: 250_000, policy: "lru", retentionMs: null },
    warmUpList: ["hub/a:none", "hub/b:none", "hub/c:none", "hub/a:none", "hub/b:none", "hub/warm:1"],
  };
  const group = startMaintenance({
    database,
    temporal,
    dataDir: backing.dataDir,
    collection: catalog.collection,
    kv: noKv,
    cache,
    schedules: maintenanceSchedules({ warmUpCron: "0 5 * * *" }),
  });
  end.after(() => group.close());
  const run = async (workflowId: string): Promise<void> => {
    await temporal.call((client) => client.workflow.getHandle(workflowId).result(), { timeoutMs: 20_000 });
  };
  const isHere = async (image: (typeof images)[number]): Promise<boolean> => {
    const stats = await Promise.all([...image.blobs.keys()].map((digest) => store.stat(digest)));
    return stats.every((stat) => stat !== null);
  };

  await eventually("the schedule exists", () =>
    temporal
      .call((client) => client.schedule.getHandle(scheduleIds.warmUp).describe())
      .then(
        () => true,
        () => false,
      ),
  );
  await temporal.call((client) => client.schedule.getHandle(scheduleIds.warmUp).trigger());
  await eventually("the list is warmed up", () => isHere(warm));
  await run(workflowIds.warmUp);
  const executions = new ExecutionStore(database);
  const [warmUp] = await executions.list({ vendor: "WARM_UP", limit: 1 });
  assert.deepEqual([warmUp?.status, warmUp?.trigger], ["Success", "scheduled"]);
  const attrs = await database.query<{ attrs: object }>("SELECT extra_attrs AS attrs FROM tasks WHERE execution_id = $1", [warmUp?.id]);
  assert.deepEqual(attrs.rows[0]?.attrs, { done: 1, failed: 5 });

  const content = randomBytes(100_000);
  const digest = upstream.putBlob("a", content);
  await database.query(
    "INSERT INTO fills (digest, project_id, repository, attempts, updated_at) VALUES ($1, $2, 'hub/a', 1, now() - interval '1 minute')",
    [digest, project.id],
  );
  const starts = await Promise.all(
    [starters, createMaintenanceStarters(temporal)].map((each) => each.startCacheKeeping({ trigger: "manual" })),
  );
  assert.equal(new Set(starts.map(({ runId }) => runId)).size, 1, "two processes that ask get one run");
  await run(workflowIds.cacheKeeping);
  assert.equal((await store.stat(digest))?.size, content.length, "what no process held is completed");

  for (const name of ["a", "b", "c"]) await ask(`${url}/v2/hub/${name}/manifests/1`);
  await app.proxy.manifests.settled();
  await eventually("all are here", async () => (await Promise.all(images.map(isHere))).every(Boolean));
  await app.proxy.usage.flush();
  await database.query("UPDATE blobs SET touched_at = now() - interval '2 hours'");
  await database.query("UPDATE blob_links SET touched_at = now() - interval '2 hours'");
  await database.query("UPDATE cache_usage SET last_access_at = now() - interval '1 hour'");
  await database.query("UPDATE cache_usage SET last_access_at = now() - interval '1 minute' WHERE digest = $1", [
    images[1]!.manifest.digest,
  ]);
  await starters.startCacheEviction({ trigger: "manual" });
  await run(workflowIds.cacheEviction);
  assert.ok((await app.evictor.cachedBytes()) <= 250_000);
  assert.ok(await isHere(images[1]!), "what was used last stays whole");
  const [execution] = await executions.list({ vendor: "CACHE_CLEANUP", limit: 1 });
  assert.equal(execution?.status, "Success");
});
