/** Rows come back from storage after the database was lost, and rows whose bytes were lost go. Real Postgres, real disk. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { TestContext } from "node:test";
import type { LinkRecord } from "../../src/catalog/content-records.ts";
import { writeLinkRecords } from "../../src/catalog/link-records.ts";
import type { OutboxRow } from "../../src/catalog/outbox.ts";
import { writeProjectRecords } from "../../src/catalog/project-records.ts";
import { ProjectStore } from "../../src/catalog/project-store.ts";
import { RebuildFence } from "../../src/catalog/rebuild-fence.ts";
import { Rebuilder } from "../../src/catalog/rebuild.ts";
import type { Project } from "../../src/catalog/registry.ts";
import { isSlipwayError } from "../../src/core/errors.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import { openReader } from "./reader-support.ts";
import {
  catalogFixture,
  type Fixture,
  type ImageOptions,
  imageManifest,
  indexManifest,
  PRINCIPAL,
  type PushedImage,
  pushBlob,
  pushImage,
  putManifest,
} from "./support.ts";

const SCOPE = { registriesScope: "registries" };

/** What the relay does. */
async function drain({ database, store }: Fixture): Promise<void> {
  const { rows } = await database.query<OutboxRow>("SELECT id, kind, key, payload, attempts FROM outbox ORDER BY id");
  const linked = rows.filter((row) => row.kind === "link-record");
  for (let start = 0; start < linked.length; start += 3) await writeLinkRecords(linked.slice(start, start + 3), store);
  await writeProjectRecords(
    rows.filter((row) => row.kind === "project-record"),
    { database, store },
  );
  await database.query("DELETE FROM outbox WHERE id = ANY ($1)", [rows.map((row) => row.id)]);
}

/** A new database over the storage of one that is lost. */
async function successor(t: TestContext, first: Fixture, wrap: (store: BlobStore) => BlobStore = (store) => store): Promise<Fixture> {
  const next = await catalogFixture(t, { wrapStore: () => wrap(first.context.store) });
  return { ...next, store: first.store };
}

async function rebuildAll(fixture: Fixture, limit = 7): Promise<{ items: number; missing: number }> {
  const rebuilder = new Rebuilder(fixture.context, SCOPE);
  let items = 0;
  let missing = 0;
  for (const phase of ["rebuildProjects", "rebuildContent"] as const) {
    let after: string | null = null;
    for (let step = 0; ; step += 1) {
      assert.ok(step < 100, "the phase comes to an end");
      const batch: Awaited<ReturnType<Rebuilder["rebuildContent"]>> = await rebuilder[phase]({ limit, after });
      items += batch.items;
      missing += batch.missing;
      if (batch.next === null) break;
      after = batch.next;
    }
  }
  return { items, missing };
}

async function sweepMissing(fixture: Fixture): Promise<{ items: number; missing: number }> {
  const rebuilder = new Rebuilder(fixture.context, SCOPE);
  let items = 0;
  let missing = 0;
  for (let after: string | null = null; ;) {
    const batch = await rebuilder.removeRowsWithoutBytes({ limit: 5, after, youngMs: 0, perSecond: 100_000 });
    items += batch.items;
    missing += batch.missing;
    if (batch.next === null) return { items, missing };
    after = batch.next;
  }
}

/** Everything that clients can tell apart, without ids and times of rows. */
async function picture({ database }: Fixture): Promise<Record<string, unknown[]>> {
  const queries: Record<string, string> = {
    projects: `SELECT p.name, p.public, p.metadata, p.repo_count, g.name AS registry, g.url FROM projects p LEFT JOIN registries g ON g.id = p.registry_id
      WHERE p.repo_count > 0 OR p.registry_id IS NOT NULL ORDER BY p.name`,
    repositories: "SELECT name, artifact_count FROM repositories ORDER BY name",
    blobs: `SELECT DISTINCT b.digest, b.size, b.stored, b.state FROM blobs b WHERE EXISTS (SELECT 1 FROM blob_links l WHERE l.digest = b.digest)
      OR EXISTS (SELECT 1 FROM manifests m WHERE m.digest = b.digest) ORDER BY b.digest`,
    links: "SELECT r.name, l.digest FROM blob_links l JOIN repositories r ON r.id = l.repository_id ORDER BY r.name, l.digest",
    manifests: `SELECT r.name, m.digest, m.media_type, m.artifact_type, m.config_media_type, m.subject_digest, m.size, m.total_size, m.annotations,
      encode(m.bytes, 'hex') AS bytes FROM manifests m JOIN repositories r ON r.id = m.repository_id ORDER BY r.name, m.digest`,
    references: `SELECT r.name, f.manifest_digest, f.digest, f.kind, f.size, f.position, f.platform FROM manifest_references f
      JOIN repositories r ON r.id = f.repository_id ORDER BY r.name, f.manifest_digest, f.digest, f.kind`,
    tags: "SELECT r.name, t.name AS tag, t.digest FROM tags t JOIN repositories r ON r.id = t.repository_id ORDER BY r.name, t.name",
  };
  const result: Record<string, unknown[]> = {};
  for (const [name, sql] of Object.entries(queries)) result[name] = (await database.query(sql)).rows;
  return result;
}

interface Pushed {
  readonly images: readonly (PushedImage & { repository: string })[];
  readonly gone: PushedImage;
}

async function proxyProject({ database, context }: Fixture): Promise<Project> {
  const { rows } = await database.query<{ id: number }>(
    `INSERT INTO registries (name, url, type, hosts, access_key, access_secret, credential_type)
     VALUES ('hub', 'https://hub.example.com', 'docker-hub', '["hub.example.com"]', 'robot-name', 'very-secret', 'basic') RETURNING id`,
  );
  return new ProjectStore(database, context.invalidator).create({
    name: "hub",
    public: true,
    ownerId: null,
    registryId: rows[0]?.id ?? 0,
    metadata: { proxy_speed_kb: "5" },
  });
}

/** Local images, an index, a signature, cached content, and all kinds of removal. */
async function fill(fixture: Fixture): Promise<Pushed> {
  const { writer, project } = fixture;
  const images: (PushedImage & { repository: string })[] = [];
  const push = async (repository: string, options: ImageOptions, on: Project = project): Promise<PushedImage> => {
    const image = await pushImage({ ...fixture, project: on }, repository, options);
    images.push({ ...image, repository });
    return image;
  };
  const one = await push("team/app", { tags: ["v1", "latest"] });
  const two = await push("team/app", { tags: ["v2", "latest"], annotations: { note: "two" } });
  await push("team/app", { subject: { digest: one.digest }, artifactType: "application/vnd.example.signature" });
  await push("team/app-more", { tags: ["x"] });
  await push(`team/app/${"long".repeat(52)}`, { tags: ["x"] });
  const index = indexManifest([
    { digest: one.digest, size: one.bytes.length, platform: { os: "linux", architecture: "amd64" } },
    { digest: two.digest, size: two.bytes.length },
  ]);
  await putManifest(fixture, "team/app", index, ["multi"]);
  await push("hub/library/alpine", { tags: ["3.20"] }, await proxyProject(fixture));

  const gone = await pushImage(fixture, "team/app", { tags: ["gone", "v3"] });
  await writer.deleteTag("team/app", "v1", { principal: PRINCIPAL });
  await writer.deleteManifest("team/app", gone.digest, { principal: PRINCIPAL });
  await writer.deleteBlob("team/app", gone.layer);
  await pushImage(fixture, "team/removed", { tags: ["a"] });
  await writer.deleteRepository("team/removed", { principal: PRINCIPAL });
  const back = await push("team/removed-and-back", { tags: ["old"] });
  await writer.deleteRepository("team/removed-and-back", { principal: PRINCIPAL });
  images.splice(
    images.findIndex((image) => image.digest === back.digest),
    1,
  );
  await push("team/removed-and-back", { tags: ["new"] });
  await drain(fixture);
  return { images, gone };
}

test("a new database over the same storage gets every row back, and what was removed stays removed", async (t) => {
  const first = await catalogFixture(t);
  const { images, gone } = await fill(first);
  const before = await picture(first);
  const second = await successor(t, first);
  assert.ok(await new Rebuilder(second.context, SCOPE).isDue());

  const rebuilt = await rebuildAll(second);
  assert.ok(rebuilt.items > 20);
  assert.deepEqual(await picture(second), before);
  assert.equal(rebuilt.missing, 0);

  const { reader } = await openReader(t, second);
  for (const { repository, digest, bytes, config, layer } of images) {
    assert.deepEqual((await reader.findManifest(repository, digest))?.bytes, bytes);
    for (const blob of [config, layer]) {
      const found = await reader.findBlob(repository, blob);
      assert.deepEqual(found?.bytes, await first.store.readAll(blob, 1_000));
    }
  }
  assert.equal(await reader.findManifest("team/app", gone.digest), null);
  assert.equal(await reader.findManifest("team/app", "gone"), null);
  assert.equal(await reader.findManifest("team/app", "v1"), null);
  assert.equal(await reader.findBlob("team/app", gone.layer), null);
  const referrers = await reader.listReferrers({
    repository: "team/app",
    digest: images[0]?.digest ?? "",
    artifactType: null,
    limit: 10,
    last: null,
  });
  assert.deepEqual(
    referrers.manifests.map((manifest) => manifest.digest),
    [images[2]?.digest],
  );

  assert.deepEqual(await rebuildAll(second), { items: 0, missing: 0 }, "a second run finds nothing to do");
  assert.deepEqual(await picture(second), before);
  assert.equal((await sweepMissing(second)).missing, 0);
  assert.deepEqual(await picture(second), before);
});

test("cached content comes back with its project, registry and tag, known to eviction, and without any secret", async (t) => {
  const first = await catalogFixture(t);
  const { images } = await fill(first);
  const cached = images.find((image) => image.repository.startsWith("hub/"));
  const second = await successor(t, first);
  await rebuildAll(second);
  const { rows } = await second.database.query(
    `SELECT g.type, g.hosts, g.access_key, g.access_secret, t.digest, t.fresh_until < now() AS old, p.metadata ->> 'proxy_speed_kb' AS speed
     FROM proxy_tags t JOIN projects p ON p.id = t.project_id JOIN registries g ON g.id = p.registry_id WHERE t.repository = 'hub/library/alpine'`,
  );
  assert.deepEqual(rows, [
    { type: "docker-hub", hosts: ["hub.example.com"], access_key: "", access_secret: "", digest: cached?.digest, old: true, speed: "5" },
  ]);
  const usage = await second.database.query<{ digest: string }>("SELECT digest FROM cache_usage ORDER BY digest");
  assert.deepEqual(
    usage.rows.map((row) => row.digest),
    [cached?.digest ?? "", cached?.config ?? "", cached?.layer ?? ""].toSorted(),
  );
  for (const { key } of await first.store.listObjects("projects/", null, 100))
    assert.doesNotMatch(String(await first.store.getObject(key)), /robot-name|very-secret/);
});

test("content pushed to the new database before and after the rebuild wins, and survives the next loss", async (t) => {
  const first = await catalogFixture(t);
  await pushImage(first, "team/app", { tags: ["latest", "old"] });
  await drain(first);
  const second = await successor(t, first);
  const newer = await pushImage(second, "team/app", { tags: ["latest"] });
  await rebuildAll(second);
  const { reader } = await openReader(t, second);
  assert.equal((await reader.findManifest("team/app", "latest"))?.digest, newer.digest);
  assert.ok(await reader.findManifest("team/app", "old"));
  await second.writer.deleteTag("team/app", "old", { principal: PRINCIPAL });
  await drain(second);
  const before = await picture(second);
  const third = await successor(t, first);
  await rebuildAll(third);
  assert.deepEqual(await picture(third), before);
});

test("a project that had been private is not public afterwards, though the new database made it by itself", async (t) => {
  const first = await catalogFixture(t);
  const projects = new ProjectStore(first.database, first.context.invalidator);
  await projects.update(first.project.id, { public: false });
  await pushImage(first, "team/app", { tags: ["a"] });
  const removed = await projects.create({ name: "removed", public: true, ownerId: null });
  await drain(first);
  await projects.remove(removed.id);
  await drain(first);
  const second = await successor(t, first);
  await drain(second);
  await rebuildAll(second);
  const found = await new ProjectStore(second.database, second.context.invalidator).find("team");
  assert.equal(found?.public, false);
  assert.equal(await new ProjectStore(second.database, second.context.invalidator).find("removed"), null);
  const { rows } = await second.database.query<{ id: number }>(
    "UPDATE projects SET public = true, updated_at = now() WHERE name = 'team' RETURNING id",
  );
  assert.equal(rows.length, 1);
  await rebuildAll(second);
  const opened = await new ProjectStore(second.database, second.context.invalidator).find("team");
  assert.equal(opened?.public, true, "a decision made since then stands");
});

test("a rebuild that breaks off in the middle is finished by the next", async (t) => {
  const first = await catalogFixture(t);
  await fill(first);
  const before = await picture(first);
  let looks = 0;
  const second = await successor(t, first, (store) =>
    Object.assign(Object.create(store) as BlobStore, {
      stat: (digest: string) => {
        looks += 1;
        if (looks === 9) return Promise.reject(new Error("the disk is away"));
        return store.stat(digest);
      },
      getObject: store.getObject.bind(store),
      listObjects: store.listObjects.bind(store),
      readAll: store.readAll.bind(store),
    }),
  );
  await assert.rejects(rebuildAll(second), /the disk is away/);
  await rebuildAll(second);
  assert.deepEqual(await picture(second), before);
});

test("what is removed while a rebuild looks at it does not come back", async (t) => {
  const fixture = await catalogFixture(t);
  const image = await pushImage(fixture, "team/app", { tags: ["a"] });
  await drain(fixture);
  let deleted = false;
  const store = fixture.store;
  const slow: BlobStore = Object.assign(Object.create(store) as BlobStore, {
    getObject: store.getObject.bind(store),
    stat: store.stat.bind(store),
    readAll: store.readAll.bind(store),
    listObjects: async (prefix: string, after: string | null, limit: number) => {
      const entries = await store.listObjects(prefix, after, limit);
      // The last page of records was read; now somebody deletes, and the relay wants to write it down.
      if (prefix.endsWith("/_") && !deleted) {
        deleted = true;
        assert.ok(await fixture.writer.deleteManifest("team/app", image.digest, { principal: PRINCIPAL }));
      }
      return entries;
    },
  });
  await rebuildAll({ ...fixture, context: { ...fixture.context, store: slow } });
  assert.ok(deleted);
  assert.equal((await fixture.database.query("SELECT 1 FROM manifests")).rowCount, 0);
  await drain(fixture);
  await rebuildAll(fixture);
  assert.equal((await fixture.database.query("SELECT 1 FROM manifests")).rowCount, 0);
});

test("a fence holds later records back, and tells when it was passed", async (t) => {
  const fixture = await catalogFixture(t);
  const { database, writer } = fixture;
  const image = await pushImage(fixture, "team/app", { tags: ["a"] });
  await drain(fixture);
  const { Outbox } = await import("../../src/catalog/outbox.ts");
  const outbox = new Outbox(database);
  const fence = await RebuildFence.raise(database, "team/app");
  await writer.deleteTag("team/app", "a", { principal: PRINCIPAL });
  assert.deepEqual((await outbox.claim({ kind: "link-record", limit: 10, leaseMs: 1_000 })).rows, []);
  const changed = await database.transaction((tx) => fence.changedSince(tx));
  assert.deepEqual(changed, new Set(["3a"]));
  await fence.lower();
  assert.equal(await database.transaction((tx) => fence.changedSince(tx)), null);
  const claimed = await outbox.claim({ kind: "link-record", limit: 10, leaseMs: 60_000 });
  assert.deepEqual(
    claimed.rows.map((row) => (row.payload as LinkRecord).op),
    ["remove"],
  );

  await outbox.complete(
    claimed.claim,
    claimed.rows.map((row) => row.id),
  );
  await writer.deleteManifest("team/app", image.digest, { principal: PRINCIPAL });
  const passed = await RebuildFence.raise(database, "team/app");
  const both = await outbox.claim({ kind: "link-record", limit: 10, leaseMs: 60_000 });
  assert.equal(both.rows.length, 2, "rows from before the fence take it along");
  await writeLinkRecords(both.rows, fixture.store);
  assert.equal(await database.transaction((tx) => passed.changedSince(tx)), null);
});

test("rows whose bytes are gone go with their tags, tell it to the records, and to nobody else; what has bytes stays", async (t) => {
  const fixture = await catalogFixture(t);
  const kept = await pushImage(fixture, "team/app", { tags: ["kept"] });
  const lostLayer = await pushImage(fixture, "team/app", { tags: ["half"] });
  const big = await putBigManifest(fixture, "team/app", ["big"]);
  await drain(fixture);
  await fixture.store.remove(lostLayer.layer);
  await fixture.store.remove(big);
  await fixture.store.remove(kept.digest);
  const swept = await sweepMissing(fixture);
  assert.deepEqual(swept, { items: 2, missing: 3 });
  const { reader } = await openReader(t, fixture);
  assert.equal(await reader.findBlob("team/app", lostLayer.layer), null);
  assert.equal(await reader.findManifest("team/app", "big"), null);
  assert.ok(await reader.findManifest("team/app", "kept"));
  assert.deepEqual(await fixture.store.readAll(kept.digest, 10_000), kept.bytes, "a small manifest is written back from its row");
  const kinds = await fixture.database.query<{ kind: string; n: number }>("SELECT kind, count(*) AS n FROM outbox GROUP BY kind");
  assert.deepEqual(kinds.rows, [{ kind: "link-record", n: 3 }]);
  const before = await picture(fixture);
  await drain(fixture);
  const second = await successor(t, fixture);
  await rebuildAll(second);
  assert.deepEqual(await picture(second), before);
  assert.equal(await pushBlob(fixture, "team/app", Buffer.from("again")).then(() => "pushed"), "pushed");
});

test("storage that is empty altogether is taken for the wrong one, and nothing is removed", async (t) => {
  const fixture = await catalogFixture(t);
  const { config, layer, digest } = await pushImage(fixture, "team/app", { tags: ["a"] });
  const before = await picture(fixture);
  for (const gone of [config, layer, digest]) await fixture.store.remove(gone);
  await assert.rejects(sweepMissing(fixture), (error) => isSlipwayError(error, "STORAGE_UNAVAILABLE"));
  assert.deepEqual(await picture(fixture), before);
});

/** Too large to be kept in Postgres. */
async function putBigManifest(fixture: Fixture, repository: string, tags: readonly string[]): Promise<string> {
  const config = await pushBlob(fixture, repository, randomBytes(40));
  const layer = await pushBlob(fixture, repository, randomBytes(100));
  const annotations = { filler: "x".repeat(300_000) };
  const bytes = imageManifest({ config, configSize: 40, layer, layerSize: 100 }, { annotations });
  return (await putManifest(fixture, repository, bytes, tags)).digest;
}
