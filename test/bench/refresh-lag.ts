/**
 * From the end of an execution's last task to the final status that everybody sees, while so many executions end every second: through the task store and the marker, as every
 * producer does, with a look at the rows every 20 ms. `node test/bench/refresh-lag.ts [executions a second] [seconds] [instances]`, with SLIPWAY_TEST_TEMPORAL_ADDRESS if
 * there is a Temporal already. Full size: 200 60 5.
 */
import { setTimeout as delay } from "node:timers/promises";
import { TaskStore } from "../../src/execution/task-store.ts";
import { bench } from "./proxy-setting.ts";
import { seedRunning, startInstances, startRefreshSetting } from "./refresh-setting.ts";
import type { RefreshSetting } from "./refresh-setting.ts";

const RATE = Number(process.argv[2] ?? 200);
const SECONDS = Number(process.argv[3] ?? 20);
const INSTANCES = Number(process.argv[4] ?? 5);
const LOOK_MS = 20;
const LONGEST_MS = 60_000;

/** Ends the last task of each, evenly over the time; returns when it did, by execution. */
async function endTasks({ database, producer }: RefreshSetting, ids: readonly number[], ended: Map<number, number>): Promise<void> {
  const tasks = new TaskStore(database);
  const startedAt = performance.now();
  const flying: Promise<void>[] = [];
  for (const [index, id] of ids.entries()) {
    const ahead = startedAt + (index * 1000) / RATE - performance.now();
    if (ahead > 1) await delay(ahead);
    const end = async (): Promise<void> => {
      await tasks.update(id, "t3", { status: "Success", revision: 1 });
      ended.set(id, performance.now());
      await producer.marker.asyncRefreshStatus(id, "REPLICATION", { mayBeFinal: true });
    };
    flying.push(end());
  }
  await Promise.all(flying);
}

async function watch({ database }: RefreshSetting, ended: Map<number, number>, count: number): Promise<number[]> {
  const lags: number[] = [];
  const deadline = performance.now() + SECONDS * 1000 + LONGEST_MS;
  while (lags.length < count && performance.now() < deadline) {
    const { rows } = await database.query<{ id: number }>("SELECT id FROM executions WHERE id = ANY ($1) AND status = 'Success'", [
      [...ended.keys()],
    ]);
    const seenAt = performance.now();
    for (const { id } of rows) {
      lags.push(seenAt - (ended.get(id) ?? Number.NaN));
      ended.delete(id);
    }
    await delay(LOOK_MS);
  }
  return lags.toSorted((a, b) => a - b);
}

await bench(async (t) => {
  const setting = await startRefreshSetting(t);
  const ids = await seedRunning(setting, RATE * SECONDS);
  await startInstances(t, setting, INSTANCES);
  const ended = new Map<number, number>();
  const startedAt = performance.now();
  const work = endTasks(setting, ids, ended).then(() => (performance.now() - startedAt) / 1000);
  const [lags, took] = await Promise.all([watch(setting, ended, ids.length), work]);
  const rate = ids.length / took;
  const at = (share: number): string => (lags[Math.floor((lags.length - 1) * share)] ?? Number.NaN).toFixed(0);
  console.log(
    `${ids.length} executions ended, ${rate.toFixed(0)} a second (${RATE} wanted), ${INSTANCES} instances; ${ids.length - lags.length} never seen final`,
  );
  console.log(`lag: median ${at(0.5)} ms, p95 ${at(0.95)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms`);
});
