/** Folders below a root that may be gone. */
import assert from "node:assert/strict";
import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ensureDir } from "../../src/storage/fs-files.ts";
import { tempDir } from "../support/temp.ts";

test("missing folders are made, and made again when they are there", async (t) => {
  const root = await tempDir(t);
  const path = join(root, "a", "b", "c");
  await ensureDir(root, path);
  await ensureDir(root, path);
  assert.ok((await stat(path)).isDirectory());
});

test("when the root itself is gone, that is an error", async (t) => {
  const root = await tempDir(t);
  await rm(root, { recursive: true });
  for (const path of [join(root, "a"), join(root, "a", "b", "c")]) await assert.rejects(ensureDir(root, path), { code: "ENOENT" });
});
