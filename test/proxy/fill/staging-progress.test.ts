/** What other processes and the next owner read of a growing file while it is being written. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { ProgressFile, progressPath, readProgress } from "../../../src/proxy/fill/staging-progress.ts";
import type { StagedProgress } from "../../../src/proxy/fill/staging-progress.ts";
import { tempDir } from "../../support/temp.ts";

const digest = `sha256:${"a".repeat(64)}`;
const progress = (fence: number, ends: readonly number[]): StagedProgress => ({
  size: 1_000_000,
  fence,
  epoch: "0123456789abcdef",
  answered: true,
  verified: false,
  segments: ends.map((end, index) => ({ start: index * 1_000, end: index * 1_000 + end })),
});

test("a record is written in place, and a scattered one that needs more than a page replaces it", async (t) => {
  const folder = await tempDir(t);
  const file = new ProgressFile(folder, digest);
  t.after(() => file.close());
  for (const ends of [[999], [5], Array.from({ length: 400 }, () => 7), [123_456]]) {
    await file.write(progress(1, ends));
    assert.deepEqual(await readProgress(folder, digest), progress(1, ends));
  }
});

test("a record that is cut or mixed of two says nothing", async (t) => {
  const folder = await tempDir(t);
  const file = new ProgressFile(folder, digest);
  await file.write(progress(1, [500]));
  await file.close();
  const path = progressPath(folder, digest);
  const whole = await readFile(path, "utf8");
  await writeFile(path, whole.replace('"end":500', '"end":900'));
  assert.equal(await readProgress(folder, digest), null);
  await writeFile(path, whole.slice(0, 60));
  assert.equal(await readProgress(folder, digest), null);
});

test("what a former owner still writes is not seen once another has begun", async (t) => {
  const folder = await tempDir(t);
  const [former, next] = [new ProgressFile(folder, digest), new ProgressFile(folder, digest)];
  t.after(() => Promise.all([former.close(), next.close()]));
  await former.write(progress(1, [100]));
  await next.write(progress(2, [200]));
  await former.write(progress(1, [900]));
  assert.deepEqual(await readProgress(folder, digest), progress(2, [200]));
});
