/** Maintenance over the real catalog and a real disk: what is used stays, what is not goes, and link records reach storage. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Collection } from "../../src/catalog/collection.ts";
import { dispatchEvents } from "../../src/catalog/event-dispatcher.ts";
import type { CatalogEvent } from "../../src/catalog/content-records.ts";
import type { NumberedLinkRecord } from "../../src/catalog/link-records.ts";
import { readLinkRecords, writeLinkRecords } from "../../src/catalog/link-records.ts";
import { writeProjectRecords } from "../../src/catalog/project-records.ts";
import { workflowIds } from "../../src/temporal/ids.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { catalogFixture, digestOf, PRINCIPAL, pushBlob, pushImage } from "../catalog/support.ts";
import { eventually, noKv, startMaintenance } from "../support/maintenance.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";

test("collection, expiry and relay do their work on a registry's content", async (t) => {
  const fixture = await catalogFixture(t);
  const { context, database, store, writer } = fixture;
  const { temporal } = await testNamespace(t);
  const starters = createMaintenanceStarters(temporal);
  const events: CatalogEvent[] = [];
  const group = startMaintenance({
    database,
    temporal,
    dataDir: await tempDir(t),
    collection: new Collection(context),
    kv: noKv,
    handlers: {
      "link-record": (rows, signal) => writeLinkRecords(rows, store, signal),
      "project-record": (rows, signal) => writeProjectRecords(rows, { database, store }, signal),
      event: dispatchEvents([async (batch) => void events.push(...batch)]),
    },
  });
  const run = async (workflowId: string): Promise<void> => {
    await temporal.call((client) => client.workflow.getHandle(workflowId).result(), { timeoutMs: 20_000 });
  };
  try {
    const image = await pushImage(fixture, "team/app", { tags: ["v1"] });
    const loose = await pushBlob(fixture, "team/app");
    const orphanBytes = randomBytes(80);
    const orphan = digestOf(orphanBytes);
    await store.put(orphan, orphanBytes);
    await database.query("UPDATE blobs SET touched_at = now() - interval '2 days', created_at = now() - interval '2 days'");
    await database.query("UPDATE blob_links SET touched_at = now() - interval '2 days'");
    const fresh = await pushBlob(fixture, "team/app");

    await starters.startGarbageCollection({ trigger: "manual", dryRun: true });
    await run(workflowIds.garbageCollection);
    for (const digest of [image.digest, image.layer, loose, orphan, fresh])
      assert.ok(await store.stat(digest), "a dry run removes nothing");

    await starters.startGarbageCollection({ trigger: "manual" });
    await run(workflowIds.garbageCollection);
    for (const digest of [image.digest, image.config, image.layer]) assert.ok(await store.stat(digest), "what an image needs stays");
    assert.ok(await store.stat(fresh), "what is young stays");
    assert.equal(await store.stat(loose), null, "what no manifest needs goes");
    const adopted = await database.query("SELECT 1 FROM blobs WHERE digest = $1", [orphan]);
    assert.equal(adopted.rowCount, 1, "bytes without a row get one, and go when they are old enough");

    const upload = await writer.startUpload({ repository: "team/app", principal: PRINCIPAL, algorithm: null });
    const active = await writer.startUpload({ repository: "team/app", principal: PRINCIPAL, algorithm: null });
    await database.query("UPDATE uploads SET touched_at = now() - interval '2 days' WHERE id = $1", [upload.id]);
    await starters.startUploadExpiry({ trigger: "manual" });
    await run(workflowIds.uploadExpiry);
    assert.equal(await writer.findUpload(upload.id, "team/app"), null);
    assert.ok(await writer.findUpload(active.id, "team/app"));

    await eventually("the outbox is emptied", async () => (await database.query("SELECT 1 FROM outbox LIMIT 1")).rowCount === 0);
    const records: NumberedLinkRecord[] = [];
    for await (const record of readLinkRecords("team/app", store)) records.push(record);
    assert.ok(records.some((record) => record.op === "add" && record.tag === "v1" && record.digest === image.digest));
    assert.ok(records.some((record) => record.op === "remove" && record.digest === loose));
    assert.ok(events.some((event) => event.type === "push" && event.digest === image.digest));
  } finally {
    await group.close();
  }
});
