/** The local disk against the demands on all drivers, and what only a disk can do: be full, keep what a dying process staged. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, readdir, rename, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { openBlobStore } from "../../src/storage/open-store.ts";
import { chunksOf, digestOf, hasCode } from "../support/store-checks.ts";
import { storeConformance, type StoreFixture } from "../support/store-conformance.ts";
import { storeCrashes } from "../support/store-crashes.ts";
import { startStoreProcess, storeCommand } from "../support/store-process.ts";
import { tempDir } from "../support/temp.ts";

const fixture: StoreFixture = {
  name: "fs",
  skip: false,
  storage: async (t) => ({ driver: "fs", root: join(await tempDir(t), "storage") }),
};

storeConformance(fixture);
storeCrashes(fixture, { mayLose: 2 * 1024 * 1024, growthMb: { one: 40, parallel: 60 } });

const MOUNT = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"'];

async function missingMounts(): Promise<string | false> {
  try {
    await promisify(execFile)("unshare", ["-m", "sh", "-c", "mount -t tmpfs -o size=4m tmpfs /mnt"]);
    return false;
  } catch {
    const reason = "NO MOUNTS HERE: a small file system cannot be mounted (not root?); the test of a full disk did not run";
    console.error(reason);
    return reason;
  }
}

test(
  "fs: a full disk is STORAGE_FULL, loses nothing earlier, and works again once there is space",
  { skip: await missingMounts() },
  async (t) => {
    const root = await tempDir(t);
    const child = startStoreProcess(t, [...MOUNT, root, ...storeCommand({ driver: "fs", root: join(root, "storage") }, ["fill"])]);
    const report = await child.next();
    assert.equal(report["appendCode"], "STORAGE_FULL");
    assert.equal(report["putCode"], "STORAGE_FULL");
    assert.equal(report["keptIsWhole"], true);
    assert.ok(Number(report["size"]) > 3_000_000, "what fitted is kept");
    assert.equal(report["offsetAfter"], 16 * 64 * 1024);
    assert.deepEqual(report["listed"], [report["digest"]]);
  },
);

test("fs: content lies in shards, and nothing staged stays behind", async (t) => {
  const root = await tempDir(t);
  const store = await openBlobStore({ driver: "fs", root });
  const bytes = randomBytes(1000);
  const digest = digestOf(bytes);
  const hex = digest.slice("sha256:".length);
  await store.put(digest, bytes);
  assert.equal(store.filePath(digest), join(root, "blobs", "sha256", hex.slice(0, 2), hex));
  const id = randomUUID();
  await store.createSession(id);
  await store.append(id, chunksOf(bytes), { offset: 0 });
  await store.commitSession(id, { digest, size: bytes.length });
  assert.deepEqual(await readdir(join(root, "tmp")), []);
  assert.deepEqual(await readdir(join(root, "sessions")), []);
  const space = await store.space();
  assert.ok(space && space.freeBytes > 0 && space.freeBytes < space.totalBytes);
});

test("fs: opening removes what was staged long ago and keeps what is fresh", async (t) => {
  const root = await tempDir(t);
  await mkdir(join(root, "tmp"), { recursive: true });
  await writeFile(join(root, "tmp", "old"), "x");
  await writeFile(join(root, "tmp", "fresh"), "x");
  const longAgo = new Date(Date.now() - 48 * 3_600_000);
  await utimes(join(root, "tmp", "old"), longAgo, longAgo);
  await openBlobStore({ driver: "fs", root });
  assert.deepEqual(await readdir(join(root, "tmp")), ["fresh"]);
});

test("fs: a process that died between the rename and the end of its commit leaves a session that is listed", async (t) => {
  const root = await tempDir(t);
  const store = await openBlobStore({ driver: "fs", root });
  const bytes = randomBytes(10);
  await store.put(digestOf(bytes), bytes);
  await mkdir(join(root, "sessions", "half-done"));
  assert.equal(await store.sessionSize("half-done"), null);
  await store.commitSession("half-done", { digest: digestOf(bytes), size: 10 });
  assert.deepEqual(await store.listSessions(Date.now() + 60_000, 10), ["half-done"]);
  await store.abortSession("half-done");
  assert.deepEqual(await store.listSessions(Date.now() + 60_000, 10), []);
});

test("fs: a root that is no folder is STORAGE_UNAVAILABLE at start, a vanished one at the check", async (t) => {
  const folder = await tempDir(t);
  await writeFile(join(folder, "file"), "x");
  await assert.rejects(openBlobStore({ driver: "fs", root: join(folder, "file") }), hasCode("STORAGE_UNAVAILABLE"));
  const store = await openBlobStore({ driver: "fs", root: join(folder, "storage") });
  await store.check();
  await rename(join(folder, "storage"), join(folder, "elsewhere"));
  await assert.rejects(store.check(), hasCode("STORAGE_UNAVAILABLE"));
  await assert.rejects(store.createSession(randomUUID()), hasCode("STORAGE_UNAVAILABLE"));
});
