/** slipway gc: starts garbage collection, follows it, and shows what the last runs did. */
import { parseArgs } from "node:util";
import { SlipwayError } from "../core/errors.ts";
import { vendors } from "../execution/plan/status.ts";
import type { CollectionStart, MaintenanceStarters } from "../temporal/maintenance.ts";
import { UsageError } from "./command.ts";
import { type RunKind, type WatchServices, beginRun, figure, showRuns, watchRun } from "./watch-run.ts";

export interface GcServices extends WatchServices {
  readonly starters: Pick<MaintenanceStarters, "startGarbageCollection">;
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

const UNITS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

const KIND: RunKind = {
  vendor: vendors.garbageCollection,
  noun: "collection",
  describe: (execution) => (execution.extraAttrs["dry_run"] === true ? "dry run" : "collection"),
  figures: (task) => `${figure(task, "items")} items, ${figure(task, "bytes")} bytes`,
};

/** The exit code. */
export async function runGc(args: readonly string[], services: GcServices): Promise<number> {
  const { values, positionals } = parse(args);
  switch (positionals[0]) {
    case "run":
      return run(services, values);
    case "status":
      return showRuns(services, KIND);
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
  const { starters, print, signal } = services;
  const request: CollectionStart = { trigger: "manual", dryRun: flags["dry-run"], graceMs };
  const start = await beginRun(services, () => starters.startGarbageCollection(request, { signal }));
  print(start.outcome === "started" ? `started ${start.workflowId}` : `a collection is running already: ${start.workflowId}`);
  return flags.detach ? 0 : watchRun(services, start, KIND);
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
