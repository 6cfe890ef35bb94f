/** Folders that a test owns and that are gone after it. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export async function tempDir(t: Cleanable, name = "slipway-test-"): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), name));
  t.after(() => rm(path, { recursive: true, force: true, maxRetries: 5 }));
  return path;
}
