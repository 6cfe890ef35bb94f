import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

interface Entry {
  readonly version?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

// npm writes an incomplete lock file when some platform's package is not published (yet), and then refuses it on a fresh clone.
test("the lock file holds the packages of every platform, with their hashes", () => {
  const lock = JSON.parse(readFileSync(new URL("../../package-lock.json", import.meta.url), "utf8")) as { packages: Record<string, Entry> };
  const missing: string[] = [];
  for (const [path, entry] of Object.entries(lock.packages)) {
    if (path !== "" && !entry.link && !entry.integrity) missing.push(`${path}: no hash`);
    for (const name of Object.keys(entry.optionalDependencies ?? {})) {
      const nested = `${path}/node_modules/${name}`;
      if (!lock.packages[`node_modules/${name}`] && !lock.packages[nested]) missing.push(`${path || "the project"} needs ${name}`);
    }
  }
  assert.deepEqual(missing, []);
});
