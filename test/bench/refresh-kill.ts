/**
 * kill -9 of some of the refreshing instances in the middle of the work, against the same without: whether all of it is refreshed, whether anything is lost or wrong, and how much later.
 * `node test/bench/refresh-kill.ts [executions] [instances] [of these killed] [rounds]`, with SLIPWAY_TEST_TEMPORAL_ADDRESS if there is a Temporal already. Full size: 1000000 5 2 1.
 */
import { median } from "./http-load.ts";
import { bench, benchScope } from "./proxy-setting.ts";
import { findWrong, markAll, noteChanges, seed, startInstances, startRefreshSetting, untilRefreshed } from "./refresh-setting.ts";
import type { RefreshSetting } from "./refresh-setting.ts";

const EXECUTIONS = Number(process.argv[2] ?? 60_000);
const INSTANCES = Number(process.argv[3] ?? 5);
const KILLED = Number(process.argv[4] ?? 2);
const ROUNDS = Number(process.argv[5] ?? 1);

async function seconds(setting: RefreshSetting, killed: number): Promise<number> {
  const scope = benchScope();
  try {
    const first = await seed(setting, EXECUTIONS);
    const instances = await startInstances(scope, setting, INSTANCES);
    await noteChanges(setting);
    const startedAt = performance.now();
    const marking = markAll(setting, first, EXECUTIONS);
    let left = EXECUTIONS;
    let leftAtKill = 0;
    const victims = instances.processes.slice(0, killed);
    const refreshing = untilRefreshed(setting, async () => {
      if (victims.length === 0) return;
      left = await countOpen(setting);
      if (left > EXECUTIONS * 0.6) return;
      for (const victim of victims.splice(0)) victim.child.kill("SIGKILL");
      leftAtKill = left;
    });
    const [took] = await Promise.all([refreshing.then(() => (performance.now() - startedAt) / 1000), marking]);
    if (victims.length > 0) throw new Error("it was over before anybody was killed: take more executions");
    const wrong = await findWrong(setting);
    const what = killed === 0 ? "nobody killed" : `${killed} of ${INSTANCES} killed with ${leftAtKill} left`;
    console.log(`  ${what}: ${took.toFixed(1)} s, ${await countOpen(setting)} not refreshed, ${wrong} wrong`);
    return took;
  } finally {
    await scope.close();
  }
}

async function countOpen({ database }: RefreshSetting): Promise<number> {
  const { rows } = await database.query<{ count: number }>("SELECT count(*) AS count, 1 AS bench FROM executions WHERE ended_at IS NULL");
  return rows[0]?.count ?? Number.NaN;
}

await bench(async (t) => {
  const setting = await startRefreshSetting(t);
  console.log(`${EXECUTIONS} executions, ${INSTANCES} instances`);
  const calm: number[] = [];
  const killed: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    calm.push(await seconds(setting, 0));
    killed.push(await seconds(setting, KILLED));
  }
  console.log(`with the kill ${(median(killed) - median(calm)).toFixed(1)} s later`);
});
