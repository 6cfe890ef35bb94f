/** A refreshing instance as a process of its own, with real workers, for tests that kill it or make it unwell. */
import { randomUUID } from "node:crypto";
import { Database } from "../../src/db/pool.ts";
import { RefreshInstances } from "../../src/execution/refresh/instances.ts";
import type { FixedShard } from "../../src/execution/plan/assignment.ts";
import { Members } from "../../src/kv/members.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { TemporalConnection } from "../../src/temporal/connection.ts";
import { refreshRoles } from "../../workers/roles/refresh.ts";
import { startWorkerGroup } from "../../workers/worker-group.ts";
import { testLogger } from "./maintenance.ts";
import { SLOTS, testRefresh } from "./refresh.ts";

export interface InstanceSettings {
  readonly address: string;
  readonly namespace: string;
  readonly databaseUrl: string;
  readonly redisUrl: string | null;
  readonly prefix: string;
  readonly dataDir: string;
  readonly fixed: FixedShard | null;
}

const settings = JSON.parse(process.argv[2] ?? "{}") as InstanceSettings;
const database = new Database({ url: settings.databaseUrl, poolSize: 4 });
const temporal = new TemporalConnection({ address: settings.address, namespace: settings.namespace });
const kv = await openKv({ redisUrl: settings.redisUrl, database, prefix: settings.prefix });
const bootId = randomUUID();
const members = await Members.join(kv, { bootId, host: "test", address: null, roles: ["refresh"] });
const { refresher } = testRefresh({ kv, database, logger: testLogger });
let well = true;
process.on("message", (message: { well: boolean }) => {
  well = message.well;
});
startWorkerGroup({
  roles: refreshRoles({
    refresher: {
      hold: (holding, signal) => refresher.hold(holding, signal),
      isWell: () => well,
      noteRecovery: () => undefined,
    },
    instances: new RefreshInstances({ members, fixed: settings.fixed, slots: SLOTS }),
    temporal,
    logger: testLogger,
    checkDatabase: () => Promise.reject(new Error("the test says so")),
  }),
  temporal,
  dataDir: settings.dataDir,
  logger: testLogger,
});
process.send?.({ bootId });
