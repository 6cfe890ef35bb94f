/** Records histories of the workflows of the refresh, as record.ts does: `node test/replay/record-refresh.ts <version>`. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { workflowIds } from "../../src/temporal/ids.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { queryRefresh } from "../../src/temporal/refresh.ts";
import { eventually, noKv, startMaintenance, tableCollection } from "../support/maintenance.ts";
import { testPrefix } from "../support/refresh.ts";
import type { InstanceSettings } from "../support/refresh-instance-child.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";
import { saveHistory } from "./save-history.ts";

const CHILD = fileURLToPath(new URL("../support/refresh-instance-child.ts", import.meta.url));
const version = process.argv[2];
if (version === undefined || !/^v\d+$/.test(version)) throw new Error("name the version of the histories, such as v2");

const steps: (() => Promise<void> | void)[] = [];
const end = { after: (step: () => Promise<void> | void): void => void steps.push(step) };
const { database, url } = await testDatabase(end);
const { address, namespace, temporal } = await testNamespace(end);
const dataDir = await tempDir(end);

let batches = 0;
const group = startMaintenance({
  database,
  temporal,
  dataDir,
  collection: tableCollection(database, 0),
  kv: noKv,
  // Two batches for the first part.
  reconciler: { step: () => Promise.resolve({ marked: 1, ended: 0, next: (batches += 1) === 1 ? "1" : null }) },
});
const { workflowId } = await createMaintenanceStarters(temporal).startExecutionReconcile({ trigger: "manual" });
await temporal.call((client) => client.workflow.getHandle(workflowId).result(), { timeoutMs: 60_000 });
await saveHistory(temporal, `reconcile-executions-${version}`, { workflowId });
await group.close();

// A run with two instances, of which one is killed: its slots are not heartbeaten any more.
const settings: InstanceSettings = { address, namespace, databaseUrl: url, redisUrl: null, prefix: testPrefix(), dataDir, fixed: null };
const children = [0, 1].map(() => fork(CHILD, [JSON.stringify(settings)], { stdio: ["ignore", "inherit", "inherit", "ipc"] }));
const held = (count: number): Promise<unknown> =>
  eventually(
    `${count} hold slots`,
    async () => {
      const view = await queryRefresh(temporal).catch(() => null);
      return view?.holdings.length === count;
    },
    60_000,
  );
await held(2);
const run = await temporal.call((client) => client.workflow.getHandle(workflowIds.executionRefresh).describe());
const [victim, heir] = children;
victim?.kill("SIGKILL");
await held(1);
await saveHistory(temporal, `execution-refresh-${version}`, { workflowId: workflowIds.executionRefresh, runId: run.runId });
heir?.kill("SIGKILL");
for (const child of children) if (child.signalCode === null) await once(child, "exit");
for (let step = steps.pop(); step; step = steps.pop()) await step();
process.exit(0);
