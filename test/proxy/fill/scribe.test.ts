/** The thread that writes and hashes: in order, whole, and with its failures told. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { isSlipwayError } from "../../../src/core/errors.ts";
import { Scribe, Scribes } from "../../../src/proxy/fill/scribe.ts";
import type { Piece } from "../../../src/proxy/fill/scribe.ts";
import { tempDir } from "../../support/temp.ts";

const content = randomBytes(5_000_000);
const write = (scribe: Scribe, fd: number, piece: Piece): Promise<void> =>
  new Promise((resolve, reject) => scribe.write(fd, piece, (error) => (error ? reject(error) : resolve())));
const hexOf = (algorithm: string, bytes: Uint8Array): string => createHash(algorithm).update(bytes).digest("hex");

test("pieces in shared memory are written where they belong and hashed in the order they came", async (t) => {
  const scribe = new Scribe();
  t.after(() => scribe.close());
  const path = join(await tempDir(t), "file");
  const file = await open(path, "w+");
  t.after(() => file.close());
  const shared = Buffer.from(new SharedArrayBuffer(content.length));
  content.copy(shared);
  const hashes = [scribe.beginHash("sha256"), scribe.beginHash("sha512")] as const;
  const writes: Promise<void>[] = [];
  for (let position = 0, turn = 0; position < content.length; position += 300_000, turn += 1) {
    const bytes = shared.subarray(position, position + 300_000);
    writes.push(write(scribe, file.fd, { position, bytes, hash: hashes[turn % 2] ?? null }));
  }
  const [even, odd] = await Promise.all(hashes.map((hash) => scribe.digest(hash)));
  await Promise.all(writes);
  assert.ok((await readFile(path)).equals(content));
  const parts = Array.from({ length: Math.ceil(content.length / 300_000) }, (_, index) =>
    content.subarray(index * 300_000, (index + 1) * 300_000),
  );
  assert.equal(even, hexOf("sha256", Buffer.concat(parts.filter((_, index) => index % 2 === 0))));
  assert.equal(odd, hexOf("sha512", Buffer.concat(parts.filter((_, index) => index % 2 === 1))));
  assert.equal(scribe.pendingBytes, 0);
});

test("a part of a file is hashed as far as there is one, and a forgotten hash begins anew", async (t) => {
  const scribe = new Scribe();
  t.after(() => scribe.close());
  const file = await open(join(await tempDir(t), "file"), "w+");
  t.after(() => file.close());
  await file.write(content);
  const hash = scribe.beginHash("sha256");
  assert.equal(await scribe.hashFile(file.fd, { position: 1_000_000, length: 3_000_000 }, hash), 3_000_000);
  assert.equal(await scribe.digest(hash), hexOf("sha256", content.subarray(1_000_000, 4_000_000)));
  assert.equal(await scribe.hashFile(file.fd, { position: 4_000_000, length: 3_000_000 }, hash), 1_000_000);
  assert.equal(await scribe.digest(hash), hexOf("sha256", content.subarray(1_000_000)));
  scribe.forget(hash);
  assert.equal(await scribe.digest(hash), hexOf("sha256", Buffer.alloc(0)));
});

test("a write that fails is told with its code, and those beside it are done", async (t) => {
  const scribe = new Scribe();
  t.after(() => scribe.close());
  const folder = await tempDir(t);
  const file = await open(join(folder, "file"), "w+");
  const readOnly = await open(join(folder, "file"), "r");
  t.after(() => Promise.all([file.close(), readOnly.close()]));
  const bytes = Buffer.from("abc");
  const [bad, good] = await Promise.allSettled([
    write(scribe, readOnly.fd, { position: 0, bytes, hash: null }),
    write(scribe, file.fd, { position: 0, bytes, hash: null }),
  ]);
  assert.equal(bad.status === "rejected" && (bad.reason as NodeJS.ErrnoException).code, "EBADF");
  assert.equal(good.status, "fulfilled");
});

test("a thread that ended takes no orders, fails those it had, and is replaced for the next fill", async () => {
  const scribes = new Scribes(1);
  const first = scribes.pick();
  assert.equal(scribes.pick(), first);
  const hash = first.beginHash("sha256");
  const under = first.digest(hash);
  await first.close();
  await assert.rejects(under, (error) => isSlipwayError(error, "DRAINING"));
  await assert.rejects(first.digest(hash), (error) => isSlipwayError(error, "DRAINING"));
  const second = scribes.pick();
  assert.notEqual(second, first);
  assert.equal(await second.digest(second.beginHash("sha256")), hexOf("sha256", Buffer.alloc(0)));
  await scribes.close();
});

test("a busy thread gets company, up to the limit", async (t) => {
  const scribes = new Scribes(2);
  t.after(() => scribes.close());
  const file = await open(join(await tempDir(t), "file"), "w+");
  t.after(() => file.close());
  const first = scribes.pick();
  const writes = [write(first, file.fd, { position: 0, bytes: content, hash: null })];
  const second = scribes.pick();
  assert.notEqual(second, first);
  writes.push(write(second, file.fd, { position: 0, bytes: Buffer.concat([content, content]), hash: null }));
  assert.equal(scribes.pick(), first, "no third one, but the calmer of the two");
  await Promise.all(writes);
});
