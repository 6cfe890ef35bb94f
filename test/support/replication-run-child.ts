/**
 * Replication in a process of its own, for tests that kill it or that start runs from several processes at once. `mode` is "work" (the workers
 * of the role) or "start" (as many starts as asked for, at the moment given, their outcomes on stdout).
 */
import { setTimeout as delay } from "node:timers/promises";
import { Database } from "../../src/db/pool.ts";
import { TemporalConnection } from "../../src/temporal/connection.ts";
import { openRuns, startReplicationWorkers } from "./replication-runs.ts";

export interface ChildSettings {
  readonly mode: "work" | "start";
  readonly address: string;
  readonly namespace: string;
  readonly databaseUrl: string;
  readonly policyId?: number;
  readonly starts?: number;
  readonly atMs?: number;
}

const settings = JSON.parse(process.argv[2] ?? "{}") as ChildSettings;
const database = new Database({ url: settings.databaseUrl, poolSize: 10 });
const temporal = new TemporalConnection({ address: settings.address, namespace: settings.namespace });

if (settings.mode === "start") {
  const { control } = openRuns(database, temporal);
  const { policyId = 0, starts = 1, atMs = 0 } = settings;
  await delay(Math.max(0, atMs - Date.now()));
  const started = await Promise.all(
    Array.from({ length: starts }, () => control.start({ policyId, trigger: "manual" }, { timeoutMs: 30_000 })),
  );
  process.stdout.write(`${JSON.stringify(started)}\n`);
  await temporal.close();
  await database.close();
} else {
  startReplicationWorkers({ database, temporal, graceMs: 1_000 });
}
