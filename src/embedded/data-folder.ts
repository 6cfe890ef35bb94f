/** Opening a data folder: as its owner, or beside the owner. */
import { mkdir, realpath } from "node:fs/promises";
import { resolve } from "node:path";
import { sleep } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import type { Logger } from "../telemetry/logger.ts";
import { acquireDataLock } from "./data-lock.ts";
import { endLeftovers } from "./leftovers.ts";
import { isRunning } from "./process-info.ts";
import { readRunFile, RunFile } from "./run-file.ts";
import type { RunInfo } from "./run-file.ts";

export interface OwnedFolder {
  readonly kind: "owner";
  /** Absolute, without symbolic links. */
  readonly dataDir: string;
  readonly run: RunFile;
  /** The last thing to do: the next start may begin at once. */
  release(): void;
}

export interface JoinedFolder {
  readonly kind: "joined";
  readonly dataDir: string;
  readonly run: RunInfo;
}

export interface OpenOptions {
  readonly dataDir: string;
  /** True when roles were asked for: then a running owner is joined. */
  readonly mayJoin: boolean;
  readonly log: Logger;
  readonly signal?: AbortSignal;
  /** How long to wait for an owner that is about to end. */
  readonly waitMs?: number;
  /** How long a joining process waits until the owner's services are known. */
  readonly joinMs?: number;
}

/** An owner whose starter was killed notices within a second and gives up the folder. */
const OWNER_ENDS_MS = 2_000;
const JOIN_MS = 60_000;
const POLL_MS = 50;

export async function openDataFolder(options: OpenOptions): Promise<OwnedFolder | JoinedFolder> {
  const wanted = resolve(options.dataDir);
  await mkdir(wanted, { recursive: true }).catch((error: unknown) => {
    throw new SlipwayError("CONFIG_INVALID", {
      message: `cannot make the data folder ${wanted}: ${(error as Error).message}`,
      cause: error,
    });
  });
  const dataDir = await realpath(wanted);
  const lock = await acquireDataLock(dataDir, options.mayJoin ? 0 : (options.waitMs ?? OWNER_ENDS_MS), options.signal);
  if (lock === null) {
    if (!options.mayJoin) throw inUse(dataDir, await liveRun(dataDir, OWNER_ENDS_MS));
    return { kind: "joined", dataDir, run: await joinableRun(dataDir, options) };
  }
  try {
    await endLeftovers(readRunFile(dataDir), dataDir, options.log);
    const run = new RunFile(dataDir);
    return {
      kind: "owner",
      dataDir,
      run,
      release: () => {
        run.remove();
        lock.release();
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}

async function joinableRun(dataDir: string, options: OpenOptions): Promise<RunInfo> {
  const deadline = Date.now() + (options.joinMs ?? JOIN_MS);
  while (Date.now() < deadline) {
    const run = readRunFile(dataDir);
    if (run !== null && isRunning(run.owner) && run.servicesReady && run.phase !== "stopping") return run;
    await sleep(POLL_MS, options.signal);
  }
  throw new SlipwayError("CONFLICT", { message: `the owner of ${dataDir} did not become ready, so there is nothing to join` });
}

/** The owner writes its name just after it took the lock. */
async function liveRun(dataDir: string, waitMs: number): Promise<RunInfo | null> {
  const deadline = Date.now() + waitMs;
  for (;;) {
    const run = readRunFile(dataDir);
    if (run !== null && isRunning(run.owner)) return run;
    if (Date.now() > deadline) return null;
    await sleep(POLL_MS);
  }
}

function inUse(dataDir: string, run: RunInfo | null): SlipwayError {
  const owner =
    run === null ? "another process" : `process ${run.owner.pid}, started ${run.startedAt}${run.url === null ? "" : `, ${run.url}`}`;
  return new SlipwayError("CONFLICT", {
    message: `the data folder ${dataDir} is in use by ${owner}: stop it, choose another SLIPWAY_DATA_DIR, or join it with --role <role>`,
    detail: { dataDir, pid: run?.owner.pid ?? null },
  });
}
