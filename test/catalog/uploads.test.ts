// Uploads in every style, over several processes, and with everything that can go wrong on the way.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { type TestContext, test } from "node:test";
import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { type ErrorCode, SlipwayError, isSlipwayError } from "../../src/core/errors.ts";
import type { CatalogWriter } from "../../src/catalog/writer.ts";
import { PRINCIPAL, type Fixture, body, catalogFixture, cutBody, digestOf, newWriter, pushBlob } from "./support.ts";

const REPOSITORY = "team/app";
const A = randomBytes(10_000);
const B = randomBytes(5_000);
const WHOLE = Buffer.concat([A, B]);

function append(writer: CatalogWriter, id: string, options: { source: Readable; start?: number; length?: number; repository?: string }) {
  return writer.appendUpload({
    id,
    repository: options.repository ?? REPOSITORY,
    source: options.source,
    start: options.start ?? null,
    length: options.length ?? null,
    principal: PRINCIPAL,
  });
}

function finish(
  fixture: Fixture,
  id: string,
  digest: string,
  options: { source?: Readable; start?: number; length?: number; writer?: CatalogWriter } = {},
) {
  return (options.writer ?? fixture.writer).finishUpload({
    id,
    repository: REPOSITORY,
    project: fixture.project,
    digest,
    source: options.source ?? body(),
    start: options.start ?? null,
    length: options.length ?? null,
    principal: PRINCIPAL,
  });
}

async function start(writer: CatalogWriter, algorithm: string | null = null): Promise<string> {
  return (await writer.startUpload({ repository: REPOSITORY, principal: PRINCIPAL, algorithm })).id;
}

function fails(work: Promise<unknown>, ...codes: ErrorCode[]): Promise<void> {
  return assert.rejects(work, (error) => isSlipwayError(error, ...codes));
}

async function stored(fixture: Fixture, digest: string): Promise<Buffer> {
  return fixture.store.readAll(digest, 1_000_000);
}

async function leftovers(fixture: Fixture): Promise<{ rows: number; sessions: number }> {
  const rows = await fixture.database.query<{ n: number }>("SELECT count(*) AS n FROM uploads");
  return { rows: rows.rows[0]?.n ?? -1, sessions: (await fixture.store.listSessions(Date.now() + 60_000, 100)).length };
}

test("a blob in one request is stored and linked, and nothing of the upload is left", async (t) => {
  const fixture = await catalogFixture(t);
  const digest = await pushBlob(fixture, REPOSITORY, WHOLE);
  assert.deepEqual(await stored(fixture, digest), WHOLE);
  assert.deepEqual(await leftovers(fixture), { rows: 0, sessions: 0 });
  assert.ok(fixture.published.includes("blobs:team/app"));
});

test("chunks are checked against where the upload stands", async (t) => {
  const fixture = await catalogFixture(t);
  const id = await start(fixture.writer);
  assert.equal((await append(fixture.writer, id, { source: body(A), start: 0, length: A.length })).offset, A.length);
  await fails(append(fixture.writer, id, { source: body(B), start: 3, length: B.length }), "RANGE_INVALID");
  assert.equal((await fixture.writer.findUpload(id, REPOSITORY))?.offset, A.length);
  const done = await finish(fixture, id, digestOf(WHOLE), { source: body(B), start: A.length, length: B.length });
  assert.equal(done.size, WHOLE.length);
  assert.equal(fixture.writer.stats().rehashedBytes, 0);
});

test("an upload begun by one process is continued by another and finished by a third", async (t) => {
  const fixture = await catalogFixture(t);
  const [one, two, three] = [newWriter(fixture.context), newWriter(fixture.context), newWriter(fixture.context)];
  const id = await start(one);
  await append(one, id, { source: body(A) });
  await append(two, id, { source: body(B), start: A.length, length: B.length });
  await finish(fixture, id, digestOf(WHOLE), { writer: three });
  assert.deepEqual(await stored(fixture, digestOf(WHOLE)), WHOLE);
  assert.equal(three.stats().rehashedBytes, WHOLE.length);
});

test("a hash that missed another process's bytes is not trusted", async (t) => {
  const fixture = await catalogFixture(t);
  const [one, two] = [newWriter(fixture.context), newWriter(fixture.context)];
  const id = await start(one);
  await append(one, id, { source: body(A) });
  await append(two, id, { source: body(B) });
  await append(one, id, { source: body(A) });
  await finish(fixture, id, digestOf(Buffer.concat([A, B, A])), { writer: one });
});

test("sha512 is served, announced or not", async (t) => {
  const fixture = await catalogFixture(t);
  const digest = digestOf(WHOLE, "sha512");
  const announced = await start(fixture.writer, "sha512");
  await append(fixture.writer, announced, { source: body(WHOLE) });
  await finish(fixture, announced, digest);
  assert.equal(fixture.writer.stats().rehashedBytes, 0);
  const silent = await start(fixture.writer);
  await append(fixture.writer, silent, { source: body(B) });
  await finish(fixture, silent, digestOf(B, "sha512"));
  assert.equal(fixture.writer.stats().rehashedBytes, B.length);
  assert.deepEqual(await stored(fixture, digest), WHOLE);
  await fails(fixture.writer.startUpload({ repository: REPOSITORY, principal: PRINCIPAL, algorithm: "md5" }), "DIGEST_INVALID");
});

test("the empty blob goes all the way", async (t) => {
  const fixture = await catalogFixture(t);
  const id = await start(fixture.writer);
  const done = await finish(fixture, id, digestOf(Buffer.alloc(0)), { length: 0 });
  assert.equal(done.size, 0);
});

test("content of another digest is refused and the session removed", async (t) => {
  const fixture = await catalogFixture(t);
  const id = await start(fixture.writer);
  await append(fixture.writer, id, { source: body(A) });
  await fails(finish(fixture, id, digestOf(B)), "DIGEST_INVALID");
  assert.equal(await fixture.writer.findUpload(id, REPOSITORY), null);
  await fails(finish(fixture, id, digestOf(A)), "BLOB_UPLOAD_UNKNOWN");
  await fails(finish(fixture, id, "sha256:baddigeststring"), "DIGEST_INVALID");
  assert.deepEqual(await leftovers(fixture), { rows: 0, sessions: 0 });
});

test("a cut body keeps what came and the upload goes on from there", async (t) => {
  const fixture = await catalogFixture(t);
  const id = await start(fixture.writer);
  await fails(append(fixture.writer, id, { source: cutBody(A), start: 0, length: WHOLE.length }), "SIZE_INVALID");
  assert.equal((await fixture.writer.findUpload(id, REPOSITORY))?.offset, A.length);
  await fails(
    finish(fixture, id, digestOf(WHOLE), { source: body(B.subarray(0, 100)), start: A.length, length: B.length }),
    "SIZE_INVALID",
  );
  assert.equal((await fixture.writer.findUpload(id, REPOSITORY))?.offset, A.length + 100);
  await finish(fixture, id, digestOf(WHOLE), { source: body(B.subarray(100)) });
  assert.deepEqual(await stored(fixture, digestOf(WHOLE)), WHOLE);
});

test("a body longer than declared is cut off and refused", async (t) => {
  const fixture = await catalogFixture(t);
  const id = await start(fixture.writer);
  await fails(append(fixture.writer, id, { source: body(A, B), start: 0, length: A.length + 10 }), "SIZE_INVALID");
  assert.equal((await fixture.writer.findUpload(id, REPOSITORY))?.offset, A.length + 10);
});

test("a blob above the limit is refused", async (t) => {
  const fixture = await catalogFixture(t, { limits: { blobBytes: 12_000 } });
  await fails(pushBlob(fixture, REPOSITORY, WHOLE), "PAYLOAD_TOO_LARGE");
  await pushBlob(fixture, REPOSITORY, A);
  assert.deepEqual(await leftovers(fixture), { rows: 0, sessions: 0 });
});

test("an upload belongs to its repository and ends with cancel", async (t) => {
  const fixture = await catalogFixture(t);
  const id = await start(fixture.writer);
  await fails(append(fixture.writer, id, { source: body(A), repository: "team/other" }), "BLOB_UPLOAD_UNKNOWN");
  assert.equal(await fixture.writer.findUpload(id, "team/other"), null);
  assert.equal(await fixture.writer.cancelUpload(id, "team/other"), false);
  assert.equal(await fixture.writer.cancelUpload(id, REPOSITORY), true);
  assert.equal(await fixture.writer.cancelUpload(id, REPOSITORY), false);
  await fails(append(fixture.writer, id, { source: body(A) }), "BLOB_UPLOAD_UNKNOWN");
});

/** A body that gives its first chunk at once and the rest when told. */
function slowBody(first: Uint8Array, rest: Uint8Array): { source: Readable; release: () => void } {
  const gate = Promise.withResolvers<void>();
  async function* chunks(): AsyncGenerator<Uint8Array> {
    yield first;
    await gate.promise;
    yield rest;
  }
  return { source: Readable.from(chunks()), release: () => gate.resolve() };
}

async function beginSlow(
  t: TestContext,
  limits = {},
): Promise<{ fixture: Fixture; id: string; release: () => void; running: Promise<unknown> }> {
  const fixture = await catalogFixture(t, { limits: { uploadWaitMs: 300, ...limits } });
  const id = await start(fixture.writer);
  const slow = slowBody(A, B);
  const running = append(fixture.writer, id, { source: slow.source });
  running.catch(() => undefined);
  await delay(50);
  return { fixture, id, release: slow.release, running };
}

test("two requests never write to one upload at once, also from two processes", async (t) => {
  const { fixture, id, release, running } = await beginSlow(t);
  for (const writer of [fixture.writer, newWriter(fixture.context)])
    await fails(append(writer, id, { source: body(A), start: 0, length: A.length }), "CONFLICT");
  release();
  await running;
  await finish(fixture, id, digestOf(WHOLE));
});

test("a lease is renewed while the body is slow", async (t) => {
  const { fixture, id, release, running } = await beginSlow(t, { uploadLeaseMs: 300 });
  await delay(900);
  await fails(append(newWriter(fixture.context), id, { source: body(A) }), "CONFLICT");
  release();
  await running;
});

test("cancel during an append ends it and leaves nothing", async (t) => {
  const { fixture, id, release, running } = await beginSlow(t);
  assert.equal(await fixture.writer.cancelUpload(id, REPOSITORY), true);
  release();
  await fails(running, "BLOB_UPLOAD_UNKNOWN");
  assert.deepEqual(await leftovers(fixture), { rows: 0, sessions: 0 });
});

test("what a killed process had received is not lost", async (t) => {
  const fixture = await catalogFixture(t, { limits: { uploadWaitMs: 3_000 } });
  const id = await start(fixture.writer);
  // As a kill -9 leaves it: the lease taken, bytes in storage, the row not told.
  await fixture.database.query(
    "UPDATE uploads SET version = version + 1, locked_until = now() + interval '500 milliseconds' WHERE id = $1",
    [id],
  );
  await fixture.store.append(id, body(A), { offset: 0 });
  await finish(fixture, id, digestOf(WHOLE), { source: body(B), start: A.length, length: B.length });
  assert.deepEqual(await stored(fixture, digestOf(WHOLE)), WHOLE);
});

test("storage that is full answers so, and the upload goes on when there is space", async (t) => {
  let full = true;
  const fixture = await catalogFixture(t, {
    wrapStore: (store) =>
      new Proxy(store, {
        get(target, key) {
          if (key === "append" && full) return () => Promise.reject(new SlipwayError("STORAGE_FULL"));
          const value: unknown = Reflect.get(target, key, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      }),
  });
  const id = await start(fixture.writer);
  await fails(append(fixture.writer, id, { source: body(A) }), "STORAGE_FULL");
  full = false;
  await append(fixture.writer, id, { source: body(WHOLE) });
  await finish(fixture, id, digestOf(WHOLE));
});

test("a digest that is stored already drops its session and links", async (t) => {
  const fixture = await catalogFixture(t);
  const digest = await pushBlob(fixture, REPOSITORY, WHOLE);
  await pushBlob(fixture, "team/second", WHOLE);
  assert.equal(fixture.writer.stats().deduplicatedBlobs, 1);
  assert.deepEqual(await leftovers(fixture), { rows: 0, sessions: 0 });
  const links = await fixture.database.query<{ n: number }>("SELECT count(*) AS n FROM blob_links WHERE digest = $1", [digest]);
  assert.equal(links.rows[0]?.n, 2);
});

test("a push heals a blob whose bytes were lost", async (t) => {
  const fixture = await catalogFixture(t);
  const digest = await pushBlob(fixture, REPOSITORY, WHOLE);
  await fixture.store.remove(digest);
  await pushBlob(fixture, REPOSITORY, WHOLE);
  assert.deepEqual(await stored(fixture, digest), WHOLE);
});

test("twenty pushes of one new digest into one new repository all succeed", async (t) => {
  const fixture = await catalogFixture(t);
  const writers = [newWriter(fixture.context), newWriter(fixture.context)];
  await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      (writers[index % 2] ?? fixture.writer).uploadBlob({
        repository: "team/fresh",
        project: fixture.project,
        digest: digestOf(WHOLE),
        source: body(WHOLE),
        length: WHOLE.length,
        principal: PRINCIPAL,
      }),
    ),
  );
  assert.deepEqual(await stored(fixture, digestOf(WHOLE)), WHOLE);
  const project = await fixture.database.query<{ repo_count: number }>("SELECT repo_count FROM projects WHERE name = 'team'");
  assert.equal(project.rows[0]?.repo_count, 1);
  const records = await fixture.database.query<{ n: number }>("SELECT count(*) AS n FROM outbox WHERE kind = 'link-record'");
  assert.equal(records.rows[0]?.n, 1);
  assert.deepEqual(await leftovers(fixture), { rows: 0, sessions: 0 });
});
