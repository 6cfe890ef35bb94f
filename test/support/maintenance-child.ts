/** A maintenance worker as a process of its own, for tests that kill it. Its handlers and batches are slow enough to be killed in the middle. */
import type { RelayHandler } from "../../src/catalog/outbox-relay.ts";
import { sleep } from "../../src/core/clock.ts";
import { Database } from "../../src/db/pool.ts";
import { TemporalConnection } from "../../src/temporal/connection.ts";
import { noKv, recordingHandler, startMaintenance, tableCollection } from "./maintenance.ts";

export interface ChildSettings {
  readonly address: string;
  readonly namespace: string;
  readonly databaseUrl: string;
  readonly dataDir: string;
  readonly pauseMs: number;
}

const settings = JSON.parse(process.argv[2] ?? "{}") as ChildSettings;
const database = new Database({ url: settings.databaseUrl, poolSize: 5 });
const temporal = new TemporalConnection({ address: settings.address, namespace: settings.namespace });
const record = recordingHandler(database, `child ${process.pid}`);
const slowly: RelayHandler = async (rows, signal) => {
  for (const row of rows) {
    await sleep(settings.pauseMs, signal);
    await record([row], signal);
  }
};
const group = startMaintenance({
  database,
  temporal,
  dataDir: settings.dataDir,
  collection: tableCollection(database, settings.pauseMs),
  kv: noKv,
  handlers: { event: slowly },
  relay: { batch: 10, leaseMs: 3_000 },
});
process.on("SIGTERM", () => {
  void group.close().then(async () => {
    await temporal.close();
    await database.close();
  });
});
