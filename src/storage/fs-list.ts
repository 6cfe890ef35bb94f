/** Ordered walks over the folders of the local disk, one page at a time. */
import { opendir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { ObjectEntry } from "./blob-store.ts";
import { isErrno } from "./fs-errors.ts";
import { digestOfBlobKey } from "./object-keys.ts";

interface Entry {
  readonly name: string;
  readonly folder: boolean;
}

/** Sorted as the keys below them sort: a folder as if its slash belonged to its name. */
async function entriesOf(path: string): Promise<Entry[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true });
    const listed = entries.map((entry) => ({ name: entry.isDirectory() ? `${entry.name}/` : entry.name, folder: entry.isDirectory() }));
    return listed.sort((left, right) => (left.name < right.name ? -1 : 1));
  } catch (error) {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  }
}

interface Walk {
  readonly root: string;
  /** Keys start with this. */
  readonly prefix: string;
  /** Keys come after this. */
  readonly after: string;
}

/** Keys relative to the root, in byte order. Folders without a wanted key are not opened. */
async function* walk(options: Walk, folder: string): AsyncGenerator<string> {
  const { root, prefix, after } = options;
  for (const entry of await entriesOf(join(root, folder))) {
    const key = folder + entry.name;
    if (!key.startsWith(prefix) && !(entry.folder && prefix.startsWith(key))) continue;
    if (entry.folder) {
      if (key > after || after.startsWith(key)) yield* walk(options, key);
    } else if (key > after) yield key;
  }
}

/** Keys begin with `blobs/`. */
export async function listBlobKeys(root: string, after: string | null, limit: number): Promise<string[]> {
  const digests: string[] = [];
  for await (const key of walk({ root, prefix: "blobs/", after: after ?? "" }, "")) {
    const digest = digestOfBlobKey(key);
    if (digest !== null) digests.push(digest);
    if (digests.length === limit) break;
  }
  return digests;
}

/** The root is the folder of objects. */
export async function listObjectEntries(walkOptions: Walk, limit: number): Promise<ObjectEntry[]> {
  const found: ObjectEntry[] = [];
  for await (const key of walk(walkOptions, "")) {
    try {
      const file = await stat(join(walkOptions.root, key));
      found.push({ key, size: file.size, modifiedAt: file.mtimeMs });
    } catch (error) {
      if (!isErrno(error, "ENOENT")) throw error;
    }
    if (found.length === limit) break;
  }
  return found;
}

/** Names in a folder of which neither the folder nor a file in it was touched since the cut-off. */
export async function listUntouched(path: string, olderThan: number, limit: number): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of await opendir(path)) {
    if ((await lastTouched(join(path, entry.name))) >= olderThan) continue;
    found.push(entry.name);
    if (found.length === limit) break;
  }
  return found;
}

async function lastTouched(path: string): Promise<number> {
  try {
    const own = await stat(path);
    if (!own.isDirectory()) return own.mtimeMs;
    const inner = await Promise.all((await readdir(path)).map(async (name) => (await stat(join(path, name))).mtimeMs));
    return Math.max(own.mtimeMs, ...inner);
  } catch (error) {
    // Moved while we looked, hence touched.
    if (isErrno(error, "ENOENT")) return Number.POSITIVE_INFINITY;
    throw error;
  }
}
