/** The worker roles of a process. Only a process that has one loads Temporal's native part. */
import type { App } from "../src/app.ts";
import { RefreshInstances } from "../src/execution/refresh/instances.ts";
import { addRefreshMetrics } from "../src/execution/refresh/refresh-metrics.ts";
import type { TemporalConnection } from "../src/temporal/connection.ts";
import { createMaintenanceStarters } from "../src/temporal/maintenance.ts";
import { maintenanceSchedules } from "../src/temporal/schedules.ts";
import { createActivityServices } from "./activity-services.ts";
import { createReplicationServices } from "./replication-services.ts";
import { maintenanceRole } from "./roles/maintenance.ts";
import { refreshRoles } from "./roles/refresh.ts";
import { replicationRoles } from "./roles/replication.ts";
import { workerMetrics } from "./runtime.ts";
import { startWorkerGroup } from "./worker-group.ts";
import type { WorkerGroup, WorkerRole } from "./worker-group.ts";

/** Null when this process has no worker role, or there is no Temporal to work for. */
export async function startWorkers(app: App): Promise<WorkerGroup | null> {
  const { temporal, config } = app;
  if (temporal === null) return null;
  const roles = [
    ...(config.roles.has("maintenance") ? [maintenance(app, temporal)] : []),
    ...(config.roles.has("replication") ? await replication(app) : []),
    ...(config.roles.has("refresh") ? refresh(app, temporal) : []),
  ];
  if (roles.length === 0) return null;
  const group = startWorkerGroup({ roles, temporal, dataDir: app.config.dataDir, logger: app.logger });
  app.metrics.addText(workerMetrics);
  app.health.add({
    name: "workers",
    // A process that also serves requests is ready without them; what waits for them waits in Temporal.
    required: !app.config.roles.has("proxy") && !app.config.roles.has("api"),
    check: async () => {
      const { ready, missing } = await group.ready();
      return ready ? undefined : missing.join("; ");
    },
  });
  return group;
}

function maintenance(app: App, temporal: TemporalConnection): WorkerRole {
  const starters = createMaintenanceStarters(temporal);
  const { maintenance: settings, cache } = app.config.settings;
  return maintenanceRole({
    services: createActivityServices(app, starters),
    temporal,
    starters,
    schedules: maintenanceSchedules({
      garbageCollectionCron: unlessOff(settings.gc_cron),
      // Without a limit it only frees what a purge or a moved tag left behind.
      evictionCron: "*/10 * * * *",
      keepingCron: "* * * * *",
      executionReconcileCron: "29 * * * *",
      warmUpCron: unlessOff(cache.warm_up_cron),
    }),
  });
}

async function replication(app: App): Promise<WorkerRole[]> {
  const { workflows } = app.replication;
  if (workflows === null) return [];
  const services = await createReplicationServices(app, workflows);
  return replicationRoles({ services, workflows, copySlots: app.config.settings.replication.copy_slots });
}

function refresh(app: App, temporal: TemporalConnection): WorkerRole[] {
  const { members, config, database, logger } = app;
  const instances = new RefreshInstances({ members, fixed: config.refreshShard, slots: config.settings.refresh.slots });
  app.health.add({
    name: "refresh",
    required: false,
    check: () => Promise.resolve(instances.problems().join("; ") || undefined),
  });
  addRefreshMetrics(app.metrics, { ...app.refresh, instances, clock: app.clock });
  const checkDatabase = (): Promise<unknown> => database.query("SELECT 1");
  return refreshRoles({ refresher: app.refresh.refresher, instances, temporal, logger, checkDatabase });
}

function unlessOff(cron: string): string | null {
  return cron === "off" ? null : cron;
}
