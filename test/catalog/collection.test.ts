// Collection in the middle of pushes, mounts and fills: nothing that anybody uses ever goes, everything else does.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { BlobWriter } from "../../src/catalog/blob-writer.ts";
import { Collection } from "../../src/catalog/collection.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import { isSlipwayError } from "../../src/core/errors.ts";
import { adoptFor } from "../../src/proxy/fill/fill-adoption.ts";
import { silentLogger } from "../../src/telemetry/logger.ts";
import { tempDir } from "../support/temp.ts";
import { type Fixture, PRINCIPAL, body, catalogFixture, digestOf, newWriter, pushBlob, pushImage } from "./support.ts";

const REPOSITORY = "team/app";
const ALL = { graceMs: 0, limit: 100, dryRun: false, after: null };

async function collectAll(fixture: Fixture): Promise<{ unlinked: number; marked: number; swept: number }> {
  const collection = new Collection(fixture.context);
  const unlinked = await collection.unlinkUnreferenced(ALL);
  const marked = await collection.markGarbage(ALL);
  const swept = await collection.sweepMarked({ limit: 100 });
  return { unlinked: unlinked.items, marked: marked.items, swept: swept.items };
}

/** Calls the hook before the named method of the store. */
function hooked(method: keyof BlobStore, hook: () => Promise<void>): (store: BlobStore) => BlobStore {
  return (store) =>
    new Proxy(store, {
      get(target, key) {
        const value: unknown = Reflect.get(target, key, target);
        if (typeof value !== "function") return value;
        const call = value.bind(target) as (...args: unknown[]) => unknown;
        if (key !== method) return call;
        return async (...args: unknown[]) => {
          await hook();
          return call(...args);
        };
      },
    });
}

/** Pushes again when told to come again, as clients do. */
async function eventually(push: () => Promise<unknown>): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      await push();
      return;
    } catch (error) {
      if (attempt >= 5 || !isSlipwayError(error, "STORAGE_UNAVAILABLE")) throw error;
    }
  }
}

test("what a manifest needs stays, what nothing needs goes with its bytes", async (t) => {
  const fixture = await catalogFixture(t);
  const image = await pushImage(fixture, REPOSITORY, { tags: ["v1"] });
  const loose = await pushBlob(fixture, REPOSITORY, randomBytes(500));
  assert.deepEqual(await collectAll(fixture), { unlinked: 1, marked: 1, swept: 1 });
  assert.equal(await fixture.store.stat(loose), null);
  for (const digest of [image.digest, image.config, image.layer]) assert.ok(await fixture.store.stat(digest));
  assert.ok(fixture.published.includes("blobs:team/app"));
  await fixture.writer.deleteManifest(REPOSITORY, image.digest, { principal: PRINCIPAL });
  assert.deepEqual(await collectAll(fixture), { unlinked: 2, marked: 3, swept: 3 });
  assert.deepEqual(await fixture.store.list(null, 10), []);
  assert.equal((await fixture.database.query("SELECT 1 FROM blobs")).rows.length, 0);
});

test("content younger than the grace time stays", async (t) => {
  const fixture = await catalogFixture(t);
  await pushBlob(fixture, REPOSITORY);
  const collection = new Collection(fixture.context);
  assert.equal((await collection.unlinkUnreferenced({ ...ALL, graceMs: 60_000 })).items, 0);
  await collection.unlinkUnreferenced(ALL);
  assert.equal((await collection.markGarbage({ ...ALL, graceMs: 60_000 })).items, 0);
});

test("a dry run counts and changes nothing", async (t) => {
  const fixture = await catalogFixture(t);
  await pushBlob(fixture, REPOSITORY, randomBytes(300));
  const collection = new Collection(fixture.context);
  assert.deepEqual(await collection.unlinkUnreferenced({ ...ALL, dryRun: true }), { items: 1, bytes: 300, next: null });
  await collection.unlinkUnreferenced(ALL);
  assert.deepEqual(await collection.markGarbage({ ...ALL, dryRun: true }), { items: 1, bytes: 300, next: null });
  assert.equal((await collection.sweepMarked({ limit: 10 })).items, 0);
});

test("batches go on where the last one ended", async (t) => {
  const fixture = await catalogFixture(t);
  for (let index = 0; index < 5; index += 1) await pushBlob(fixture, `team/r${index % 2}`);
  const collection = new Collection(fixture.context);
  const steps = { unlink: 0, mark: 0, sweep: 0 };
  for (let after: string | null = null, first = true; first || after !== null; first = false) {
    const batch = await collection.unlinkUnreferenced({ ...ALL, limit: 2, after });
    steps.unlink += batch.items;
    after = batch.next;
  }
  for (let after: string | null = null, first = true; first || after !== null; first = false) {
    const batch = await collection.markGarbage({ ...ALL, limit: 2, after });
    steps.mark += batch.items;
    after = batch.next;
  }
  for (let more = true; more;) {
    const batch = await collection.sweepMarked({ limit: 2 });
    steps.sweep += batch.items;
    more = batch.next !== null;
  }
  assert.deepEqual(steps, { unlink: 5, mark: 5, sweep: 5 });
});

test("a push takes a marked digest back before the sweep", async (t) => {
  const fixture = await catalogFixture(t);
  const bytes = randomBytes(100);
  const digest = await pushBlob(fixture, REPOSITORY, bytes);
  const collection = new Collection(fixture.context);
  await collection.unlinkUnreferenced(ALL);
  assert.equal((await collection.markGarbage(ALL)).items, 1);
  await pushBlob(fixture, REPOSITORY, bytes);
  assert.equal((await collection.sweepMarked({ limit: 10 })).items, 0);
  assert.ok(await fixture.store.stat(digest));
});

test("a push during the removal of its bytes waits and stores them again", async (t) => {
  const gate = Promise.withResolvers<void>();
  const reached = Promise.withResolvers<void>();
  const fixture = await catalogFixture(t, {
    wrapStore: hooked("remove", async () => {
      reached.resolve();
      await gate.promise;
    }),
  });
  const bytes = randomBytes(100);
  const digest = await pushBlob(fixture, REPOSITORY, bytes);
  const collection = new Collection(fixture.context);
  await collection.unlinkUnreferenced(ALL);
  await collection.markGarbage(ALL);
  const sweep = collection.sweepMarked({ limit: 10 });
  await reached.promise;
  const push = pushBlob(fixture, REPOSITORY, bytes);
  await delay(300);
  gate.resolve();
  assert.equal((await sweep).items, 1);
  assert.equal(await push, digest);
  assert.deepEqual(await fixture.store.readAll(digest, 1_000), bytes);
});

test("a push that waited too long for a removal is told to come again, and a dead sweeper's lease ends", async (t) => {
  const fixture = await catalogFixture(t, { limits: { collectionWaitMs: 300, sweepLeaseMs: 1_200 } });
  const bytes = randomBytes(100);
  const digest = await pushBlob(fixture, REPOSITORY, bytes);
  const collection = new Collection(fixture.context);
  await collection.unlinkUnreferenced(ALL);
  await collection.markGarbage(ALL);
  // As a sweeper leaves it that was killed after it removed the bytes.
  await fixture.database.query("UPDATE blobs SET deleting_until = now() + interval '1200 milliseconds'");
  await fixture.store.remove(digest);
  await assert.rejects(pushBlob(fixture, REPOSITORY, bytes), (error) => isSlipwayError(error, "STORAGE_UNAVAILABLE"));
  await delay(1_000);
  await pushBlob(fixture, REPOSITORY, bytes);
  assert.deepEqual(await fixture.store.readAll(digest, 1_000), bytes);
});

test("collection between the reservation and the promotion of a push loses nothing", async (t) => {
  let hook = (): Promise<void> => Promise.resolve();
  const fixture = await catalogFixture(t, { wrapStore: hooked("commitSession", () => hook()) });
  const collection = new Collection(fixture.context);
  hook = async () => {
    await collection.markGarbage(ALL);
    await collection.sweepMarked({ limit: 100 });
  };
  const bytes = randomBytes(100);
  const digest = await pushBlob(fixture, REPOSITORY, bytes);
  assert.deepEqual(await fixture.store.readAll(digest, 1_000), bytes);
});

test("collection between the check of a manifest's blobs and its commit loses nothing", async (t) => {
  let hook = (): Promise<void> => Promise.resolve();
  const fixture = await catalogFixture(t, { wrapStore: hooked("put", () => hook()) });
  hook = async () => void (await collectAll(fixture));
  await assert.rejects(pushImage(fixture, REPOSITORY, { tags: ["v1"] }), (error) => isSlipwayError(error, "MANIFEST_BLOB_UNKNOWN"));
  hook = () => Promise.resolve();
  await pushImage(fixture, REPOSITORY, { tags: ["v1"] });
});

test("a mount of a digest that is being removed gives nothing, of a marked one takes it back", async (t) => {
  const fixture = await catalogFixture(t);
  const digest = await pushBlob(fixture, "team/source");
  const mount = () =>
    fixture.writer.mountBlob({
      repository: REPOSITORY,
      project: fixture.project,
      digest,
      from: "team/source",
      mayRead: () => Promise.resolve(true),
      principal: PRINCIPAL,
    });
  await fixture.database.query("UPDATE blobs SET state = 'deleting'");
  assert.ok(await mount());
  const state = await fixture.database.query<{ state: string }>("SELECT state FROM blobs");
  assert.equal(state.rows[0]?.state, "live");
  await fixture.writer.deleteBlob(REPOSITORY, digest);
  await fixture.database.query("UPDATE blobs SET state = 'deleting', deleting_until = now() + interval '1 minute'");
  assert.equal(await mount(), null);
});

test("a fill in the middle of a collection takes its digest back, or waits for the removal and stores it again", async (t) => {
  const gate = Promise.withResolvers<void>();
  const reached = Promise.withResolvers<void>();
  const fixture = await catalogFixture(t, {
    wrapStore: hooked("remove", async () => {
      reached.resolve();
      await gate.promise;
    }),
  });
  const { store } = fixture.context;
  const bytes = randomBytes(100);
  const digest = await pushBlob(fixture, REPOSITORY, bytes);
  const folder = await tempDir(t);
  const targets = new Map([["team/cache", { projectId: fixture.project.id, repository: "team/cache" }]]);
  const fill = async (): Promise<void> => {
    const path = join(folder, "fetched");
    await writeFile(path, bytes);
    await adoptFor(targets, { digest, size: bytes.length, path }, { writer: new BlobWriter(fixture.context), store, logger: silentLogger });
  };
  const collection = new Collection(fixture.context);
  await collection.unlinkUnreferenced(ALL);
  assert.equal((await collection.markGarbage(ALL)).items, 1);
  await fill();
  assert.equal((await collection.sweepMarked({ limit: 10 })).items, 0, "the fill came before the sweep");

  await collection.unlinkUnreferenced(ALL);
  assert.equal((await collection.markGarbage(ALL)).items, 1);
  const sweeping = collection.sweepMarked({ limit: 10 });
  await reached.promise;
  const filling = fill();
  await delay(200);
  gate.resolve();
  await sweeping;
  await filling;
  assert.equal((await fixture.store.stat(digest))?.size, bytes.length, "the fill came during the removal");
  const links = await fixture.database.query<{ name: string }>(
    "SELECT r.name FROM blob_links l JOIN repositories r ON r.id = l.repository_id WHERE l.digest = $1",
    [digest],
  );
  assert.deepEqual(links.rows, [{ name: "team/cache" }]);
});

test("pushes, mounts and collection without grace at once: every link has its bytes", async (t) => {
  const fixture = await catalogFixture(t);
  const collection = new Collection(fixture.context);
  const contents = Array.from({ length: 4 }, () => randomBytes(64));
  const writers = [newWriter(fixture.context), newWriter(fixture.context)];
  let stop = false;
  const collector = (async () => {
    for (let rounds = 0; !stop; rounds += 1) await collectAll(fixture);
  })();
  const push = async (worker: number): Promise<void> => {
    for (let round = 0; round < 15; round += 1) {
      const bytes = contents[(worker + round) % contents.length] ?? Buffer.alloc(0);
      const digest = digestOf(bytes);
      const target = { repository: `team/r${worker % 3}`, project: fixture.project, digest, principal: PRINCIPAL };
      const writer = writers[worker % 2] ?? fixture.writer;
      if (round % 3 === 2) await writer.mountBlob({ ...target, from: null, mayRead: () => Promise.resolve(true) });
      else await eventually(() => writer.uploadBlob({ ...target, source: body(bytes), length: bytes.length }));
    }
  };
  await Promise.all([0, 1, 2, 3, 4].map(push));
  stop = true;
  await collector;
  for (const bytes of contents) await pushBlob(fixture, REPOSITORY, bytes);
  assert.equal((await collection.markGarbage(ALL)).items + (await collection.sweepMarked({ limit: 100 })).items, 0);
  const links = await fixture.database.query<{ digest: string }>("SELECT DISTINCT digest FROM blob_links");
  assert.equal(links.rows.length, contents.length);
  for (const { digest } of links.rows) assert.ok(await fixture.store.stat(digest), digest);
});

test("uploads that nobody continues expire, running ones and young ones do not", async (t) => {
  const fixture = await catalogFixture(t);
  const collection = new Collection(fixture.context);
  const start = () => fixture.writer.startUpload({ repository: REPOSITORY, principal: PRINCIPAL, algorithm: null });
  const [old, running, young] = [await start(), await start(), await start()];
  await fixture.database.query("UPDATE uploads SET touched_at = now() - interval '2 hours' WHERE id = ANY ($1)", [[old.id, running.id]]);
  await fixture.database.query("UPDATE uploads SET locked_until = now() + interval '1 minute' WHERE id = $1", [running.id]);
  assert.equal(await collection.expireUploads({ olderThanMs: 3_600_000, limit: 10 }), 1);
  assert.equal(await fixture.writer.findUpload(old.id, REPOSITORY), null);
  assert.equal(await fixture.store.sessionSize(old.id), null);
  for (const upload of [running, young]) assert.ok(await fixture.writer.findUpload(upload.id, REPOSITORY));
});

test("sessions in storage that no row knows expire too", async (t) => {
  const fixture = await catalogFixture(t);
  await fixture.store.createSession("orphan");
  const known = await fixture.writer.startUpload({ repository: REPOSITORY, principal: PRINCIPAL, algorithm: null });
  await delay(20);
  await fixture.database.query("UPDATE uploads SET touched_at = now() + interval '1 minute'");
  assert.equal(await new Collection(fixture.context).expireUploads({ olderThanMs: 1, limit: 10 }), 1);
  assert.equal(await fixture.store.sessionSize("orphan"), null);
  assert.equal(await fixture.store.sessionSize(known.id), 0);
});

test("bytes that no row knows get a row and are collected like others", async (t) => {
  const fixture = await catalogFixture(t);
  const collection = new Collection(fixture.context);
  const bytes = randomBytes(70);
  await fixture.store.put(digestOf(bytes), bytes);
  const used = await pushImage(fixture, REPOSITORY, { tags: ["v1"] });
  assert.deepEqual(await collection.adoptOrphanBytes({ limit: 100, after: null }), { items: 1, bytes: 70, next: null });
  assert.deepEqual(await collectAll(fixture), { unlinked: 0, marked: 1, swept: 1 });
  assert.equal(await fixture.store.stat(digestOf(bytes)), null);
  assert.ok(await fixture.store.stat(used.digest));
});
