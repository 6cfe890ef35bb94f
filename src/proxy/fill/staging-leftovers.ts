/** Files in the staging folder that nobody will take up any more. What is younger than a day may still be resumed. */
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { isErrno } from "../../storage/fs-errors.ts";

const KEEP_MS = 24 * 3_600_000;

export async function removeLeftovers(folder: string, isFilling: (digest: string) => Promise<boolean>, keepMs = KEEP_MS): Promise<number> {
  let removed = 0;
  for (const name of await list(folder)) {
    const path = join(folder, name);
    const remote = /^remote-(\d+)$/.exec(name);
    if (remote) {
      if (isAlive(Number(remote[1]))) continue;
      await rm(path, { recursive: true, force: true });
      removed += 1;
      continue;
    }
    const digest = /^(sha\d+)-([0-9a-f]+)\./.exec(name);
    const info = await stat(path).catch(() => null);
    if (!digest || !info || Date.now() - info.mtimeMs < keepMs || (await isFilling(`${digest[1]}:${digest[2]}`))) continue;
    await rm(path, { force: true });
    removed += 1;
  }
  return removed;
}

async function list(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  }
}

/** Of this host or of another that shares the folder: then a foreign number may look alive, and its folder stays a little longer. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return isErrno(error, "EPERM");
  }
}
