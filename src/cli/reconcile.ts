/** slipway reconcile: makes rows and storage agree after one of them was lost, follows it, and shows what the last runs did. */
import { vendors } from "../execution/plan/status.ts";
import type { MaintenanceStarters } from "../temporal/maintenance.ts";
import { parseVerb, UsageError } from "./command.ts";
import { type RunKind, type WatchServices, beginRun, figure, showRuns, watchRun } from "./watch-run.ts";

export interface ReconcileServices extends WatchServices {
  readonly starters: Pick<MaintenanceStarters, "startReconcile">;
}

export const RECONCILE_USAGE = [
  "reconcile run [--detach] | reconcile status",
  "",
  "  run      rebuilds rows that are missing from the records in storage, then removes rows whose bytes",
  "           are gone, and follows it to its end; 1 when it did not succeed",
  "  status   shows the last runs",
  "",
  "  --detach   does not wait for the end",
].join("\n");

const KIND: RunKind = {
  vendor: vendors.reconcile,
  noun: "reconciliation",
  describe: () => "reconciliation",
  figures: (task) => `${figure(task, "items")} ${task.key === "missing" ? "removed" : "rebuilt"}, ${figure(task, "missing")} without bytes`,
};

/** The exit code. */
export async function runReconcile(args: readonly string[], services: ReconcileServices): Promise<number> {
  const { detach, verb } = parseVerb(args);
  if (verb === "status") return showRuns(services, KIND);
  if (verb !== "run") throw new UsageError("reconcile needs `run` or `status`");
  const { starters, signal } = services;
  const start = await beginRun(services, () => starters.startReconcile({ trigger: "manual" }, { signal }));
  services.print(start.outcome === "started" ? `started ${start.workflowId}` : `a reconciliation is running already: ${start.workflowId}`);
  return detach ? 0 : watchRun(services, start, KIND);
}
