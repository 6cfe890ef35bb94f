/** Ends what a killed owner left behind. Only the new owner of the data folder does this, and only to processes that surely were its. */
import { realpathSync } from "node:fs";
import { sleep } from "../core/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import { isRunning } from "./process-info.ts";
import type { ChildRecord, RunInfo } from "./run-file.ts";

const POLITE_MS = 10_000;
const FORCED_MS = 5_000;
const POLL_MS = 20;

export async function endLeftovers(run: RunInfo | null, dataDir: string, log: Logger): Promise<void> {
  // A folder that was copied brings the file along, but not the processes.
  if (run === null || !isSameFolder(run.dataDir, dataDir)) return;
  await Promise.all(run.children.filter(isRunning).map((child) => endChild(child, log)));
}

async function endChild(child: ChildRecord, log: Logger): Promise<void> {
  log.warn({ service: child.name, pid: child.pid }, "ending a process that an earlier start left behind");
  // SIGINT is Postgres's fast shutdown; SIGTERM would wait for its clients.
  send(child.pid, child.name === "postgres" ? "SIGINT" : "SIGTERM");
  if (await isGone(child, POLITE_MS)) return;
  // Each child leads a group of its own.
  send(-child.pid, "SIGKILL");
  await isGone(child, FORCED_MS);
}

async function isGone(child: ChildRecord, milliseconds: number): Promise<boolean> {
  const deadline = Date.now() + milliseconds;
  while (isRunning(child)) {
    if (Date.now() > deadline) return false;
    await sleep(POLL_MS);
  }
  return true;
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone in the meantime.
  }
}

function isSameFolder(one: string, other: string): boolean {
  try {
    return realpathSync(one) === realpathSync(other);
  } catch {
    return false;
  }
}
