/** Eviction over a real database and a real disk: what goes, in which order, and what must stay. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { Collection } from "../../src/catalog/collection.ts";
import { ProjectStore } from "../../src/catalog/project-store.ts";
import type { Project } from "../../src/catalog/registry.ts";
import { CacheEvictor } from "../../src/proxy/eviction.ts";
import type { EvictionPolicy, EvictionRules } from "../../src/proxy/eviction.ts";
import { catalogFixture, digestOf, pushBlob, PRINCIPAL } from "../catalog/support.ts";
import type { Fixture } from "../catalog/support.ts";

interface Cached {
  readonly digest: string;
  readonly layer: string;
}

const NEVER = new AbortController().signal;

async function setup(t: TestContext): Promise<{ fixture: Fixture; proxied: Fixture; evictor: CacheEvictor }> {
  const fixture = await catalogFixture(t);
  const { database, context, writer } = fixture;
  const { rows } = await database.query<{ id: number }>(
    "INSERT INTO registries (name, url) VALUES ('hub', 'https://hub.example.com') RETURNING id",
  );
  const project: Project = await new ProjectStore(database, context.invalidator).create({
    name: "hub",
    public: true,
    ownerId: null,
    registryId: rows[0]?.id ?? 0,
  });
  return {
    fixture,
    proxied: { ...fixture, project },
    evictor: new CacheEvictor({ db: database, writer, collection: new Collection(context) }),
  };
}

async function cacheImage(
  fixture: Fixture,
  name: string,
  options: { layer?: string; layerBytes?: number; usedMinutesAgo: number; count?: number; fetchedMinutesAgo?: number },
): Promise<Cached> {
  const repository = `hub/${name}`;
  const config = await pushBlob(fixture, repository, Buffer.from(`{"name":"${name}"}`));
  const layerBytes = randomBytes(options.layerBytes ?? 10_000);
  const layer = options.layer ?? (await pushBlob(fixture, repository, layerBytes));
  if (options.layer)
    await fixture.database.query(
      "INSERT INTO blob_links (repository_id, digest) SELECT id, $2 FROM repositories WHERE name = $1 ON CONFLICT DO NOTHING",
      [repository, layer],
    );
  const { rows } = await fixture.database.query<{ size: number }>("SELECT size FROM blobs WHERE digest = $1", [layer]);
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: config, size: `{"name":"${name}"}`.length },
      layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar", digest: layer, size: rows[0]?.size }],
    }),
  );
  await fixture.writer.putManifest({
    repository,
    project: fixture.project,
    tags: ["latest"],
    digest: null,
    contentType: undefined,
    bytes,
    principal: PRINCIPAL,
    origin: "fill",
  });
  const digest = digestOf(bytes);
  for (const used of [digest, config, layer]) {
    await fixture.database.query(
      `INSERT INTO cache_usage (digest, last_access_at, access_count, fetched_at) VALUES ($1, now() - $2 * interval '1 minute', $3, now() - $4 * interval '1 minute') ON CONFLICT (digest) DO UPDATE SET last_access_at = greatest(cache_usage.last_access_at, EXCLUDED.last_access_at)`,
      [used, options.usedMinutesAgo, options.count ?? 1, options.fetchedMinutesAgo ?? options.usedMinutesAgo],
    );
  }
  // Everything here is older than what eviction leaves alone.
  await fixture.database.query("UPDATE blobs SET touched_at = now() - interval '2 hours'");
  await fixture.database.query("UPDATE blob_links SET touched_at = now() - interval '2 hours'");
  return { digest, layer };
}

async function runToEnd(evictor: CacheEvictor, rules: EvictionRules): Promise<void> {
  for (let step = 0; step < 20; step += 1) if ((await evictor.step(rules, NEVER)).finished) return;
  assert.fail("eviction did not come to an end");
}

async function remaining(fixture: Fixture): Promise<string[]> {
  const { rows } = await fixture.database.query<{ name: string }>(
    "SELECT r.name FROM manifests m JOIN repositories r ON r.id = m.repository_id ORDER BY r.name",
  );
  return rows.map((row) => row.name);
}

const orders: [EvictionPolicy, string][] = [
  ["lru", "hub/lately-unused"],
  ["lfu", "hub/seldom-used"],
  ["fifo", "hub/fetched-first"],
];

for (const [policy, gone] of orders) {
  test(`${policy} takes ${gone} first`, async (t) => {
    const { proxied, evictor } = await setup(t);
    await cacheImage(proxied, "lately-unused", { usedMinutesAgo: 500, count: 90, fetchedMinutesAgo: 600 });
    await cacheImage(proxied, "seldom-used", { usedMinutesAgo: 100, count: 1, fetchedMinutesAgo: 600 });
    await cacheImage(proxied, "fetched-first", { usedMinutesAgo: 10, count: 50, fetchedMinutesAgo: 900 });
    const before = await evictor.cachedBytes();
    await runToEnd(evictor, { maxBytes: before - 1, policy, retentionMs: null });
    const left = await remaining(proxied);
    assert.ok(!left.includes(gone), left.join());
    assert.equal(left.length, 2);
    assert.ok((await evictor.cachedBytes()) < before);
  });
}

test("a layer that another image in use needs stays, with its bytes; the rest of the evicted image goes", async (t) => {
  const { proxied, evictor } = await setup(t);
  const old = await cacheImage(proxied, "old", { usedMinutesAgo: 500 });
  await cacheImage(proxied, "new", { layer: old.layer, usedMinutesAgo: 5 });
  await runToEnd(evictor, { maxBytes: null, policy: "lru", retentionMs: 60 * 60_000 });
  assert.deepEqual(await remaining(proxied), ["hub/new"]);
  assert.ok(await proxied.store.stat(old.layer));
  assert.equal(await proxied.store.stat(old.digest), null);
});

test("local content is never evicted, whatever the limit", async (t) => {
  const { fixture, proxied, evictor } = await setup(t);
  const local = await pushBlob(fixture, "team/app", randomBytes(50_000));
  await cacheImage(proxied, "cached", { usedMinutesAgo: 500 });
  await runToEnd(evictor, { maxBytes: 1, policy: "lru", retentionMs: null });
  assert.deepEqual(await remaining(proxied), []);
  assert.ok(await fixture.store.stat(local));
});

async function cacheIndex(fixture: Fixture, name: string, child: string, usedMinutesAgo: number): Promise<string> {
  const { rows } = await fixture.database.query<{ size: number }>("SELECT size FROM blobs WHERE digest = $1", [child]);
  const mediaType = "application/vnd.oci.image.index.v1+json";
  const entry = { mediaType: "application/vnd.oci.image.manifest.v1+json", digest: child, size: rows[0]?.size };
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: [entry] }));
  const put = { repository: `hub/${name}`, project: fixture.project, tags: ["all"], digest: null, contentType: mediaType };
  await fixture.writer.putManifest({ ...put, bytes, principal: PRINCIPAL, origin: "fill" });
  const digest = digestOf(bytes);
  await fixture.database.query("INSERT INTO cache_usage (digest, last_access_at) VALUES ($1, now() - $2 * interval '1 minute')", [
    digest,
    usedMinutesAgo,
  ]);
  return digest;
}

test("a child of an index that is used, or pinned, stays however long nobody asked for it; that of another goes", async (t) => {
  const { proxied, evictor } = await setup(t);
  const children = [];
  for (const name of ["used", "pinned", "neither"]) children.push(await cacheImage(proxied, name, { usedMinutesAgo: 900 }));
  const [used, pinned, neither] = children;
  await cacheIndex(proxied, "used", used!.digest, 5);
  await evictor.pin(await cacheIndex(proxied, "pinned", pinned!.digest, 800), true);
  await cacheIndex(proxied, "neither", neither!.digest, 800);
  await runToEnd(evictor, { maxBytes: null, policy: "lru", retentionMs: 60 * 60_000 });
  assert.deepEqual([...new Set(await remaining(proxied))], ["hub/pinned", "hub/used"]);
  for (const { layer } of [used!, pinned!]) assert.ok(await proxied.store.stat(layer));
  assert.equal(await proxied.store.stat(neither!.digest), null);
});

test("pinned content stays", async (t) => {
  const { proxied, evictor } = await setup(t);
  const pinned = await cacheImage(proxied, "pinned", { usedMinutesAgo: 900 });
  assert.ok(await evictor.pin(pinned.digest, true));
  await runToEnd(evictor, { maxBytes: 1, policy: "lru", retentionMs: 60_000 });
  assert.deepEqual(await remaining(proxied), ["hub/pinned"]);
  assert.ok(await proxied.store.stat(pinned.layer));
});

test("a purge by repository, tag, digest or age counts first and removes only what was named", async (t) => {
  const { proxied, evictor } = await setup(t);
  const one = await cacheImage(proxied, "one", { usedMinutesAgo: 500 });
  await cacheImage(proxied, "two", { usedMinutesAgo: 5 });
  const dry = await evictor.purge({ unusedMs: 60 * 60_000 }, { dryRun: true, signal: NEVER });
  assert.equal(dry.manifests, 1);
  assert.deepEqual(await remaining(proxied), ["hub/one", "hub/two"]);
  assert.equal((await evictor.purge({ digest: one.digest }, { dryRun: false, signal: NEVER })).manifests, 1);
  assert.equal((await evictor.purge({ repository: "hub/two", tag: "other" }, { dryRun: false, signal: NEVER })).manifests, 0);
  assert.equal((await evictor.purge({ repository: "hub/two", tag: "latest" }, { dryRun: false, signal: NEVER })).manifests, 1);
  assert.deepEqual(await remaining(proxied), []);
});
