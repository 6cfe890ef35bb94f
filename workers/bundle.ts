/**
 * The workflow bundle, kept under the data folder by the hash of everything that goes into it. It is built in a child process: bundling costs
 * more than a hundred megabytes, which would stay with a worker for life.
 */
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { access, glob, mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
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
const BUILD_TIMEOUT_MS = 120_000;
/** Other versions that share the folder may still need theirs. */
const KEEP_MS = 7 * 24 * 3_600_000;

/** Path of the bundle of these very sources, built when it is not there. */
export async function workflowBundle(dataDir: string, signal?: AbortSignal): Promise<string> {
  const folder = join(dataDir, "cache");
  const path = join(folder, `workflow-bundle-${await sourceHash()}.js`);
  if (await exists(path)) return path;
  await mkdir(folder, { recursive: true });
  const building = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    await build(building, signal);
    await rename(building, path);
  } finally {
    await rm(building, { force: true });
  }
  await removeOld(folder, path);
  return path;
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
