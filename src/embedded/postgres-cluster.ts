/** The files of the embedded database: where they are, made once by initdb, taken over from another user or an unclean end. */
import { randomBytes } from "node:crypto";
import { chmod, chown, cp, mkdir, open, readFile, readdir, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { sleep } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import type { Logger } from "../telemetry/logger.ts";
import { runToEnd } from "./guarded-spawn.ts";
import type { RunAs } from "./guarded-spawn.ts";
import { copyPostgres, exists, locatePostgres, program, tryPostgres } from "./postgres-install.ts";
import type { PostgresInstall } from "./postgres-install.ts";
import { canReach, chooseRunAs, handOverFolder } from "./postgres-user.ts";
import { isAlive, workingFolder } from "./process-info.ts";

export const POSTGRES_USER = "slipway";

export interface ClusterOptions {
  /** Absolute; exists. */
  readonly dataDir: string;
  readonly log: Logger;
  readonly avoidNamespace?: boolean;
  /** Parent of clusters that are handed to another user. */
  readonly handOverBase?: string;
  /** False only for data that nobody will miss. */
  readonly durable: boolean;
}

export interface Cluster {
  readonly install: PostgresInstall;
  readonly runAs: RunAs;
  readonly dir: string;
  /** For the socket; only we and the server's user can enter. */
  readonly socketDir: string;
  readonly password: string;
}

export async function prepareCluster(options: ClusterOptions, signal?: AbortSignal): Promise<Cluster> {
  const { dataDir } = options;
  const inPlace = join(dataDir, "postgres");
  const runAs = await chooseRunAs({ clusterDir: inPlace, avoidNamespace: options.avoidNamespace === true });
  let install = await locatePostgres(dataDir);
  let home = dataDir;
  if (runAs.kind === "uid" && !(await canReach(runAs, dataDir))) {
    home = handOverFolder(dataDir, options.handOverBase);
    await mkdir(home, { recursive: true, mode: 0o755 });
    await chmod(home, 0o755);
  }
  if ((await tryPostgres(install, runAs)) === null) {
    const parent = runAs.kind === "uid" ? handOverFolder(dataDir, options.handOverBase) : join(dataDir, "bin");
    await mkdir(parent, { recursive: true, mode: 0o755 });
    install = await copyPostgres(install, parent);
    if ((await tryPostgres(install, runAs)) === null) {
      throw new SlipwayError("CONFIG_INVALID", {
        message: `the embedded Postgres (${install.root}) does not run on this system: set SLIPWAY_DATABASE_URL to a Postgres of your own`,
      });
    }
  }
  const dir = join(home, "postgres");
  const password = await readPassword(dataDir);
  await takeOver({ from: inPlace, to: dir, runAs, log: options.log });
  if (!(await exists(join(dir, "PG_VERSION")))) await initialise({ install, runAs, dir, password, durable: options.durable }, signal);
  const socketDir = join(home, "pg");
  await mkdir(socketDir, { recursive: true, mode: 0o700 });
  if (runAs.kind === "uid") await chown(socketDir, runAs.uid, runAs.gid);
  return { install, runAs, dir: await realpath(dir), socketDir, password };
}

interface InitOptions {
  readonly install: PostgresInstall;
  readonly runAs: RunAs;
  readonly dir: string;
  readonly password: string;
  readonly durable: boolean;
}

/** Made beside its place and renamed, so that a start that was interrupted leaves no half database. */
async function initialise(options: InitOptions, signal?: AbortSignal): Promise<void> {
  const { install, runAs, dir } = options;
  const unfinished = `${dir}.init-${randomBytes(4).toString("hex")}`;
  const passwordFile = `${unfinished}.password`;
  await removeUnfinished(dir);
  await mkdir(unfinished, { mode: 0o700 });
  await writeFile(passwordFile, options.password, { mode: 0o600 });
  if (runAs.kind === "uid") {
    await chown(unfinished, runAs.uid, runAs.gid);
    await chown(passwordFile, runAs.uid, runAs.gid);
  }
  try {
    const args = ["-D", unfinished, "-U", POSTGRES_USER, "-E", "UTF8", "--no-locale", "--no-instructions", `--pwfile=${passwordFile}`];
    args.push("--auth-local=trust", "--auth-host=scram-sha-256", ...(options.durable ? [] : ["--no-sync"]));
    const result = await runToEnd({ command: program(install, "initdb"), args, env: install.env, cwd: "/", runAs }, signal);
    if (result.code !== 0) {
      const message = `initdb failed: ${result.output.trim().split("\n").slice(-4).join(" | ")}`;
      throw new SlipwayError("INTERNAL", { message });
    }
    await rename(unfinished, dir);
    if (options.durable) await syncFolder(join(dir, ".."));
  } finally {
    await rm(passwordFile, { force: true });
    await rm(unfinished, { recursive: true, force: true });
  }
}

async function removeUnfinished(dir: string): Promise<void> {
  const parent = join(dir, "..");
  for (const name of await readdir(parent)) {
    if (name.startsWith("postgres.init-")) await rm(join(parent, name), { recursive: true, force: true });
  }
}

/** Gives an existing cluster to the user that will run it, at a place where that user reaches it. */
async function takeOver(options: { from: string; to: string; runAs: RunAs; log: Logger }): Promise<void> {
  const { from, to, runAs, log } = options;
  if (runAs.kind !== "uid") return;
  if (from !== to && (await exists(join(from, "PG_VERSION"))) && !(await exists(join(to, "PG_VERSION")))) {
    log.warn({ from, to }, "copying the database to where its user can reach it");
    const unfinished = `${to}.init-${randomBytes(4).toString("hex")}`;
    await cp(from, unfinished, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true });
    await rename(unfinished, to);
    await rename(from, `${from}.moved-to-${runAs.uid}`);
  }
  const owner = (await stat(join(to, "PG_VERSION")).catch(() => null))?.uid;
  if (owner !== undefined && owner !== runAs.uid) await chownTree(to, runAs.uid, runAs.gid);
}

async function chownTree(path: string, uid: number, gid: number): Promise<void> {
  const result = await runToEnd({ command: "chown", args: ["-R", "-h", `${uid}:${gid}`, path] });
  if (result.code !== 0) throw new SlipwayError("INTERNAL", { message: `chown of ${path} failed: ${result.output.trim()}` });
}

/** One password for each data folder; it matters only when the server listens on a port. */
async function readPassword(dataDir: string): Promise<string> {
  const path = join(dataDir, "postgres-password");
  try {
    await writeFile(path, randomBytes(24).toString("base64url"), { mode: 0o600, flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  return (await readFile(path, "utf8")).trim();
}

/**
 * Ends a server that still works in this folder, and removes a pid file whose pid belongs to somebody else by now: Postgres would trust
 * it and refuse to start, and in containers the same low pids come back every time. Only the owner of the data folder calls this.
 */
export async function clearPidFile(dir: string, log: Logger): Promise<void> {
  const path = join(dir, "postmaster.pid");
  const pid = Number.parseInt((await readFile(path, "utf8").catch(() => "")).split("\n")[0] ?? "", 10);
  if (!Number.isInteger(pid) || pid <= 0) return;
  const folder = workingFolder(pid);
  if (folder === dir) {
    log.warn({ pid, dir }, "ending a Postgres that an earlier start left behind");
    for (const [signal, waitMs] of [
      ["SIGINT", 10_000],
      ["SIGQUIT", 5_000],
      ["SIGKILL", 5_000],
    ] as const) {
      if (await ends(pid, { dir, signal, waitMs })) break;
    }
  }
  // Where /proc does not exist the folder stays unknown, and Postgres decides.
  if (folder !== null || !isAlive(pid) || process.platform === "linux") await rm(path, { force: true });
}

async function ends(pid: number, options: { dir: string; signal: NodeJS.Signals; waitMs: number }): Promise<boolean> {
  try {
    process.kill(pid, options.signal);
  } catch {
    return true;
  }
  const deadline = Date.now() + options.waitMs;
  while (Date.now() < deadline) {
    if (workingFolder(pid) !== options.dir) return true;
    await sleep(20);
  }
  return false;
}

async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
