/** A maintenance worker as a process of its own that rebuilds rows slowly, for the test that kills it in the middle. */
import { DEFAULT_CATALOG_LIMITS } from "../../src/catalog/catalog-context.ts";
import { Rebuilder } from "../../src/catalog/rebuild.ts";
import { sleep, systemClock } from "../../src/core/clock.ts";
import { Database } from "../../src/db/pool.ts";
import { FsBlobStore } from "../../src/storage/fs-store.ts";
import { TemporalConnection } from "../../src/temporal/connection.ts";
import { noKv, startMaintenance, tableCollection } from "./maintenance.ts";

export interface ReconcileChildSettings {
  readonly address: string;
  readonly namespace: string;
  readonly databaseUrl: string;
  readonly dataDir: string;
  readonly storeRoot: string;
  readonly pauseMs: number;
}

const settings = JSON.parse(process.argv[2] ?? "{}") as ReconcileChildSettings;
const database = new Database({ url: settings.databaseUrl, poolSize: 5 });
const temporal = new TemporalConnection({ address: settings.address, namespace: settings.namespace });
const store = await FsBlobStore.open(settings.storeRoot);
const stat = store.stat.bind(store);
store.stat = async (digest) => {
  await sleep(settings.pauseMs);
  return stat(digest);
};
const context = {
  database,
  store,
  invalidator: { publish: () => Promise.resolve() },
  clock: systemClock,
  limits: DEFAULT_CATALOG_LIMITS,
  log: { warn: () => undefined },
};
startMaintenance({
  database,
  temporal,
  dataDir: settings.dataDir,
  collection: tableCollection(database, 0),
  kv: noKv,
  rebuilder: new Rebuilder(context, { registriesScope: "registries" }),
});
