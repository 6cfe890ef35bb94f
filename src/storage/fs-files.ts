/** Durable steps on a local disk: a file exists for good when its bytes, its name and the folders above it have been synced. */
import { randomUUID } from "node:crypto";
import { copyFile, mkdir, open, rename, rm } from "node:fs/promises";
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
    // Without the root there is nothing to begin with: a disk that went away must be told, not tried again for ever.
    if (!isErrno(error, "ENOENT") || dirname(path) === root) throw error;
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

/** A finished file goes to its place; from another file system it is copied beside it first. */
export async function moveDurably(staging: string, from: string, to: string): Promise<void> {
  try {
    await syncFile(from);
    await rename(from, to);
  } catch (error) {
    if (!isErrno(error, "EXDEV")) throw error;
    const staged = join(staging, randomUUID());
    try {
      await copyFile(from, staged);
      await syncFile(staged);
      await rename(staged, to);
    } finally {
      await rm(staged, { force: true });
    }
    await rm(from, { force: true });
  }
  await syncDir(dirname(to));
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
