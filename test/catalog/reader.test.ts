// Reading by name: from memory once known, right at once after a write anywhere, and alive while the database is away.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { isSlipwayError } from "../../src/core/errors.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { openReader } from "./reader-support.ts";
import { PRINCIPAL, catalogFixture, digestOf, indexManifest, pushBlob, pushImage, putManifest } from "./support.ts";

const REPOSITORY = "team/app";

/** Memory is used only while the invalidation channel is heard, which a busy machine may interrupt for a moment. */
async function peeked<Value>(peek: () => Value | undefined): Promise<Value | undefined> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const value = peek();
    if (value !== undefined) return value;
    await delay(50);
  }
  return undefined;
}

test("what was found once is known to peek", async (t) => {
  const fixture = await catalogFixture(t);
  const image = await pushImage(fixture, REPOSITORY, { tags: ["v1"] });
  const { reader } = await openReader(t, fixture);
  assert.equal(reader.peekManifest(REPOSITORY, "v1"), undefined);
  assert.equal((await reader.findManifest(REPOSITORY, "v1"))?.digest, image.digest);
  assert.deepEqual((await peeked(() => reader.peekManifest(REPOSITORY, "v1")))?.bytes, image.bytes);
  assert.deepEqual((await peeked(() => reader.peekManifest(REPOSITORY, image.digest)))?.bytes, image.bytes);
  assert.equal((await reader.findBlob(REPOSITORY, image.layer))?.size, 100);
  assert.equal((await peeked(() => reader.peekBlob(REPOSITORY, image.layer)))?.bytes?.length, 100);
  assert.equal((await reader.findProject("team"))?.id, fixture.project.id);
  assert.equal((await peeked(() => reader.peekProject("team")))?.id, fixture.project.id);
  assert.equal(await reader.findManifest(REPOSITORY, "none"), null);
  assert.equal(await reader.findBlob("team/other", image.layer), null);
  assert.equal(await reader.findProject("none"), null);
  assert.equal(await reader.repositoryExists(REPOSITORY), true);
  assert.equal(await reader.repositoryExists("team/none"), false);
});

test("a large blob is known by its size only, a large manifest comes from storage", async (t) => {
  const fixture = await catalogFixture(t);
  const digest = await pushBlob(fixture, REPOSITORY, randomBytes(100_000));
  const bytes = indexManifest([], { annotations: { a: "x".repeat(1_000_000) } });
  await putManifest(fixture, REPOSITORY, bytes, ["big"]);
  const { reader } = await openReader(t, fixture);
  assert.deepEqual(await reader.findBlob(REPOSITORY, digest), { digest, size: 100_000, bytes: null });
  assert.deepEqual((await reader.findManifest(REPOSITORY, "big"))?.bytes, bytes);
});

test("a write through one process is seen by the next read of another", async (t) => {
  const fixture = await catalogFixture(t);
  const [one, two] = [await openReader(t, fixture), await openReader(t, fixture)];
  const manifest = (n: number): Buffer => indexManifest([], { annotations: { n: String(n) } });
  const put = (n: number) => putManifest(fixture, REPOSITORY, manifest(n), { tags: ["v1"], writer: one.writer });
  assert.equal(await two.reader.findManifest(REPOSITORY, "v1"), null);
  for (let n = 0; n < 10; n += 1) {
    await put(n);
    assert.equal((await two.reader.findManifest(REPOSITORY, "v1"))?.digest, digestOf(manifest(n)));
  }
  await one.writer.deleteTag(REPOSITORY, "v1", { principal: PRINCIPAL });
  assert.equal(two.reader.peekManifest(REPOSITORY, "v1"), undefined);
  assert.equal(await two.reader.findManifest(REPOSITORY, "v1"), null);
  await one.writer.deleteManifest(REPOSITORY, digestOf(manifest(9)), { principal: PRINCIPAL });
  assert.equal(await two.reader.findManifest(REPOSITORY, digestOf(manifest(9))), null);
});

test("blobs and projects are announced alike", async (t) => {
  const fixture = await catalogFixture(t);
  const [one, two] = [await openReader(t, fixture), await openReader(t, fixture)];
  const bytes = randomBytes(64);
  assert.equal(await two.reader.findBlob(REPOSITORY, digestOf(bytes)), null);
  await pushBlob({ ...fixture, writer: one.writer }, REPOSITORY, bytes);
  assert.ok(await two.reader.findBlob(REPOSITORY, digestOf(bytes)));
  await one.writer.deleteBlob(REPOSITORY, digestOf(bytes));
  assert.equal(two.reader.peekBlob(REPOSITORY, digestOf(bytes)), undefined);
  assert.equal(await two.reader.findBlob(REPOSITORY, digestOf(bytes)), null);
  assert.equal((await two.reader.findProject("team"))?.public, true);
  await one.projects.update(fixture.project.id, { public: false });
  assert.equal((await two.reader.findProject("team"))?.public, false);
  assert.equal(await two.reader.findProject("fresh"), null);
  await one.writer.createProject("fresh", { public: true, ownerId: null });
  assert.ok(await two.reader.findProject("fresh"));
});

test("while the database is away the known stays readable, the unknown says so, and it recovers by itself", async (t) => {
  const fixture = await catalogFixture(t);
  const image = await pushImage(fixture, REPOSITORY, { tags: ["v1"] });
  const target = new URL(fixture.databaseUrl);
  const proxy = await new FaultProxy({ address: target.hostname, port: Number(target.port) }).start();
  t.after(() => proxy.stop());
  const through = new URL(fixture.databaseUrl);
  through.hostname = "127.0.0.1";
  through.port = String(proxy.port);
  const { reader } = await openReader(t, fixture, { databaseUrl: through.href });
  await reader.findManifest(REPOSITORY, "v1");
  await reader.findBlob(REPOSITORY, image.layer);
  proxy.faults.refuse = true;
  proxy.dropConnections();
  assert.deepEqual((await reader.findManifest(REPOSITORY, "v1"))?.bytes, image.bytes);
  assert.ok(await reader.findBlob(REPOSITORY, image.layer));
  await assert.rejects(reader.findManifest(REPOSITORY, "v2"), (error) => isSlipwayError(error, "DATABASE_UNAVAILABLE"));
  await assert.rejects(reader.findBlob(REPOSITORY, image.config), (error) => isSlipwayError(error, "DATABASE_UNAVAILABLE"));
  proxy.faults.refuse = false;
  assert.ok(await reader.findBlob(REPOSITORY, image.config));
});

test("the library project is there after the first start, and stats are plain numbers", async (t) => {
  const fixture = await catalogFixture(t);
  const catalog = await openReader(t, fixture);
  assert.equal((await catalog.ensureLibrary()).id, (await catalog.ensureLibrary()).id);
  assert.equal((await catalog.reader.findProject("library"))?.public, true);
  const leaves = (value: unknown): unknown[] =>
    typeof value === "object" && value !== null ? Object.values(value).flatMap(leaves) : [value];
  assert.ok(leaves(catalog.stats()).every((leaf) => typeof leaf === "number" || typeof leaf === "string" || typeof leaf === "boolean"));
});
