/**
 * One owner for each data folder. The lock is a write lock that SQLite holds on `<data>/lock`: the kernel keeps it, so it ends with the
 * process, however that ends, and there is never a stale one to judge. Node itself offers no file lock; a pid file or a socket has to be
 * taken from a dead owner, and two starters that do that at once can both win. The file stays empty, and nothing else may open it in
 * this process: closing any handle of a file drops the locks that the process has on it.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { sleep } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";

export interface DataLock {
  release(): void;
}

const SQLITE_BUSY = 5;
const RETRY_MS = 50;

/** Null when another process has it and keeps it for the whole wait. */
export async function acquireDataLock(dataDir: string, waitMs: number, signal?: AbortSignal): Promise<DataLock | null> {
  await mkdir(dataDir, { recursive: true });
  const deadline = Date.now() + waitMs;
  for (;;) {
    const lock = tryLock(join(dataDir, "lock"));
    if (lock !== null) return lock;
    if (Date.now() >= deadline) return null;
    await sleep(RETRY_MS, signal);
  }
}

function tryLock(path: string): DataLock | null {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path);
    database.exec("BEGIN EXCLUSIVE");
    const held = database;
    return { release: () => held.close() };
  } catch (error) {
    database?.close();
    if ((error as { errcode?: number }).errcode === SQLITE_BUSY) return null;
    throw new SlipwayError("CONFIG_INVALID", {
      message: `cannot lock the data folder (${path}): ${(error as Error).message}; it must be writable and on a file system with locks`,
      cause: error,
    });
  }
}
