/** Ordered, paged listings of folders. A page costs the folders it crosses, not the whole tree. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { isMissing, toStorageError } from "./fs-errors.ts";
import { digestOfKey } from "./object-keys.ts";
import type { ObjectEntry } from "./blob-store.ts";

async function namesIn(folder: string): Promise<{ name: string; isFolder: boolean }[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.map((entry) => ({ name: entry.name, isFolder: entry.isDirectory() })).toSorted(byName);
  } catch (error) {
    if (isMissing(error)) return [];
    throw toStorageError(error);
  }
}

function byName(a: { name: string }, b: { name: string }): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

export async function listBlobDigests(root: string, after: string | null, limit: number): Promise<string[]> {
  const found: string[] = [];
  for (const algorithm of await namesIn(root)) {
    if (after !== null && `${algorithm.name}:~` < after) continue;
    for (const shard of await namesIn(join(root, algorithm.name))) {
      if (after !== null && `${algorithm.name}:${shard.name}~` < after) continue;
      for (const { name } of await namesIn(join(root, algorithm.name, shard.name))) {
        const digest = digestOfKey(`blobs/${algorithm.name}/${shard.name}/${name}`);
        if (digest === null || (after !== null && digest <= after)) continue;
        found.push(digest);
        if (found.length >= limit) return found;
      }
    }
  }
  return found;
}

interface ListOptions {
  readonly prefix: string;
  readonly after: string | null;
  readonly limit: number;
}

/** Files below the root by key. Keys compare by path segment, which is the order of the walk. */
export async function listFiles(root: string, options: ListOptions): Promise<ObjectEntry[]> {
  const found: ObjectEntry[] = [];
  const after = options.after?.split("/") ?? null;
  const visit = async (segments: readonly string[]): Promise<boolean> => {
    for (const entry of await namesIn(join(root, ...segments))) {
      const path = [...segments, entry.name];
      const key = path.join("/");
      if (entry.isFolder) {
        const isRelevant = `${key}/`.startsWith(options.prefix) || options.prefix.startsWith(`${key}/`);
        if (!isRelevant || (after !== null && comparePaths(path, after.slice(0, path.length)) < 0)) continue;
        if (await visit(path)) return true;
      } else if (key.startsWith(options.prefix) && (after === null || comparePaths(path, after) > 0)) {
        const info = await stat(join(root, key)).catch(() => null);
        if (info) found.push({ key, size: info.size, modifiedAt: info.mtimeMs });
        if (found.length >= options.limit) return true;
      }
    }
    return false;
  };
  await visit([]);
  return found;
}

function comparePaths(a: readonly string[], b: readonly string[]): number {
  for (let index = 0; index < Math.min(a.length, b.length); index += 1) {
    const [left = "", right = ""] = [a[index], b[index]];
    if (left !== right) return left < right ? -1 : 1;
  }
  return a.length - b.length;
}
