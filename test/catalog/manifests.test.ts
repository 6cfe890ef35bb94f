// Manifest pushes and deletes: what is checked, what moves, what is told, and what happens when many do it at once.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { CatalogEvent, LinkRecord } from "../../src/catalog/content-records.ts";
import { ManifestStore } from "../../src/catalog/manifest-store.ts";
import { TagStore } from "../../src/catalog/tag-store.ts";
import { type ErrorCode, isSlipwayError } from "../../src/core/errors.ts";
import { MEDIA_TYPES } from "../../src/oci/media-types.ts";
import {
  type Fixture,
  PRINCIPAL,
  catalogFixture,
  digestOf,
  imageManifest,
  indexManifest,
  newWriter,
  pushBlob,
  pushImage,
  putManifest,
} from "./support.ts";

const REPOSITORY = "team/app";

function fails(work: Promise<unknown>, code: ErrorCode, check: (detail: unknown) => boolean = () => true): Promise<void> {
  return assert.rejects(work, (error) => isSlipwayError(error, code) && check(error.detail));
}

async function outbox<Payload>(fixture: Fixture, kind: string): Promise<Payload[]> {
  const rows = await fixture.database.query<{ payload: Payload }>("SELECT payload FROM outbox WHERE kind = $1 ORDER BY id", [kind]);
  return rows.rows.map((row) => row.payload);
}

function tagDigest(fixture: Fixture, tag: string): Promise<string | null> {
  return new TagStore(fixture.database).findDigest(REPOSITORY, tag);
}

test("a manifest keeps its bytes in storage and in the row, and its tags point to it", async (t) => {
  const fixture = await catalogFixture(t);
  const image = await pushImage(fixture, REPOSITORY, { tags: ["v1", "latest"] });
  assert.deepEqual(await fixture.store.readAll(image.digest, 1_000_000), image.bytes);
  const row = await new ManifestStore(fixture.database).find(REPOSITORY, image.digest);
  assert.deepEqual(row?.bytes, image.bytes);
  assert.equal(await tagDigest(fixture, "v1"), image.digest);
  assert.equal(await tagDigest(fixture, "latest"), image.digest);
  assert.ok(fixture.published.includes("repository:team/app"));
  const sizes = await fixture.database.query<{ total_size: number; artifact_count: number }>(
    "SELECT m.total_size, r.artifact_count FROM manifests m JOIN repositories r ON r.id = m.repository_id",
  );
  assert.deepEqual(sizes.rows, [{ total_size: image.bytes.length + 140, artifact_count: 1 }]);
});

test("records and events are written with the rows, and a push that changes nothing writes none", async (t) => {
  const fixture = await catalogFixture(t);
  const image = await pushImage(fixture, REPOSITORY, { tags: ["v1"] });
  await putManifest(fixture, REPOSITORY, image.bytes, ["v1"]);
  const records = await outbox<LinkRecord>(fixture, "link-record");
  assert.deepEqual(
    records.map((record) => `${record.op} ${record.target} ${record.tag ?? record.digest}`),
    [`add blob ${image.config}`, `add blob ${image.layer}`, `add manifest ${image.digest}`, "add tag v1"],
  );
  const events = await outbox<CatalogEvent>(fixture, "event");
  assert.deepEqual(
    events.map((event) => [event.type, event.tag, event.principal, event.origin]),
    [
      ["push", null, "user:7", "push"],
      ["tag", "v1", "user:7", "push"],
    ],
  );
});

test("blobs must be readable in the same repository, elsewhere does not count", async (t) => {
  const fixture = await catalogFixture(t);
  const config = await pushBlob(fixture, REPOSITORY, randomBytes(40));
  const layer = await pushBlob(fixture, "team/other", randomBytes(100));
  const bytes = imageManifest({ config, configSize: 40, layer, layerSize: 100 });
  const missing = (detail: unknown): boolean => JSON.stringify(detail) === JSON.stringify({ digests: [layer] });
  await fails(putManifest(fixture, REPOSITORY, bytes, ["v1"]), "MANIFEST_BLOB_UNKNOWN", missing);
  assert.equal(await tagDigest(fixture, "v1"), null);
  assert.equal(await fixture.store.stat(digestOf(bytes)), null);
  await fails(putManifest(fixture, "team/none", bytes, []), "MANIFEST_BLOB_UNKNOWN");
});

test("a descriptor of another size than its content is refused", async (t) => {
  const fixture = await catalogFixture(t);
  const config = await pushBlob(fixture, REPOSITORY, randomBytes(40));
  const layer = await pushBlob(fixture, REPOSITORY, randomBytes(100));
  await fails(putManifest(fixture, REPOSITORY, imageManifest({ config, configSize: 40, layer, layerSize: 99 }), []), "MANIFEST_INVALID");
  const image = await pushImage(fixture, REPOSITORY);
  await fails(putManifest(fixture, REPOSITORY, indexManifest([{ digest: image.digest, size: 1 }]), []), "MANIFEST_INVALID");
});

test("foreign layers, absent children and absent subjects are legal", async (t) => {
  const fixture = await catalogFixture(t);
  const config = await pushBlob(fixture, REPOSITORY, randomBytes(40));
  const absent = `sha256:${"d".repeat(64)}`;
  const foreign = imageManifest({ config, configSize: 40, layer: absent, layerSize: 5 }, { subject: { digest: absent } })
    .toString()
    .replace("application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
  const put = await putManifest(fixture, REPOSITORY, Buffer.from(foreign), ["windows"]);
  assert.equal(put.subject, absent);
  await putManifest(fixture, REPOSITORY, indexManifest([{ digest: absent, size: 9 }]), ["sparse"]);
  await putManifest(fixture, REPOSITORY, indexManifest([]), ["empty"]);
});

test("a fill may store a manifest before its blobs", async (t) => {
  const fixture = await catalogFixture(t);
  const absent = `sha256:${"d".repeat(64)}`;
  const bytes = imageManifest({ config: absent, configSize: 4, layer: absent, layerSize: 5 });
  const put = {
    repository: REPOSITORY,
    project: fixture.project,
    tags: [],
    digest: null,
    contentType: undefined,
    bytes,
    principal: PRINCIPAL,
  };
  await fixture.writer.putManifest({ ...put, allowMissingBlobs: true, origin: "fill" });
  assert.equal((await outbox<CatalogEvent>(fixture, "event"))[0]?.origin, "fill");
});

test("the digest in the reference is checked, sha512 too", async (t) => {
  const fixture = await catalogFixture(t);
  const bytes = indexManifest([], { annotations: { a: "b" } });
  await fails(putManifest(fixture, REPOSITORY, bytes, { tags: [], digest: digestOf(Buffer.from("x")) }), "DIGEST_INVALID");
  await fails(putManifest(fixture, REPOSITORY, bytes, { tags: [], digest: "sha256:bad" }), "DIGEST_INVALID");
  const sha512 = digestOf(bytes, "sha512");
  assert.equal((await putManifest(fixture, REPOSITORY, bytes, { tags: ["big"], digest: sha512 })).digest, sha512);
  assert.equal(await tagDigest(fixture, "big"), sha512);
});

test("bad tags and too many of them are refused whole", async (t) => {
  const fixture = await catalogFixture(t);
  await fails(putManifest(fixture, REPOSITORY, indexManifest([]), ["good", "-bad"]), "MANIFEST_INVALID");
  await fails(
    putManifest(
      fixture,
      REPOSITORY,
      indexManifest([]),
      Array.from({ length: 65 }, (_, index) => `t${index}`),
    ),
    "URI_TOO_LONG",
  );
  assert.equal(await tagDigest(fixture, "good"), null);
});

test("about 4 MB and odd characters are stored as they came", async (t) => {
  const fixture = await catalogFixture(t);
  const bytes = Buffer.from(
    indexManifest([], { annotations: { a: "ü\u{1F600}" }, custom: "x".repeat(3_900_000) })
      .toString()
      .replace("{", "{ \n\t"),
  );
  const { digest } = await putManifest(fixture, REPOSITORY, bytes, { tags: ["big"], contentType: MEDIA_TYPES.ociIndex });
  assert.deepEqual(await fixture.store.readAll(digest, 8_000_000), bytes);
  const row = await new ManifestStore(fixture.database).find(REPOSITORY, digest);
  assert.equal(row?.bytes, null);
  assert.equal(row?.size, bytes.length);
});

test("preconditions hold for every tag or nothing changes", async (t) => {
  const fixture = await catalogFixture(t);
  const one = indexManifest([], { annotations: { n: "1" } });
  const two = indexManifest([], { annotations: { n: "2" } });
  await fails(putManifest(fixture, REPOSITORY, one, { tags: ["v1"], ifMatch: "*" }), "PRECONDITION_FAILED");
  await putManifest(fixture, REPOSITORY, one, { tags: ["v1"], ifNoneMatch: "*" });
  await fails(putManifest(fixture, REPOSITORY, two, { tags: ["new", "v1"], ifNoneMatch: "*" }), "PRECONDITION_FAILED");
  assert.equal(await tagDigest(fixture, "new"), null);
  await fails(putManifest(fixture, REPOSITORY, two, { tags: ["v1"], ifMatch: digestOf(two) }), "PRECONDITION_FAILED");
  await putManifest(fixture, REPOSITORY, two, { tags: ["v1"], ifMatch: digestOf(one) });
  assert.equal(await tagDigest(fixture, "v1"), digestOf(two));
});

test("of twenty conditional moves of one tag exactly one succeeds", async (t) => {
  const fixture = await catalogFixture(t);
  const base = indexManifest([]);
  await putManifest(fixture, REPOSITORY, base, ["v1"]);
  const moves = await Promise.allSettled(
    Array.from({ length: 20 }, (_, index) =>
      putManifest(fixture, REPOSITORY, indexManifest([], { annotations: { n: String(index) } }), { tags: ["v1"], ifMatch: digestOf(base) }),
    ),
  );
  assert.equal(moves.filter((move) => move.status === "fulfilled").length, 1);
  assert.ok(moves.every((move) => move.status === "fulfilled" || isSlipwayError(move.reason, "PRECONDITION_FAILED")));
});

test("twenty pushes of one manifest and tag into a new repository all succeed", async (t) => {
  const fixture = await catalogFixture(t);
  const bytes = indexManifest([]);
  const writers = [newWriter(fixture.context), newWriter(fixture.context)];
  await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      putManifest(fixture, "team/fresh", bytes, { tags: ["v1"], writer: writers[index % 2] ?? fixture.writer }),
    ),
  );
  const counts = await fixture.database.query(
    "SELECT repo_count, artifact_count FROM projects p JOIN repositories r ON r.project_id = p.id",
  );
  assert.deepEqual(counts.rows, [{ repo_count: 1, artifact_count: 1 }]);
  assert.equal((await outbox(fixture, "event")).length, 2);
});

test("pushes and deletes of the same tag and manifest never deadlock and end in a sane state", async (t) => {
  const fixture = await catalogFixture(t);
  const manifests = [indexManifest([]), indexManifest([], { annotations: { n: "2" } })];
  const work = Array.from({ length: 40 }, (_, index) => {
    const bytes = manifests[index % 2] ?? Buffer.alloc(0);
    if (index % 4 < 2) return putManifest(fixture, REPOSITORY, bytes, ["a", "b", "c"]);
    if (index % 8 < 4) return fixture.writer.deleteManifest(REPOSITORY, digestOf(bytes), { principal: PRINCIPAL });
    return fixture.writer.deleteTag(REPOSITORY, "b", { principal: PRINCIPAL });
  });
  await Promise.all(work);
  await putManifest(fixture, REPOSITORY, manifests[0] ?? Buffer.alloc(0), ["a"]);
  const counts = await fixture.database.query<{ real: number; counted: number }>(
    "SELECT (SELECT count(*) FROM manifests) AS real, artifact_count AS counted FROM repositories",
  );
  assert.equal(counts.rows[0]?.real, counts.rows[0]?.counted);
});

test("deleting a manifest takes its tags along and leaves the children of an index", async (t) => {
  const fixture = await catalogFixture(t);
  const image = await pushImage(fixture, REPOSITORY, { tags: ["child"] });
  const index = indexManifest([{ digest: image.digest, size: image.bytes.length }]);
  const { digest } = await putManifest(fixture, REPOSITORY, index, ["a", "b"]);
  assert.equal(await fixture.writer.deleteManifest(REPOSITORY, digest, { principal: PRINCIPAL }), true);
  assert.equal(await fixture.writer.deleteManifest(REPOSITORY, digest, { principal: PRINCIPAL }), false);
  assert.equal(await tagDigest(fixture, "a"), null);
  assert.equal(await tagDigest(fixture, "child"), image.digest);
  const removed = (await outbox<LinkRecord>(fixture, "link-record")).filter((record) => record.op === "remove");
  assert.deepEqual(
    removed.map((record) => record.tag ?? record.target),
    ["a", "b", "manifest"],
  );
});

test("deleting a tag leaves the manifest and may be conditional", async (t) => {
  const fixture = await catalogFixture(t);
  const image = await pushImage(fixture, REPOSITORY, { tags: ["v1"] });
  await fails(
    fixture.writer.deleteTag(REPOSITORY, "v1", { principal: PRINCIPAL, ifMatch: digestOf(Buffer.from("x")) }),
    "PRECONDITION_FAILED",
  );
  assert.equal(await fixture.writer.deleteTag(REPOSITORY, "v1", { principal: PRINCIPAL, ifMatch: image.digest }), true);
  assert.equal(await fixture.writer.deleteTag(REPOSITORY, "v1", { principal: PRINCIPAL }), false);
  assert.equal(await fixture.writer.deleteTag("team/none", "v1", { principal: PRINCIPAL }), false);
  assert.ok(await new ManifestStore(fixture.database).find(REPOSITORY, image.digest));
});

test("deleting a blob removes the link of this repository only", async (t) => {
  const fixture = await catalogFixture(t);
  const bytes = randomBytes(50);
  const digest = await pushBlob(fixture, REPOSITORY, bytes);
  await pushBlob(fixture, "team/other", bytes);
  assert.equal(await fixture.writer.deleteBlob(REPOSITORY, digest), true);
  assert.equal(await fixture.writer.deleteBlob(REPOSITORY, digest), false);
  const links = await fixture.database.query<{ name: string }>(
    "SELECT r.name FROM blob_links l JOIN repositories r ON r.id = l.repository_id",
  );
  assert.deepEqual(links.rows, [{ name: "team/other" }]);
});

test("a mount needs a source that the caller may read and that holds the blob", async (t) => {
  const fixture = await catalogFixture(t);
  const digest = await pushBlob(fixture, "team/source", randomBytes(50));
  const mount = (from: string | null, readable: boolean, repository = REPOSITORY) =>
    fixture.writer.mountBlob({
      repository,
      project: fixture.project,
      digest,
      from,
      mayRead: () => Promise.resolve(readable),
      principal: PRINCIPAL,
    });
  assert.equal(await mount("team/source", false), null);
  assert.equal(await mount("team/empty", true), null);
  assert.equal(await mount("../BAD", true), null);
  assert.equal(await mount(null, false), null);
  assert.equal((await fixture.database.query("SELECT 1 FROM repositories WHERE name = $1", [REPOSITORY])).rows.length, 0);
  assert.equal((await mount("team/source", true))?.size, 50);
  assert.equal((await mount(null, true, "team/third"))?.size, 50);
  // What is linked here already needs no other right.
  assert.equal((await mount(null, false))?.size, 50);
});

test("deleting a repository leaves the counts and other repositories right", async (t) => {
  const fixture = await catalogFixture(t);
  await pushImage(fixture, REPOSITORY, { tags: ["v1"] });
  await pushImage(fixture, "team/other", { tags: ["v1"] });
  assert.equal(await fixture.writer.deleteRepository(REPOSITORY, { principal: PRINCIPAL }), true);
  assert.equal(await fixture.writer.deleteRepository(REPOSITORY, { principal: PRINCIPAL }), false);
  const project = await fixture.database.query<{ repo_count: number }>("SELECT repo_count FROM projects");
  assert.equal(project.rows[0]?.repo_count, 1);
  await pushImage(fixture, REPOSITORY, { tags: ["v1"] });
});
