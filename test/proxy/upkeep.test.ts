/** The cache's work that no client waits for: hot tags, fills that were left behind, warm-up lists, and what is forgotten. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { CacheUpkeep } from "../../src/proxy/upkeep.ts";
import { OCI_INDEX, startFakeRegistry } from "../support/fake-registry.ts";
import type { FakeRegistry } from "../support/fake-registry.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { buildImage, buildIndex } from "../support/image.ts";
import type { BuiltImage } from "../support/image.ts";
import { testLogger } from "../support/maintenance.ts";
import { ask, blobGets, createProxyProject, eventually, serveImage } from "../support/proxy-server.ts";
import { startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";

const files = scope({ after });
const server = await startRegistry(files);
const { app } = server;
const { database, proxy } = app;
const upkeep = new CacheUpkeep({ db: database, logger: testLogger, ...proxy });
const signal = new AbortController().signal;

async function outdate(repository: string, seconds = 90): Promise<void> {
  await proxy.manifests.settled();
  await database.query(
    "UPDATE proxy_tags SET checked_at = checked_at - $2 * interval '1 s', fresh_until = fresh_until - $2 * interval '1 s' WHERE repository = $1",
    [repository, seconds],
  );
  proxy.manifests.forget(repository, "1");
}

async function isHere(image: BuiltImage): Promise<boolean> {
  const stats = await Promise.all([...image.blobs.keys()].map((digest) => app.store.stat(digest)));
  return stats.every((stat) => stat !== null);
}

/** An index of two platforms under the tag. */
function serveIndex(upstream: FakeRegistry, tag: string): ReturnType<typeof buildIndex> {
  const built = buildIndex([buildImage({ architecture: "amd64" }), buildImage({ architecture: "arm64" })]);
  for (const image of built.images) serveImage(upstream, "app", `child-${image.manifest.digest.slice(7, 20)}`, image);
  upstream.putManifest("app", built.indexBytes, { tag, mediaType: OCI_INDEX });
  return built;
}

test("a hot tag that moved is here before the next client asks, of the platforms that clients take", async (t) => {
  const upstream = await startFakeRegistry(t);
  await createProxyProject(app, { name: "hot", url: upstream.url });
  const url = (reference: string): string => `${server.url}/v2/hot/app/manifests/${reference}`;
  const first = serveIndex(upstream, "1");
  for (let pulls = 0; pulls < 5; pulls += 1) await ask(url("1"));
  await ask(url(first.images[0]!.manifest.digest));
  await eventually("the platform is learnt", async () => (await database.query("SELECT 1 FROM proxy_platforms")).rowCount === 1);
  await eventually("the first image is here", () => isHere(first.images[0]!));
  const moved = serveIndex(upstream, "1");
  serveImage(upstream, "app", "rare");
  await ask(url("rare"));
  await proxy.heat.flush();
  assert.deepEqual(await upkeep.refreshHotTags(signal), { done: 0, failed: 0 }, "what is fresh is left alone");
  await outdate("hot/app");
  upstream.resetCalls();
  assert.deepEqual(await upkeep.refreshHotTags(signal), { done: 1, failed: 0 });
  assert.ok(await isHere(moved.images[0]!));
  assert.equal(await isHere(moved.images[1]!), false);
  assert.equal(upstream.count("manifest-head"), 1);
  upstream.resetCalls();
  assert.deepEqual(await upkeep.refreshHotTags(signal), { done: 0, failed: 0 }, "our own check is no pull and keeps nothing hot for ever");
  const pulled = await ask(url("1"));
  assert.deepEqual([pulled.cache, pulled.bytes], ["HIT", moved.indexBytes]);
  assert.equal((await ask(url(moved.images[0]!.manifest.digest))).cache, "HIT");
  for (const digest of moved.images[0]!.blobs.keys()) assert.equal((await ask(`${server.url}/v2/hot/app/blobs/${digest}`)).cache, "HIT");
  assert.equal(upstream.calls.length, 0);
  await database.query("UPDATE proxy_tags SET heat_at = heat_at - interval '3 days'");
  await outdate("hot/app");
  assert.deepEqual(await upkeep.refreshHotTags(signal), { done: 0, failed: 0 }, "heat of days ago is none");
});

test("a tag that a check behind the answer found moved brings its layers along at once", async (t) => {
  const upstream = await startFakeRegistry(t);
  await createProxyProject(app, { name: "behind", url: upstream.url });
  const old = serveImage(upstream, "app", "1");
  await ask(`${server.url}/v2/behind/app/manifests/1`);
  const moved = serveImage(upstream, "app", "1", buildImage({ layers: 3 }));
  await outdate("behind/app");
  const stale = await ask(`${server.url}/v2/behind/app/manifests/1`);
  assert.deepEqual([stale.cache, stale.bytes], ["STALE", old.manifestBytes]);
  await eventually("the new layers are here", () => isHere(moved));
});

test("a proxy that never asks about what is here is not asked for it by us either", async (t) => {
  const upstream = await startFakeRegistry(t);
  await createProxyProject(app, { name: "local", url: upstream.url, metadata: { proxy_mode: "local-first" } });
  serveImage(upstream, "app", "1");
  for (let pulls = 0; pulls < 5; pulls += 1) await ask(`${server.url}/v2/local/app/manifests/1`);
  await proxy.heat.flush();
  await outdate("local/app");
  upstream.resetCalls();
  await upkeep.refreshHotTags(signal);
  assert.equal(upstream.count("manifest-head") + upstream.count("manifest-get"), 0);
});

test("a fill that no process holds is completed, and one that upstream has nothing for is forgotten", async (t) => {
  const upstream = await startFakeRegistry(t);
  const network = await startFaultProxy(t, { port: upstream.port });
  const project = await createProxyProject(app, { name: "left", url: network.url, metadata: { proxy_prefetch: "false" } });
  const content = randomBytes(3_000_000);
  const digest = upstream.putBlob("app", content);
  const absent = `sha256:${"ab".repeat(32)}`;
  for (const [repository, left] of [
    ["left/app", digest],
    ["left/app", absent],
    ["nowhere/app", `sha256:${"cd".repeat(32)}`],
  ]) {
    await database.query(
      "INSERT INTO fills (digest, project_id, repository, attempts, updated_at) VALUES ($1, $2, $3, 1, now() - interval '1 minute')",
      [left, project.id, repository],
    );
  }
  assert.deepEqual(await upkeep.completeFills(signal), { done: 3, failed: 0 });
  assert.equal((await app.store.stat(digest))?.size, content.length);
  assert.equal(blobGets(upstream).get(digest), 1);
  await eventually(
    "no fill is left",
    async () => (await database.query("SELECT 1 FROM fills WHERE project_id = $1", [project.id])).rowCount === 0,
  );
  assert.equal((await ask(`${server.url}/v2/left/app/blobs/${digest}`)).cache, "HIT");
});

test("what clients ask for in vain leaves no fill behind", async (t) => {
  const upstream = await startFakeRegistry(t);
  const project = await createProxyProject(app, { name: "vain", url: upstream.url });
  upstream.putImage("app", "1");
  assert.equal((await ask(`${server.url}/v2/vain/app/blobs/sha256:${"ef".repeat(32)}`)).status, 404);
  await eventually(
    "nothing is left",
    async () => (await database.query("SELECT 1 FROM fills WHERE project_id = $1", [project.id])).rowCount === 0,
  );
});

test("a warm-up list is pulled whole, every platform, also where an older version is here; what cannot be pulled holds nothing up", async (t) => {
  const upstream = await startFakeRegistry(t);
  await createProxyProject(app, { name: "warm", url: upstream.url, metadata: { proxy_prefetch: "false" } });
  serveIndex(upstream, "1");
  await ask(`${server.url}/v2/warm/app/manifests/1`);
  const moved = serveIndex(upstream, "1");
  const pinned = serveImage(upstream, "app", "2");
  await outdate("warm/app");
  const list = ["warm/app:none", "warm/app:1", `warm/app@${pinned.manifest.digest}`, "elsewhere/x:1"];
  assert.deepEqual(await upkeep.warmUp(list, signal), { done: 2, failed: 2 });
  for (const image of [...moved.images, pinned]) assert.ok(await isHere(image));
  upstream.resetCalls();
  assert.deepEqual(await upkeep.warmUp(list.slice(1, 3), signal), { done: 2, failed: 0 });
  assert.equal(blobGets(upstream).size, 0, "what is here is not fetched again");
});

test("absent names and old lists are forgotten, content and young knowledge are not", async (t) => {
  const upstream = await startFakeRegistry(t);
  await createProxyProject(app, { name: "old", url: upstream.url });
  upstream.putImage("app", "1");
  for (const tag of ["1", "none", "neither"]) await ask(`${server.url}/v2/old/app/manifests/${tag}`);
  await proxy.manifests.settled();
  await ask(`${server.url}/v2/old/app/tags/list`);
  await database.query("UPDATE proxy_tags SET fresh_until = now() - interval '2 hours' WHERE repository = 'old/app' AND tag <> 'neither'");
  await database.query("UPDATE proxy_lists SET fresh_until = now() - interval '31 days' WHERE repository = 'old/app'");
  assert.equal(await upkeep.forgetOld(signal), 2);
  const { rows } = await database.query<{ tag: string }>("SELECT tag FROM proxy_tags WHERE repository = 'old/app' ORDER BY tag");
  assert.deepEqual(rows, [{ tag: "1" }, { tag: "neither" }]);
  assert.equal((await ask(`${server.url}/v2/old/app/manifests/1`)).status, 200);
});
