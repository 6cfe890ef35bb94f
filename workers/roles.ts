/** The worker roles of a process. Only a process that has one loads Temporal's native part. */
import type { App } from "../src/app.ts";
import { createMaintenanceStarters } from "../src/temporal/maintenance.ts";
import { maintenanceSchedules } from "../src/temporal/schedules.ts";
import { createActivityServices } from "./activity-services.ts";
import { maintenanceRole } from "./roles/maintenance.ts";
import { workerMetrics } from "./runtime.ts";
import { startWorkerGroup } from "./worker-group.ts";
import type { WorkerGroup, WorkerRole } from "./worker-group.ts";

/** Null when this process has no worker role, or there is no Temporal to work for. */
export function startWorkers(app: App): WorkerGroup | null {
  const { temporal } = app;
  if (temporal === null || !app.config.roles.has("maintenance")) return null;
  const starters = createMaintenanceStarters(temporal);
  const { maintenance, cache } = app.config.settings;
  const roles: WorkerRole[] = [
    maintenanceRole({
      services: createActivityServices(app, starters),
      temporal,
      starters,
      schedules: maintenanceSchedules({
        garbageCollectionCron: unlessOff(maintenance.gc_cron),
        // Without a limit it only frees what a purge or a moved tag left behind.
        evictionCron: "*/10 * * * *",
        keepingCron: "* * * * *",
        warmUpCron: unlessOff(cache.warm_up_cron),
      }),
    }),
  ];
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

function unlessOff(cron: string): string | null {
  return cron === "off" ? null : cron;
}
