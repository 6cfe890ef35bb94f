/** Following a maintenance run from the command line, and showing the last ones of its kind. */
import { sleep } from "../core/clock.ts";
import type { Execution, ExecutionStore } from "../execution/execution-store.ts";
import type { Task, TaskStore } from "../execution/task-store.ts";
import type { StartOutcome } from "../temporal/plan/maintenance.ts";

export interface WatchServices {
  readonly executions: Pick<ExecutionStore, "find" | "findByRun" | "list">;
  readonly tasks: Pick<TaskStore, "list">;
  readonly print: (line: string) => void;
  /** Ends the watching, never the run. */
  readonly signal: AbortSignal;
}

export interface RunKind {
  readonly vendor: string;
  /** As in "there has been no collection yet". */
  readonly noun: string;
  readonly describe: (execution: Execution) => string;
  readonly figures: (task: Task) => string;
}

const POLL_MS = 500;
const LISTED = 10;
const CLOSING_TRIES = 10;

/** A run whose execution has ended is about to close: its place is free in a moment. */
export async function beginRun({ executions, signal }: WatchServices, start: () => Promise<StartOutcome>): Promise<StartOutcome> {
  for (let tries = 1; ; tries += 1) {
    const outcome = await start();
    if (outcome.outcome === "started" || tries >= CLOSING_TRIES || !(await executions.findByRun(outcome))?.endedAt) return outcome;
    await sleep(POLL_MS, signal);
  }
}

/** Prints how it ended. The exit code. */
export async function watchRun(services: WatchServices, run: { workflowId: string; runId: string }, kind: RunKind): Promise<number> {
  const execution = await follow(services, run, kind);
  if (execution === null) return 1;
  await printTasks(services, execution, kind);
  const why = execution.statusMessage === "" ? "" : `: ${execution.statusMessage}`;
  services.print(`execution ${execution.id} ended: ${execution.status}${why}`);
  return execution.status === "Success" ? 0 : 1;
}

export async function showRuns(services: WatchServices, kind: RunKind): Promise<number> {
  const rows = await services.executions.list({ vendor: kind.vendor, limit: LISTED });
  if (rows.length === 0) services.print(`there has been no ${kind.noun} yet`);
  for (const execution of rows.toReversed()) {
    const began = (execution.startedAt ?? execution.createdAt).toISOString();
    const end = execution.endedAt ? `, ${Math.round((execution.endedAt.getTime() - Date.parse(began)) / 1_000)} s` : "";
    services.print(`${execution.id}  ${began}  ${execution.trigger} ${kind.describe(execution)}: ${execution.status}${end}`);
    if (execution.statusMessage !== "") services.print(`    ${execution.statusMessage}`);
  }
  const last = rows[0];
  if (last) await printTasks(services, last, kind);
  return 0;
}

export function figure(task: Task, name: string): number {
  const value = task.extraAttrs[name];
  return typeof value === "number" ? value : 0;
}

/** The ended execution; null when the watcher went away before. */
async function follow(
  { executions, print, signal }: WatchServices,
  run: { workflowId: string; runId: string },
  { noun }: RunKind,
): Promise<Execution | null> {
  for (let told = false; !signal.aborted;) {
    const execution = await executions.findByRun(run);
    if (execution?.endedAt) return execution;
    if (!told) print(execution ? `execution ${execution.id} is running` : "waiting for a maintenance worker");
    told = execution !== null;
    await sleep(POLL_MS, signal).catch(() => undefined);
  }
  print(`no longer watching; the ${noun} goes on`);
  return null;
}

async function printTasks({ tasks, print }: WatchServices, execution: Execution, { figures }: RunKind): Promise<void> {
  for (const task of await tasks.list(execution.id, { limit: 20 })) print(`    ${task.key.padEnd(8)} ${figures(task)} (${task.status})`);
}
