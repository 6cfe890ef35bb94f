/** A worker process that copies one batch and may be killed; what it was asked comes as JSON in its first argument. */
import { Database } from "../../../src/db/pool.ts";
import { PostgresKv } from "../../../src/kv/postgres-kv.ts";
import { buildCopier } from "./setting.ts";
import type { CopierSetting } from "./setting.ts";

interface Order {
  readonly databaseUrl: string;
  readonly folder: string;
  readonly setting: CopierSetting;
  readonly executionId: number;
  readonly tasks: readonly number[];
  readonly round: number;
}

const order = JSON.parse(process.argv[2] ?? "") as Order;
const database = new Database({ url: order.databaseUrl, poolSize: 5 });
const kv = await PostgresKv.open({ database, prefix: "test:" });
const { copier, close } = buildCopier(order.setting, { database, kv, folder: order.folder });
console.log(JSON.stringify({ started: true }));
const outcome = await copier.copyBatch(
  { executionId: order.executionId, tasks: order.tasks, round: order.round },
  new AbortController().signal,
);
console.log(JSON.stringify({ outcome }));
await close();
await kv.close();
await database.close();
