/** Durable steps on a local disk: a file exists for good when its bytes, its name and the folders above it have been synced. */
import { randomUUID } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isErrno } from "./fs-errors.ts";

export async function syncDir(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r+");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes the missing folders below an existing root, each of them durable. */
export async function ensureDir(root: string, path: string): Promise<void> {
  if (path === root) return;
  try {
    await mkdir(path);
  } catch (error) {
    if (isErrno(error, "EEXIST")) return;
    if (!isErrno(error, "ENOENT")) throw error;
    await ensureDir(root, dirname(path));
    return ensureDir(root, path);
  }
  await syncDir(dirname(path));
}

/** Written beside its place, synced, renamed onto its name: readers see the whole or nothing. */
export async function writeDurably(staging: string, path: string, bytes: Uint8Array): Promise<void> {
  const staged = join(staging, randomUUID());
  try {
    const handle = await open(staged, "wx");
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(staged, path);
  } catch (error) {
    await rm(staged, { force: true });
    throw error;
  }
  await syncDir(dirname(path));
}

/** Out of sight at once, then gone: whoever still works inside finds its names missing and stops. */
export async function removeDir(staging: string, path: string): Promise<void> {
  const hidden = join(staging, randomUUID());
  try {
    await rename(path, hidden);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return;
    throw error;
  }
  await rm(hidden, { recursive: true, force: true });
}
