/** An instance as a process of its own, which the test kills between the claim and the write, or in the middle of its work. */
import { Database } from "../../src/db/pool.ts";
import { sleep } from "../../src/core/clock.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { quietLogger } from "./maintenance.ts";
import { ALL_SLOTS, testRefresh } from "./refresh.ts";

export interface RefreshChildSettings {
  readonly databaseUrl: string;
  readonly redisUrl: string | null;
  readonly prefix: string;
  /** Between the claim of a batch and its statement. */
  readonly pauseMs: number;
  readonly batch: number;
  readonly leaseMs: number;
}

const settings = JSON.parse(process.argv[2] ?? "{}") as RefreshChildSettings;
const database = new Database({ url: settings.databaseUrl, poolSize: 3 });
const kv = await openKv({ redisUrl: settings.redisUrl, database, prefix: settings.prefix });
const slow = {
  query: async (text: string, values?: readonly unknown[]) => {
    if (text.includes("settle_executions")) {
      console.log("claimed");
      await sleep(settings.pauseMs);
    }
    return database.query(text, values);
  },
} as Database;
const pace = { leaseMs: settings.leaseMs, gatherMs: 20, idle: { baseMs: 50, capMs: 200 } };
const { refresher } = testRefresh({ kv, database: slow, logger: quietLogger, settings: { batch: settings.batch }, pace });
await refresher.hold({ slots: ALL_SLOTS, shard: { id: 0, total: 1 }, sweeps: false }, new AbortController().signal);
