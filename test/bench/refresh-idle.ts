/**
 * What refreshing instances cost while there is nothing to refresh: actions of Temporal (runs, activities and their further attempts, timers; heartbeats apart), statements,
 * commands of Redis, CPU, each by the minute and instance. `node test/bench/refresh-idle.ts [seconds] [instances]`, with SLIPWAY_TEST_TEMPORAL_ADDRESS if there is a Temporal
 * already. Full size: 300 5. Each hour the slots change hands, which is one action for each instance and three more, 0.03 a minute.
 */
import { setTimeout as delay } from "node:timers/promises";
import { workflowIds } from "../../src/temporal/ids.ts";
import { bench } from "./proxy-setting.ts";
import { allCommands, readCosts, resetCosts, startInstances, startRefreshSetting } from "./refresh-setting.ts";
import type { RefreshSetting } from "./refresh-setting.ts";

const SECONDS = Number(process.argv[2] ?? 60);
const INSTANCES = Number(process.argv[3] ?? 5);

/** Events that each are an action, in all runs so far, and attempts of activities after the first. */
async function countActions({ temporal }: RefreshSetting): Promise<number> {
  return temporal.call(
    async (client) => {
      let actions = 0;
      for await (const { runId } of client.workflow.list({ query: `WorkflowId = '${workflowIds.executionRefresh}'` })) {
        const handle = client.workflow.getHandle(workflowIds.executionRefresh, runId);
        const { events } = await handle.fetchHistory();
        for (const event of events ?? [])
          if (
            event.workflowExecutionStartedEventAttributes ||
            event.activityTaskScheduledEventAttributes ||
            event.timerStartedEventAttributes
          )
            actions += 1;
        const { raw } = await handle.describe();
        for (const { attempt } of raw.pendingActivities ?? []) actions += Math.max(0, (attempt ?? 1) - 1);
      }
      return actions;
    },
    { timeoutMs: 60_000 },
  );
}

await bench(async (t) => {
  const setting = await startRefreshSetting(t);
  const instances = await startInstances(t, setting, INSTANCES);
  // Leaves what the start brings with it behind.
  await delay(15_000);
  await resetCosts(setting);
  const cpuBefore = instances.cpu();
  const before = await countActions(setting);
  await delay(SECONDS * 1000);
  const costs = await readCosts(setting);
  const actions = (await countActions(setting)) - before;
  const perMinute = (count: number): string => ((count * 60) / SECONDS / INSTANCES).toFixed(2);
  console.log(`${INSTANCES} idle instances for ${SECONDS} s: ${actions} actions of Temporal (${before} at the start)`);
  console.log(
    `by the minute and instance: ${perMinute(actions)} actions, ${perMinute(costs.statementsTotal)} statements, ${perMinute(allCommands(costs))} Redis commands, ${perMinute(instances.cpu() - cpuBefore)} s of CPU`,
  );
  for (const [text, calls] of costs.statements) console.log(`    ${String(calls).padStart(7)}  ${text}`);
  console.log(`    ${[...costs.commands].map(([name, calls]) => `${calls} ${name}`).join(", ")}`);
});
