/** What the activities of replication are given: ways to other registries of its own, planner, copier, and what repairs runs. */
import { join } from "node:path";
import type { ReplicationServices } from "../activities/replication/services.ts";
import type { App } from "../src/app.ts";
import { createAdapters } from "../src/replication/adapters/create-adapters.ts";
import { openReplicationPool } from "../src/replication/adapters/replication-pool.ts";
import { createCopier } from "../src/replication/copy/create-copier.ts";
import { createPlanner } from "../src/replication/planning/create-planner.ts";
import { EndWatch } from "../src/replication/runs/end-watch.ts";
import { Reconciler } from "../src/replication/runs/reconciler.ts";
import { repairMetrics } from "../src/replication/runs/repair-metrics.ts";
import { announceRun } from "../src/replication/run-feed.ts";
import { registerSecret } from "../src/telemetry/redact.ts";
import type { ReplicationWorkflows } from "../src/temporal/replication.ts";

const DAY_MS = 24 * 3_600_000;

/** What it opens is closed with the application, after the workers. */
export async function createReplicationServices(app: App, workflows: ReplicationWorkflows): Promise<ReplicationServices> {
  const { replication, config, kv, closer, members, logger, metrics } = app;
  const { replication: settings, proxy } = config.settings;
  const { pool, close } = await openReplicationPool({
    kv,
    maxRequestsPerHost: settings.max_requests_per_host,
    deny: proxy.upstream_deny,
    onSecret: registerSecret,
  });
  closer.add("replication pool", close);
  const adapters = createAdapters({ ...app, ...app.proxy, pool });
  const copier = createCopier({
    ...app,
    adapters,
    stagingFolder: join(config.dataDir, "staging"),
    slots: settings.copy_slots,
    maxRequestsPerHost: settings.max_requests_per_host,
    workers: () => Math.max(1, members.known().filter((member) => member.roles.includes("replication")).length),
  });
  closer.add("copier", () => copier.close());
  metrics.addSource(() => copier.metrics());
  const eventMaxAgeMs = settings.event_retry_days * DAY_MS;
  const reconciler = new Reconciler({
    ...replication,
    workflows,
    starter: replication.control,
    schedules: (signal) => mendSchedules(app, signal),
    uploads: (signal) => copier.abandonUploads(null, signal),
    eventMaxAgeMs,
    logger,
  });
  metrics.addSource(() => repairMetrics(reconciler));
  return {
    ...replication,
    planner: createPlanner({ ...app, adapters }),
    copier,
    workflows,
    watch: new EndWatch({ books: replication.books, logger }),
    starter: replication.control,
    reconciler,
    eventMaxAgeMs,
    announce: (executionId) => announceRun(kv, executionId),
    logger,
  };
}

async function mendSchedules({ schedules, policies }: App, signal: AbortSignal): Promise<number> {
  if (schedules === null) return 0;
  return (await schedules.reconcile(await policies.listScheduled(), signal)).mended;
}
