/** The worker of the maintenance role: expiry, collection, retention and the outbox relay. */
import { Worker } from "@temporalio/worker";
import { createActivities } from "../../activities/index.ts";
import type { ActivityServices } from "../../activities/services.ts";
import type { CallOptions, TemporalConnection } from "../../src/temporal/connection.ts";
import type { MaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { taskQueues } from "../../src/temporal/queues.ts";
import type { MaintenanceSchedule, ScheduleOutcome } from "../../src/temporal/schedules.ts";
import { ensureSchedules } from "../../src/temporal/schedules.ts";
import { commonWorkerOptions } from "../options.ts";
import type { RoleContext, WorkerRole } from "../worker-group.ts";

export interface MaintenanceRoleOptions {
  readonly services: ActivityServices;
  readonly temporal: TemporalConnection;
  readonly starters: Pick<MaintenanceStarters, "startOutboxRelay" | "startReconcile">;
  readonly schedules: readonly MaintenanceSchedule[];
}

/** Batches of several jobs and the relay's long turn at once. */
const CONCURRENT_ACTIVITIES = 20;

export function maintenanceRole(options: MaintenanceRoleOptions): WorkerRole {
  return {
    name: "maintenance",
    async prepare(signal) {
      await prepareMaintenance(options, { signal });
      await reconcileFirst(options, signal);
    },
    async create({ connection, namespace, bundlePath, stopping }: RoleContext) {
      return Worker.create({
        ...commonWorkerOptions,
        connection,
        namespace,
        taskQueue: taskQueues.maintenance,
        workflowBundle: { codePath: bundlePath },
        activities: createActivities(options.services, stopping),
        maxCachedWorkflows: 20,
        maxConcurrentActivityTaskExecutions: CONCURRENT_ACTIVITIES,
        maxConcurrentWorkflowTaskExecutions: 10,
      });
    },
  };
}

/** A new database over storage that has content already: its rows are rebuilt, once. */
async function reconcileFirst({ services: { rebuilder, logger }, starters }: MaintenanceRoleOptions, signal: AbortSignal): Promise<void> {
  try {
    if (!(await rebuilder.isDue(signal))) return;
    const { outcome } = await starters.startReconcile({ trigger: "event" }, { signal });
    logger.info({ outcome }, "storage has content from before this database: its rows are being rebuilt");
  } catch (error) {
    logger.warn({ error }, "whether rows have to be rebuilt could not be found out; `slipway reconcile run` does it");
  }
}

/** Schedules and the relay; done before the worker polls, again for every new worker, and harmless however often. */
export async function prepareMaintenance(
  {
    temporal,
    schedules,
    starters,
  }: Pick<MaintenanceRoleOptions, "temporal" | "schedules"> & { readonly starters: Pick<MaintenanceStarters, "startOutboxRelay"> },
  options: CallOptions = {},
): Promise<Map<string, ScheduleOutcome>> {
  const outcomes = await ensureSchedules(temporal, schedules, options);
  await starters.startOutboxRelay(options);
  return outcomes;
}
