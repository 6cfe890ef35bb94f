/**
 * So many executions of three tasks each, all marked, refreshed by instances that are processes of the refresh role: seconds from the first mark until none is left, statements of
 * Postgres and commands of Redis, each instance's share of the work and its memory. With several numbers of instances, what the first costs against the others.
 * `node test/bench/refresh-million.ts [executions] [instances,instances,...]`, with SLIPWAY_TEST_TEMPORAL_ADDRESS if there is a Temporal already. Full size: 1000000 1,2,5.
 * SLIPWAY_BENCH_DURABLE=true makes Postgres wait for the disk.
 */
import { bench, benchScope, cpuOf } from "./proxy-setting.ts";
import {
  allCommands,
  findWrong,
  markAll,
  noteChanges,
  readCosts,
  readShares,
  resetCosts,
  scans,
  seed,
  sentCommands,
  serverCpu,
  startInstances,
  startRefreshSetting,
  untilRefreshed,
} from "./refresh-setting.ts";
import type { Costs, RefreshSetting } from "./refresh-setting.ts";

const EXECUTIONS = Number(process.argv[2] ?? 60_000);
const COUNTS = (process.argv[3] ?? "5").split(",").map(Number);

async function run(setting: RefreshSetting, count: number): Promise<Costs> {
  const scope = benchScope();
  try {
    const first = await seed(setting, EXECUTIONS);
    const instances = await startInstances(scope, setting, count);
    const cpuBefore = instances.cpu();
    await noteChanges(setting);
    const ownBefore = cpuOf(process.pid);
    const before = await serverCpu(setting);
    await resetCosts(setting);
    const startedAt = performance.now();
    let markedAt = 0;
    const marking = markAll(setting, first, EXECUTIONS).then((missed) => {
      markedAt = performance.now();
      if (missed > 0) console.log(`${missed} marks were not taken by Redis in time`);
    });
    const refreshing = untilRefreshed(setting).then(() => (performance.now() - startedAt) / 1000);
    const [seconds] = await Promise.all([refreshing, marking]);
    const costs = await readCosts(setting);
    const cpu = instances.cpu() - cpuBefore;
    const own = cpuOf(process.pid) - ownBefore;
    const servers = await serverCpu(setting);
    const shares = await readShares(instances, EXECUTIONS);
    const wrong = await findWrong(setting);
    console.log(
      `\n${EXECUTIONS} executions, ${count} instances: ${seconds.toFixed(1)} s (the last mark after ${((markedAt - startedAt) / 1000).toFixed(1)} s)`,
    );
    console.log(`  statements: ${costs.statementsTotal}`);
    for (const [text, calls] of costs.statements) console.log(`    ${String(calls).padStart(7)}  ${text}`);
    console.log(`  Redis commands: ${sentCommands(costs)} sent, ${allCommands(costs)} with those inside scripts, ${scans(costs)} scans`);
    console.log(`    ${[...costs.commands].map(([name, calls]) => `${calls} ${name}`).join(", ")}`);
    console.log(`  share of each: ${shares.map((share) => `${((share / EXECUTIONS) * 100).toFixed(1)} %`).join(", ")}`);
    console.log(
      `  memory of each: ${instances
        .memory()
        .map(({ now, peak }) => `${now.toFixed(0)} MB (at most ${peak.toFixed(0)})`)
        .join(", ")}`,
    );
    console.log(
      `  CPU: instances ${cpu.toFixed(1)} s, producer ${own.toFixed(1)} s, Postgres ${(servers.postgres - before.postgres).toFixed(1)} s, Redis ${(servers.redis - before.redis).toFixed(1)} s; wrong: ${wrong}`,
    );
    return costs;
  } finally {
    await scope.close();
  }
}

await bench(async (t) => {
  const setting = await startRefreshSetting(t);
  const all: Costs[] = [];
  for (const count of COUNTS) all.push(await run(setting, count));
  const base = all[0];
  if (!base || all.length < 2) return;
  console.log(`\nagainst ${COUNTS[0]} instances:`);
  for (const [index, costs] of all.entries()) {
    const growth = (now: number, then: number): string => `${(((now - then) / then) * 100).toFixed(1)} %`;
    console.log(
      `  ${COUNTS[index]}: statements ${growth(costs.statementsTotal, base.statementsTotal)}, Redis commands sent ${growth(sentCommands(costs), sentCommands(base))}, all ${growth(allCommands(costs), allCommands(base))}`,
    );
  }
});
