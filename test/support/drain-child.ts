/** An instance that takes old marks over, as a process of its own; it waits between the mark and the removal of each page, for the test to kill it. */
import { sleep } from "../../src/core/clock.ts";
import { Database } from "../../src/db/pool.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { OldRedis } from "../../src/kv/old-redis.ts";
import type { OldKeys } from "../../src/kv/old-redis.ts";
import { quietLogger } from "./maintenance.ts";
import { ALL_SLOTS, testRefresh } from "./refresh.ts";

export interface DrainChildSettings {
  readonly databaseUrl: string;
  readonly redisUrl: string;
  readonly prefix: string;
  /** Pages that are taken over whole before the one that waits. */
  readonly pages: number;
}

const { databaseUrl, redisUrl, prefix, pages } = JSON.parse(process.argv[2] ?? "{}") as DrainChildSettings;
const database = new Database({ url: databaseUrl, poolSize: 3 });
const kv = await openKv({ redisUrl, database, prefix });
let left = pages;

async function wait(): Promise<void> {
  left -= 1;
  if (left >= 0) return;
  console.log("marked");
  await sleep(60_000);
}

async function open(): Promise<OldKeys> {
  const redis = await OldRedis.open(redisUrl, () => undefined);
  return {
    typeOf: (key) => redis.typeOf(key),
    scan: (pattern, cursor, count) => redis.scan(pattern, cursor, count),
    scanSet: (key, cursor, count) => redis.scanSet(key, cursor, count),
    remove: async (keys) => {
      await wait();
      await redis.remove(keys);
    },
    removeMembers: async (key, members) => {
      await wait();
      await redis.removeMembers(key, members);
    },
    close: () => redis.close(),
  };
}

// Shorter than in production, so that its successor need not wait long.
const acquireLease = (): ReturnType<typeof kv.acquireLease> => kv.acquireLease("old-marks", "child", 3_000);
const oldMarks = { mode: "auto", open, acquireLease, page: 250 } as const;
const { refresher } = testRefresh({ kv, database, logger: quietLogger, oldMarks });
await refresher.hold({ slots: ALL_SLOTS, shard: { id: 0, total: 1 }, sweeps: true }, new AbortController().signal);
