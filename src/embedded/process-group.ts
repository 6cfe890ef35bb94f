/** Further processes of ours on the same port: started, watched, drained. */
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../telemetry/logger.ts";
import type { RunFile } from "./run-file.ts";
import { WatchedProcess } from "./watched-process.ts";
import type { ProcessState } from "./watched-process.ts";

export interface ProcessGroupOptions {
  /** How many besides this one. */
  readonly count: number;
  /** The program and its arguments; it runs under our own Node and with our environment. */
  readonly entry: string;
  readonly args: readonly string[];
  /** Null when no data folder is owned here. */
  readonly run: RunFile | null;
  readonly log: Logger;
  /** How long a member may drain after SIGTERM. */
  readonly drainMs: number;
  readonly onState?: (state: ProcessState) => void;
}

export interface ProcessGroup {
  states(): ProcessState[];
  /** Asks all to drain, waits, then kills. */
  close(): Promise<void>;
}

/** A member that lives so long has read its settings and come up. */
const SETTLE_MS = 300;
const KILL_MARGIN_MS = 5_000;

export async function startProcessGroup(options: ProcessGroupOptions, signal?: AbortSignal): Promise<ProcessGroup> {
  const members = Array.from({ length: options.count }, (_, index) => member(options, `proxy-${index + 2}`));
  const group: ProcessGroup = {
    states: () => members.map((process) => process.state),
    close: async () => {
      await Promise.all(members.map((process) => process.close()));
    },
  };
  try {
    await Promise.all(members.map((process) => process.start(signal)));
  } catch (error) {
    await group.close();
    throw error;
  }
  return group;
}

function member(options: ProcessGroupOptions, name: string): WatchedProcess {
  return new WatchedProcess({
    name,
    spec: () => ({ command: process.execPath, args: [options.entry, ...options.args], output: "inherit", deathSignal: "SIGTERM" }),
    ready: (stop) => delay(SETTLE_MS, undefined, { signal: stop }),
    readyTimeoutMs: 60_000,
    firstAttempts: 1,
    stop: [{ signal: "SIGTERM", waitMs: options.drainMs + KILL_MARGIN_MS }],
    log: options.log,
    onChange: (state) => {
      options.run?.setChild(state.name, state.process);
      options.onState?.(state);
    },
  });
}
