/** The refresh as a workflow over real instances: joining, leaving, being unwell, not picking up, being killed. */
import { test } from "node:test";
import type { TestContext } from "node:test";
import assert from "node:assert/strict";
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Database } from "../../src/db/pool.ts";
import { RefreshInstances } from "../../src/execution/refresh/instances.ts";
import type { Refresh } from "../../src/execution/refresh/open-refresh.ts";
import { Members } from "../../src/kv/members.ts";
import { workflowIds } from "../../src/temporal/ids.ts";
import { queryRefresh } from "../../src/temporal/refresh.ts";
import { workflowBundle } from "../../workers/bundle.ts";
import { eventually, quietLogger } from "../support/maintenance.ts";
import type { InstanceSettings } from "../support/refresh-instance-child.ts";
import { countByStatus, openTestKv, seedExecutions, SLOTS, testPrefix, testRefresh } from "../support/refresh.ts";
import { scope } from "../support/scope.ts";
import { missingRedis, testDatabase, testRedisUrl } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";

const CHILD = fileURLToPath(new URL("../support/refresh-instance-child.ts", import.meta.url));

interface Instance {
  readonly bootId: string;
  readonly child: ChildProcess;
}

async function startInstance(t: Pick<TestContext, "after">, settings: InstanceSettings): Promise<Instance> {
  const child = fork(CHILD, [JSON.stringify(settings)], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  const [{ bootId }] = (await once(child, "message")) as [{ bootId: string }];
  return { bootId, child };
}

async function refreshed(database: Database, refresh: Refresh): Promise<void> {
  const ids = await seedExecutions(database, 300);
  await refresh.marker.markAll(ids.map((id) => ({ id, vendor: "REPLICATION" })));
  await eventually("everything is refreshed", async () => (await countByStatus(database))["Running"] === undefined, 20_000);
}

test(
  "slots follow the instances that are there, well and working, and executions are refreshed all the while",
  { skip: missingRedis() },
  async (t) => {
    const end = scope(t);
    const { database, url } = await testDatabase(end);
    const { address, namespace, temporal } = await testNamespace(end);
    const prefix = testPrefix();
    const kv = await openTestKv(end, "redis", database, prefix);
    const refresh = testRefresh({ kv, database, logger: quietLogger });
    const redisUrl = await testRedisUrl();
    const dataDir = await tempDir(end);
    // Here, so that it does not count into the time that an instance takes.
    await workflowBundle(dataDir);
    const settings = { address, namespace, databaseUrl: url, redisUrl, prefix, dataDir, fixed: null };

    /** Waits until exactly these hold slots, evenly. */
    async function held(what: string, ...instances: readonly Instance[]): Promise<void> {
      await eventually(
        what,
        async () => {
          const view = await queryRefresh(temporal).catch(() => null);
          const sizes = new Map(view?.holdings.map(({ bootId, slots }) => [bootId, slots.length]));
          return sizes.size === instances.length && instances.every(({ bootId }) => sizes.get(bootId) === SLOTS / instances.length);
        },
        60_000,
      );
    }

    const one = await startInstance(end, settings);
    await held("the first holds all", one);
    const two = await startInstance(end, settings);
    await held("two share", one, two);
    await refreshed(database, refresh);

    const run = (): Promise<{ runId: string; historyLength: number }> =>
      temporal.call((client) => client.workflow.getHandle(workflowIds.executionRefresh).describe());
    const before = await run();
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    const after = await run();
    assert.deepEqual([after.runId, after.historyLength], [before.runId, before.historyLength], "while nothing changes nothing is done");

    one.child.send({ well: false });
    await held("an unwell instance loses its slots", two);
    await refreshed(database, refresh);
    one.child.send({ well: true });
    await held("and gets them back", one, two);

    const ghost = await Members.join(kv, { bootId: randomUUID(), host: "ghost", address: null, roles: ["refresh"] });
    await new RefreshInstances({ members: ghost, fixed: null, slots: SLOTS }).announce(true);
    await eventually(
      "an instance that picks up nothing is found out",
      async () => (await queryRefresh(temporal).catch(() => null))?.suspects.includes(ghost.bootId),
      30_000,
    );
    await held("and has no slots", one, two);
    await ghost.leave();

    two.child.kill("SIGKILL");
    await held("a killed instance loses its slots", one);
    await refreshed(database, refresh);
  },
);

test("fixed numbers are announced, and their gaps and duplicates told", async (t) => {
  const end = scope(t);
  const { database } = await testDatabase(end);
  const kv = await openTestKv(end, "postgres", database);
  const instances: RefreshInstances[] = [];
  for (const id of [0, 2, 2]) {
    const members = await Members.join(kv, { bootId: randomUUID(), host: `core-${id}`, address: null, roles: ["refresh"] });
    end.after(() => members.leave());
    const instance = new RefreshInstances({ members, fixed: { id, total: 3 }, slots: SLOTS });
    await instance.announce(true);
    instances.push(instance);
  }
  const last = instances.at(-1);
  assert.deepEqual(last?.problems(), ["instance id 2 of 3 is used by core-2 and by core-2", "instance id 1 of 3 is missing"]);
  await last.announce(false);
  assert.deepEqual(last.problems(), ["instance id 1 of 3 is missing"]);
  assert.equal(last.known().length, 2);
});
