/** What every blob store must do. Each driver's test file runs these against storage of its own. */
import { assertSameBytes } from "./bytes.ts";
import assert from "node:assert/strict";
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { access, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { isSlipwayError } from "../../src/core/errors.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import { openBlobStore } from "../../src/storage/open-store.ts";
import type { StorageConfig } from "../../src/storage/storage-config.ts";
import { type Check, chunksOf, collect, digestOf, hasCode, MIB, openSessions } from "./store-checks.ts";
import { raceTests } from "./store-races.ts";
import { tempDir } from "./temp.ts";

export interface StoreFixture {
  readonly name: string;
  readonly skip: string | false;
  /** Where empty storage is; it may be opened several times, as by several processes. */
  readonly storage: (t: TestContext) => Promise<StorageConfig>;
}

export function storeConformance(fixture: StoreFixture): void {
  const check = (title: string, run: (store: BlobStore, open: () => Promise<BlobStore>, folder: string) => Promise<void>): void => {
    test(`${fixture.name}: ${title}`, { skip: fixture.skip, timeout: 60_000 }, async (t) => {
      const config = await fixture.storage(t);
      const open = async (): Promise<BlobStore> => {
        const store = await openBlobStore(config);
        t.after(() => store.close());
        return store;
      };
      await run(await open(), open, await tempDir(t));
    });
  };
  blobTests(check);
  sessionTests(check);
  adoptTests(check);
  raceTests(check);
  objectTests(check);
}

function blobTests(check: Check): void {
  check("put makes sha256 and sha512 blobs readable, whole and in ranges", async (store) => {
    for (const algorithm of ["sha256", "sha512"] as const) {
      const bytes = randomBytes(300_000);
      const digest = digestOf(bytes, algorithm);
      assert.equal(await store.stat(digest), null);
      await store.put(digest, bytes);
      assert.deepEqual(await store.stat(digest), { size: bytes.length });
      assertSameBytes(await collect(await store.read(digest)), bytes);
      assertSameBytes(await store.readAll(digest, bytes.length), bytes);
      for (const [start, end] of [
        [0, 0],
        [0, 299_999],
        [1000, 270_000],
        [299_999, 299_999],
        [299_000, 900_000],
      ] as const) {
        assertSameBytes(await collect(await store.read(digest, { start, end })), bytes.subarray(start, end + 1), `${start}-${end}`);
      }
      for (const range of [
        { start: 300_000, end: 300_001 },
        { start: 5, end: 4 },
        { start: -1, end: 4 },
      ]) {
        await assert.rejects(store.read(digest, range), hasCode("RANGE_INVALID"));
      }
    }
  });

  check("absent blobs are unknown to reads and no error to remove", async (store) => {
    const digest = digestOf(randomBytes(8));
    await assert.rejects(store.read(digest), hasCode("BLOB_UNKNOWN"));
    await assert.rejects(store.readAll(digest, 10), hasCode("BLOB_UNKNOWN"));
    await store.remove(digest);
  });

  check("removed blobs are gone; put again brings them back; put twice is harmless", async (store) => {
    const bytes = randomBytes(1000);
    const digest = digestOf(bytes);
    await store.put(digest, bytes);
    await store.put(digest, bytes);
    await store.remove(digest);
    assert.equal(await store.stat(digest), null);
    await store.put(digest, bytes);
    assertSameBytes(await store.readAll(digest, 1000), bytes);
  });

  check("readAll refuses what is larger than the reader allows", async (store) => {
    const bytes = randomBytes(1000);
    await store.put(digestOf(bytes), bytes);
    await assert.rejects(store.readAll(digestOf(bytes), 999), hasCode("PAYLOAD_TOO_LARGE"));
  });

  check("malformed digests never become paths", async (store) => {
    for (const digest of [
      "sha256:../../etc/passwd",
      "sha256:abc",
      "md5:d41d8cd98f00b204e9800998ecf8427e",
      `sha256:${"A".repeat(64)}`,
      "",
    ]) {
      await assert.rejects(async () => await store.put(digest, Buffer.of(1)), hasCode("DIGEST_INVALID"), digest);
      await assert.rejects(async () => await store.read(digest), hasCode("DIGEST_INVALID"), digest);
    }
  });

  check("list pages through every digest exactly once", async (store) => {
    const digests = new Set<string>();
    for (let index = 0; index < 25; index += 1) {
      const bytes = Buffer.from(`blob ${index}`);
      const digest = digestOf(bytes, index % 5 === 0 ? "sha512" : "sha256");
      digests.add(digest);
      await store.put(digest, bytes);
    }
    const listed: string[] = [];
    for (let after: string | null = null; ; after = listed.at(-1) ?? null) {
      const page: string[] = await store.list(after, 7);
      listed.push(...page);
      if (page.length < 7) break;
    }
    assert.equal(listed.length, 25);
    assert.deepEqual(new Set(listed), digests);
  });

  check("an aborted read ends with an error, a destroyed one quietly", async (store) => {
    const bytes = randomBytes(4 * MIB);
    await store.put(digestOf(bytes), bytes);
    const controller = new AbortController();
    const stream = await store.read(digestOf(bytes), undefined, controller.signal);
    setTimeout(() => controller.abort(), 5);
    await assert.rejects(async () => {
      for await (const _chunk of stream) await new Promise((resolve) => setTimeout(resolve, 5));
    });
    const other = await store.read(digestOf(bytes));
    for await (const _chunk of other) break;
    assert.ok(other.destroyed);
  });

  check("a read under a signal that is aborted already fails its reader, and nobody else", async (store) => {
    const bytes = randomBytes(1000);
    await store.put(digestOf(bytes), bytes);
    const read = store.read(digestOf(bytes), undefined, AbortSignal.abort(new Error("gone")));
    const stream = await read.catch(() => null);
    // An error event without a listener would end this process here.
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (stream) {
      await assert.rejects(async () => {
        for await (const _chunk of stream) assert.fail("no byte comes");
      });
    }
  });

  check("the store says that it works", async (store) => {
    await store.check();
  });
}

function sessionTests(check: Check): void {
  check("an upload in one append becomes a blob, and the session is gone", async (store) => {
    for (const size of [0, 1, 70_000, 12 * MIB + 17]) {
      const bytes = randomBytes(size);
      const digest = digestOf(bytes);
      const id = randomUUID();
      const hash = createHash("sha256");
      await store.createSession(id);
      assert.equal(await store.sessionSize(id), 0);
      const result = await store.append(id, chunksOf(bytes), { offset: 0, onChunk: (chunk) => void hash.update(chunk) });
      assert.deepEqual(result, { offset: size, sourceError: undefined });
      assert.equal(`sha256:${hash.digest("hex")}`, digest);
      assert.equal(await store.stat(digest), null, "nothing is visible before the commit");
      assertSameBytes(await collect(await store.readSession(id)), bytes);
      await store.commitSession(id, { digest, size });
      assertSameBytes(await collect(await store.read(digest)), bytes);
      assert.equal(await store.sessionSize(id), null);
      await store.commitSession(id, { digest, size });
    }
    assert.deepEqual(await openSessions(store), []);
  });

  check("chunks of any size, from several processes, add up", async (store, open) => {
    const other = await open();
    const id = randomUUID();
    await store.createSession(id);
    const pieces = [3, 6 * MIB, 100, 200, 0, 5 * MIB, 11 * MIB + 5, 1].map((size) => randomBytes(size));
    let offset = 0;
    for (const [index, piece] of pieces.entries()) {
      const writer = index % 2 === 0 ? store : other;
      const result = await writer.append(id, chunksOf(piece), { offset });
      offset += piece.length;
      assert.equal(result.offset, offset);
      assert.equal(await (index % 2 === 0 ? other : store).sessionSize(id), offset);
    }
    const whole = Buffer.concat(pieces);
    assertSameBytes(await collect(await other.readSession(id)), whole);
    await other.commitSession(id, { digest: digestOf(whole), size: whole.length });
    assertSameBytes(await store.readAll(digestOf(whole), whole.length), whole);
    assert.deepEqual(await openSessions(store), []);
  });

  check("a source that is cut keeps the bytes before the cut, and the upload goes on from there", async (store) => {
    const bytes = randomBytes(9 * MIB);
    const cut = 6 * MIB + 123;
    const id = randomUUID();
    await store.createSession(id);
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield* chunksOf(bytes.subarray(0, cut));
      throw new Error("connection reset");
    }
    const first = await store.append(id, broken(), { offset: 0 });
    assert.equal(first.offset, cut);
    assert.match(String(first.sourceError), /connection reset/);
    assert.equal(await store.sessionSize(id), cut);
    await store.append(id, chunksOf(bytes.subarray(cut)), { offset: cut });
    await store.commitSession(id, { digest: digestOf(bytes), size: bytes.length });
    assertSameBytes(await store.readAll(digestOf(bytes), bytes.length), bytes);
  });

  check("an abort cuts a source that hangs, and keeps what arrived", async (store) => {
    const id = randomUUID();
    await store.createSession(id);
    async function* hanging(): AsyncGenerator<Uint8Array> {
      yield Buffer.alloc(1000, 1);
      await new Promise(() => undefined);
    }
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    const result = await store.append(id, hanging(), { offset: 0, signal: controller.signal });
    assert.equal(result.offset, 1000);
    assert.ok(isSlipwayError(result.sourceError, "CANCELLED"));
  });

  check("appends at a wrong offset are refused and change nothing", async (store) => {
    const id = randomUUID();
    await store.createSession(id);
    await store.append(id, chunksOf(Buffer.from("hello")), { offset: 0 });
    for (const offset of [0, 4, 6]) await assert.rejects(store.append(id, chunksOf(Buffer.from("x")), { offset }), hasCode("CONFLICT"));
    assert.equal((await collect(await store.readSession(id))).toString(), "hello");
  });

  check("bytes beyond the limit are refused, and those before are kept", async (store) => {
    const id = randomUUID();
    await store.createSession(id);
    await assert.rejects(store.append(id, chunksOf(randomBytes(300), 100), { offset: 0, limit: 250 }), hasCode("PAYLOAD_TOO_LARGE"));
    assert.equal(await store.sessionSize(id), 200);
  });

  check("a hash that throws ends the append with its error", async (store) => {
    const id = randomUUID();
    await store.createSession(id);
    const onChunk = (): void => {
      throw new Error("hash broke");
    };
    await assert.rejects(store.append(id, chunksOf(randomBytes(10)), { offset: 0, onChunk }), /hash broke/);
    assert.equal((await store.append(id, chunksOf(randomBytes(10)), { offset: 0 })).offset, 10);
  });

  check("unknown, aborted and malformed sessions are unknown", async (store) => {
    const id = randomUUID();
    await store.createSession(id);
    await assert.rejects(store.createSession(id), hasCode("CONFLICT"));
    await store.append(id, chunksOf(randomBytes(6 * MIB)), { offset: 0 });
    await store.abortSession(id);
    await store.abortSession(id);
    assert.equal(await store.sessionSize(id), null);
    const digest = digestOf(Buffer.from(id));
    await assert.rejects(store.append(id, chunksOf(Buffer.of(1)), { offset: 0 }), hasCode("BLOB_UPLOAD_UNKNOWN"));
    await assert.rejects(store.readSession(id), hasCode("BLOB_UPLOAD_UNKNOWN"));
    await assert.rejects(store.commitSession(id, { digest, size: 1 }), hasCode("BLOB_UPLOAD_UNKNOWN"));
    await assert.rejects(async () => await store.sessionSize("../blobs"), hasCode("BLOB_UPLOAD_UNKNOWN"));
  });

  check("a commit of another size than the session's is refused", async (store) => {
    const id = randomUUID();
    await store.createSession(id);
    await store.append(id, chunksOf(Buffer.from("abc")), { offset: 0 });
    await assert.rejects(store.commitSession(id, { digest: digestOf(Buffer.from("abcd")), size: 4 }), hasCode("CONFLICT"));
    assert.equal(await store.sessionSize(id), 3);
  });

  check("listSessions names what was not touched since the cut-off", async (store) => {
    const ids = [randomUUID(), randomUUID(), randomUUID()];
    for (const id of ids) await store.createSession(id);
    await store.append(ids[0] ?? "", chunksOf(randomBytes(100)), { offset: 0 });
    assert.deepEqual(new Set(await openSessions(store)), new Set(ids));
    assert.deepEqual(await store.listSessions(Date.now() - 60_000, 100), []);
    assert.equal((await store.listSessions(Date.now() + 60_000, 2)).length, 2);
  });
}

function adoptTests(check: Check): void {
  check("a finished file becomes a blob and is gone; one of another size is refused and stays", async (store, _open, folder) => {
    for (const size of [0, 100, 11 * MIB + 3]) {
      const bytes = randomBytes(size);
      const path = join(folder, "finished");
      await writeFile(path, bytes);
      await assert.rejects(store.adoptFile(path, { digest: digestOf(bytes), size: size + 1 }), hasCode("SIZE_INVALID"));
      await store.adoptFile(path, { digest: digestOf(bytes), size });
      assertSameBytes(await store.readAll(digestOf(bytes), size), bytes);
      await assert.rejects(access(path));
      await writeFile(path, bytes);
      await store.adoptFile(path, { digest: digestOf(bytes), size });
      assertSameBytes(await store.readAll(digestOf(bytes), size), bytes);
      await assert.rejects(access(path));
    }
  });
}

function objectTests(check: Check): void {
  check("objects are written, replaced, read, listed in key order and removed", async (store) => {
    assert.equal(await store.getObject("links/a"), null);
    const keys = ["links/a/1", "links/a-b", "links/a.c/2", "links/b/x/y", "other/z", "links/a/10"];
    for (const key of keys) await store.putObject(key, Buffer.from(`first ${key}`));
    for (const key of keys) await store.putObject(key, Buffer.from(key));
    assert.equal((await store.getObject("links/a/1"))?.toString(), "links/a/1");
    const sorted = keys.filter((key) => key.startsWith("links/")).sort();
    const listed = await store.listObjects("links/", null, 100);
    assert.deepEqual(
      listed.map((entry) => entry.key),
      sorted,
    );
    assert.deepEqual(
      listed.map((entry) => entry.size),
      sorted.map((key) => key.length),
    );
    assert.ok(listed.every((entry) => Math.abs(entry.modifiedAt - Date.now()) < 600_000));
    for (let index = 0; index < sorted.length; index += 1) {
      const page = await store.listObjects("links/", sorted[index] ?? "", 2);
      assert.deepEqual(
        page.map((entry) => entry.key),
        sorted.slice(index + 1, index + 3),
      );
    }
    assert.deepEqual(
      (await store.listObjects("links/a-", null, 10)).map((entry) => entry.key),
      ["links/a-b"],
    );
    assert.deepEqual(await store.listObjects("none/", null, 10), []);
    await store.removeObject("links/a-b");
    await store.removeObject("links/a-b");
    assert.equal(await store.getObject("links/a-b"), null);
  });

  check("object keys that could leave their place are refused", async (store) => {
    for (const key of ["../x", "a/../../x", "/etc/passwd", "a//b", "", "a/", ".hidden", "a\0b", "ü", "x".repeat(800)]) {
      await assert.rejects(store.putObject(key, Buffer.of(1)), hasCode("BAD_REQUEST"), key);
      await assert.rejects(store.getObject(key), hasCode("BAD_REQUEST"), key);
    }
  });
}
