/** slipway gc: starts garbage collection, follows it, and shows what the last runs did. */
import { parseArgs } from "node:util";
import { sleep } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import type { Execution, ExecutionStore } from "../execution/execution-store.ts";
import { vendors } from "../execution/plan/status.ts";
import type { Task, TaskStore } from "../execution/task-store.ts";
import type { CollectionStart, MaintenanceStarters } from "../temporal/maintenance.ts";
import type { StartOutcome } from "../temporal/plan/maintenance.ts";
import { UsageError } from "./command.ts";

export interface GcServices {
  readonly executions: Pick<ExecutionStore, "find" | "findByRun" | "list">;
  readonly tasks: Pick<TaskStore, "list">;
  readonly starters: Pick<MaintenanceStarters, "startGarbageCollection">;
  readonly print: (line: string) => void;
  /** Ends the watching, never the run. */
  readonly signal: AbortSignal;
}

export const GC_USAGE = [
  "gc run [--dry-run] [--grace 24h] [--detach] | gc status",
  "",
  "  run      starts a collection and follows it to its end; 1 when it did not succeed",
  "  status   shows the last runs",
  "",
  "  --dry-run  counts what would be removed, and removes nothing",
  "  --grace    keeps content that was used within this time (90s, 30m, 24h, 7d)",
  "  --detach   does not wait for the end",
].join("\n");

const POLL_MS = 500;
const LISTED = 10;
const CLOSING_TRIES = 10;
const UNITS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** The exit code. */
export async function runGc(args: readonly string[], services: GcServices): Promise<number> {
  const { values, positionals } = parse(args);
  switch (positionals[0]) {
    case "run":
      return run(services, values);
    case "status":
      return status(services);
    default:
      throw new UsageError("gc needs `run` or `status`");
  }
}

interface RunFlags {
  readonly "dry-run": boolean;
  readonly detach: boolean;
  readonly grace?: string | undefined;
}

async function run(services: GcServices, flags: RunFlags): Promise<number> {
  const graceMs = flags.grace === undefined ? null : parseDuration(flags.grace);
  const { print } = services;
  const start = await begin(services, { trigger: "manual", dryRun: flags["dry-run"], graceMs });
  print(start.outcome === "started" ? `started ${start.workflowId}` : `a collection is running already: ${start.workflowId}`);
  if (flags.detach) return 0;
  const execution = await follow(services, start);
  if (execution === null) return 1;
  await printTasks(services, execution);
  const why = execution.statusMessage === "" ? "" : `: ${execution.statusMessage}`;
  print(`execution ${execution.id} ended: ${execution.status}${why}`);
  return execution.status === "Success" ? 0 : 1;
}

/** A run whose execution has ended is about to close: its place is free in a moment. */
async function begin({ starters, executions, signal }: GcServices, request: CollectionStart): Promise<StartOutcome> {
  for (let tries = 1; ; tries += 1) {
    const start = await starters.startGarbageCollection(request, { signal });
    if (start.outcome === "started" || tries >= CLOSING_TRIES || !(await executions.findByRun(start))?.endedAt) return start;
    await sleep(POLL_MS, signal);
  }
}

/** The ended execution; null when the watcher went away before. */
async function follow({ executions, print, signal }: GcServices, run: { workflowId: string; runId: string }): Promise<Execution | null> {
  for (let told = false; !signal.aborted;) {
    const execution = await executions.findByRun(run);
    if (execution?.endedAt) return execution;
    if (!told) print(execution ? `execution ${execution.id} is running` : "waiting for a maintenance worker");
    told = execution !== null;
    await sleep(POLL_MS, signal).catch(() => undefined);
  }
  print("no longer watching; the collection goes on");
  return null;
}

async function status(services: GcServices): Promise<number> {
  const rows = await services.executions.list({ vendor: vendors.garbageCollection, limit: LISTED });
  if (rows.length === 0) services.print("there has been no collection yet");
  for (const execution of rows.toReversed()) {
    const kind = execution.extraAttrs["dry_run"] === true ? "dry run" : "collection";
    const began = (execution.startedAt ?? execution.createdAt).toISOString();
    const end = execution.endedAt ? `, ${Math.round((execution.endedAt.getTime() - Date.parse(began)) / 1_000)} s` : "";
    services.print(`${execution.id}  ${began}  ${execution.trigger} ${kind}: ${execution.status}${end}`);
    if (execution.statusMessage !== "") services.print(`    ${execution.statusMessage}`);
  }
  const last = rows[0];
  if (last) await printTasks(services, last);
  return 0;
}

async function printTasks({ tasks, print }: GcServices, execution: Execution): Promise<void> {
  for (const task of await tasks.list(execution.id, { limit: 20 })) {
    print(`    ${task.key.padEnd(8)} ${figure(task, "items")} items, ${figure(task, "bytes")} bytes (${task.status})`);
  }
}

function figure(task: Task, name: string): number {
  const value = task.extraAttrs[name];
  return typeof value === "number" ? value : 0;
}

function parse(args: readonly string[]): { values: RunFlags; positionals: string[] } {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { "dry-run": { type: "boolean", default: false }, detach: { type: "boolean", default: false }, grace: { type: "string" } },
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : "the arguments cannot be read");
  }
}

function parseDuration(text: string): number {
  const [, amount, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const factor = UNITS[unit ?? ""];
  if (amount === undefined || factor === undefined) {
    throw new SlipwayError("BAD_REQUEST", { message: `--grace: ${text} is no time; 90s, 30m, 24h and 7d are` });
  }
  return Number(amount) * factor;
}
