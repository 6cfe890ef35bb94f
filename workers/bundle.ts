/**
 * The workflow bundle, kept under the data folder by the hash of everything that goes into it, and beside the packages, so that another data
 * folder of the same checkout need not build it again. It is built in a child process: bundling costs more than a hundred megabytes, which
 * would stay with a worker for life.
 */
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { access, copyFile, glob, mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { SlipwayError } from "../src/core/errors.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const BUILDER = fileURLToPath(new URL("./build-bundle.ts", import.meta.url));
/** Everything that workflows may import; more than they do is harmless. */
const SOURCES = [
  "workflows/**/*.ts",
  "src/core/*.ts",
  "src/oci/*.ts",
  "src/**/plan/**/*.ts",
  "src/temporal/ids.ts",
  "src/temporal/queues.ts",
  "workers/build-bundle.ts",
];
/** May be read-only, as in an image. */
const SHARED = join(ROOT, "node_modules", ".cache", "slipway", "bundle");
const BUILD_TIMEOUT_MS = 120_000;
/** Other versions that share the folder may still need theirs. */
const KEEP_MS = 7 * 24 * 3_600_000;

const under = new Map<string, Promise<string>>();

/** Path of the bundle of these very sources, built when it is not there; the roles of a process ask at the same moment. */
export async function workflowBundle(dataDir: string, signal?: AbortSignal): Promise<string> {
  const folder = join(dataDir, "cache");
  const name = `workflow-bundle-${await sourceHash()}.js`;
  const path = join(folder, name);
  const running = under.get(path) ?? provide({ folder, name, path }, signal).finally(() => under.delete(path));
  under.set(path, running);
  return await running;
}

async function provide({ folder, name, path }: { folder: string; name: string; path: string }, signal?: AbortSignal): Promise<string> {
  if (await exists(path)) return path;
  await mkdir(folder, { recursive: true });
  const shared = join(SHARED, name);
  const found = await placed(path, (out) => copyFile(shared, out)).catch(() => false);
  if (!found) {
    await placed(path, (out) => build(out, signal));
    await keepShared(path, shared).catch(() => undefined);
  }
  await removeOld(folder, path);
  return path;
}

async function keepShared(path: string, shared: string): Promise<void> {
  await mkdir(SHARED, { recursive: true });
  await placed(shared, (out) => copyFile(path, out));
  await removeOld(SHARED, shared);
}

/** Whole or not at all, whoever else does the same. */
async function placed(path: string, make: (out: string) => Promise<void>): Promise<true> {
  const making = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    await make(making);
    await rename(making, path);
    return true;
  } finally {
    await rm(making, { force: true });
  }
}

/** Over the sources and the SDK's version: a bundle only works with the version that made it. */
async function sourceHash(): Promise<string> {
  const hash = createHash("sha256");
  const { version } = createRequire(import.meta.url)("@temporalio/worker/package.json") as { version: string };
  hash.update(`sdk ${version}\n`);
  const files: string[] = [];
  for await (const file of glob(SOURCES, { cwd: ROOT })) files.push(relative(ROOT, join(ROOT, file)));
  for (const file of files.toSorted()) {
    hash.update(`${file}\n`);
    hash.update(await readFile(join(ROOT, file)));
  }
  return hash.digest("hex").slice(0, 16);
}

function build(out: string, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const options = { cwd: ROOT, timeout: BUILD_TIMEOUT_MS, maxBuffer: 4 * 1024 * 1024, ...(signal ? { signal } : {}) };
    execFile(process.execPath, ["--disable-warning=ExperimentalWarning", BUILDER, out], options, (error, stdout, stderr) => {
      if (!error) resolve();
      else if (signal?.aborted) reject(signal.reason);
      else
        reject(
          new SlipwayError("INTERNAL", { message: `the workflow bundle could not be built: ${lastLines(stderr || stdout)}`, cause: error }),
        );
    });
  });
}

function lastLines(text: string): string {
  return text.trim().split("\n").slice(-12).join("\n");
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function removeOld(folder: string, current: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    if (!name.startsWith("workflow-bundle-") || path === current) continue;
    const age = await stat(path).then(
      (found) => Date.now() - found.mtimeMs,
      () => 0,
    );
    if (age > KEEP_MS) await rm(path, { force: true });
  }
}
