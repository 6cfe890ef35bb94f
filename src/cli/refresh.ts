/** slipway refresh: shows who refreshes what and what was set aside; reconciles executions with their tasks and runs. */
import { vendors } from "../execution/plan/status.ts";
import type { DrainStore } from "../execution/refresh/drain-store.ts";
import type { RefreshQueue } from "../execution/refresh/refresh-queue.ts";
import type { RefreshStore } from "../execution/refresh/refresh-store.ts";
import type { MaintenanceStarters } from "../temporal/maintenance.ts";
import { parseVerb, UsageError } from "./command.ts";
import { type RunKind, type WatchServices, beginRun, figure, watchRun } from "./watch-run.ts";

export interface RefreshView {
  readonly holdings: readonly {
    readonly shard: { id: number; total: number };
    readonly queue: string;
    readonly slots: readonly number[];
  }[];
  readonly problems: readonly string[];
  readonly suspects: readonly string[];
}

export interface RefreshServices extends WatchServices {
  readonly starters: Pick<MaintenanceStarters, "startExecutionReconcile">;
  readonly queue: Pick<RefreshQueue, "states">;
  readonly store: Pick<RefreshStore, "listFailures">;
  readonly drains: Pick<DrainStore, "find">;
  /** Null when the refresh does not run. */
  readonly view: () => Promise<RefreshView | null>;
}

export const REFRESH_USAGE = [
  "refresh status | refresh reconcile [--detach]",
  "",
  "  status     shows which instance holds how many slots, what waits, and what was set aside",
  "  reconcile  marks executions whose tasks are done, ends those whose run is over, and tries again what",
  "             was set aside; follows it to its end; 1 when it did not succeed",
  "",
  "  --detach   does not wait for the end",
].join("\n");

const KIND: RunKind = {
  vendor: vendors.executionReconcile,
  noun: "reconciliation of executions",
  describe: () => "reconciliation of executions",
  figures: (task) => `${figure(task, "marked")} marked, ${figure(task, "ended")} ended`,
};
const LISTED = 20;

/** The exit code. */
export async function runRefresh(args: readonly string[], services: RefreshServices): Promise<number> {
  const { detach, verb } = parseVerb(args);
  if (verb === "status") return showStatus(services);
  if (verb !== "reconcile") throw new UsageError("refresh needs `status` or `reconcile`");
  const { starters, signal, print } = services;
  const start = await beginRun(services, () => starters.startExecutionReconcile({ trigger: "manual" }, { signal }));
  print(start.outcome === "started" ? `started ${start.workflowId}` : `a reconciliation is running already: ${start.workflowId}`);
  return detach ? 0 : watchRun(services, start, KIND);
}

async function showStatus({ view, queue, store, drains, print }: RefreshServices): Promise<number> {
  const refresh = await view();
  if (refresh === null) print("the refresh does not run: no process has the role refresh, or none has started yet");
  for (const { shard, queue: name, slots } of refresh?.holdings ?? [])
    print(`instance ${shard.id}/${shard.total}  ${slots.length} slots  ${name}`);
  for (const problem of refresh?.problems ?? []) print(`problem: ${problem}`);
  for (const bootId of refresh?.suspects ?? []) print(`does not work: ${bootId}`);
  const waiting = Map.groupBy(
    (await queue.states()).filter(({ depth }) => depth > 0),
    ({ vendor }) => vendor,
  );
  if (waiting.size === 0) print("nothing waits");
  for (const [vendor, lanes] of waiting) {
    const depth = lanes.reduce((sum, lane) => sum + lane.depth, 0);
    print(`${vendor}: ${depth} wait, the oldest for ${Math.round(Math.max(...lanes.map((lane) => lane.oldestAgeMs)) / 1_000)} s`);
  }
  for (const failure of await store.listFailures(LISTED)) {
    const state = failure.setAsideAt === null ? "fails" : "is set aside";
    print(`execution ${failure.executionId} (${failure.vendor}) ${state} after ${failure.attempts} tries: ${failure.lastError}`);
  }
  const { phase, passes, marked, malformed } = await drains.find();
  if (phase !== "none") print(`old marks are ${phase}: ${marked} taken over, ${malformed} malformed, ${passes} passes`);
  return 0;
}
