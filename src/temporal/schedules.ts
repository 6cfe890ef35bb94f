/**
 * Temporal schedules of the maintenance work. They are compared with what the configuration says at every start, and only changed when they
 * differ: an update makes the service forget ticks that were missed while it was away.
 */
import type { Client, ScheduleDescription } from "@temporalio/client";
import { ScheduleOverlapPolicy } from "@temporalio/client";
import { isSlipwayError } from "../core/errors.ts";
import type { maintenanceTick } from "../../workflows/maintenance/tick.ts";
import type { CallOptions, TemporalConnection } from "./connection.ts";
import { parseCron } from "./cron.ts";
import { scheduleIds, workflowIds } from "./ids.ts";
import type { MaintenanceTick } from "./plan/maintenance.ts";
import { taskQueues } from "./queues.ts";
import { isSameSchedule } from "./schedule-spec.ts";

export interface MaintenanceSchedule {
  readonly id: string;
  /** Null: no schedule, and one that exists is removed. */
  readonly cron: string | null;
  readonly tick: MaintenanceTick;
}

export interface MaintenanceScheduleOptions {
  readonly uploadExpiryCron?: string | null;
  readonly garbageCollectionCron?: string | null;
  readonly retentionCron?: string | null;
  readonly executionReconcileCron?: string | null;
  readonly evictionCron?: string | null;
  readonly keepingCron?: string | null;
  readonly warmUpCron?: string | null;
}

export type ScheduleOutcome = "unchanged" | "created" | "repaired" | "removed" | "absent";

/** Ticks that were missed for longer than this are not made up for. */
const CATCH_UP_MS = 10 * 60_000;
/** Processes that come up together hold each other up for seconds when they create the same schedule. */
const CALL_TIMEOUT_MS = 20_000;

export function maintenanceSchedules(options: MaintenanceScheduleOptions): MaintenanceSchedule[] {
  const { uploadExpiryCron = "17 * * * *", garbageCollectionCron = "0 3 * * *", retentionCron = "43 4 * * *" } = options;
  const { evictionCron = null, keepingCron = null, warmUpCron = null, executionReconcileCron = null } = options;
  return [
    { id: scheduleIds.uploadExpiry, cron: uploadExpiryCron, tick: { job: "upload-expiry" } },
    { id: scheduleIds.garbageCollection, cron: garbageCollectionCron, tick: { job: "garbage-collection" } },
    { id: scheduleIds.executionRetention, cron: retentionCron, tick: { job: "execution-retention" } },
    { id: scheduleIds.cacheEviction, cron: evictionCron, tick: { job: "cache-eviction" } },
    { id: scheduleIds.cacheKeeping, cron: keepingCron, tick: { job: "cache-keeping" } },
    { id: scheduleIds.warmUp, cron: warmUpCron, tick: { job: "cache-warm-up" } },
    { id: scheduleIds.executionReconcile, cron: executionReconcileCron, tick: { job: "execution-reconcile" } },
  ];
}

export async function ensureSchedules(
  temporal: TemporalConnection,
  schedules: readonly MaintenanceSchedule[],
  options: CallOptions = {},
): Promise<Map<string, ScheduleOutcome>> {
  const outcomes = new Map<string, ScheduleOutcome>();
  const patient = { timeoutMs: CALL_TIMEOUT_MS, ...options };
  for (const schedule of schedules) outcomes.set(schedule.id, await ensureSchedule(temporal, schedule, patient));
  return outcomes;
}

async function ensureSchedule(temporal: TemporalConnection, schedule: MaintenanceSchedule, options: CallOptions): Promise<ScheduleOutcome> {
  const existing = await describe(temporal, schedule.id, options);
  if (schedule.cron === null) {
    if (!existing) return "absent";
    await temporal.call((client) => client.schedule.getHandle(schedule.id).delete(), options).catch(ignore("NOT_FOUND"));
    return "removed";
  }
  const wanted = definition(schedule, schedule.cron);
  if (!existing) {
    const created = await temporal
      .call((client) => client.schedule.create({ scheduleId: schedule.id, ...wanted }), options)
      .catch(ignore("CONFLICT"));
    return created ? "created" : "unchanged";
  }
  if (isSameSchedule(existing, wanted)) return "unchanged";
  // The state (paused by an operator, with a note) stays as it is.
  await temporal.call((client) => client.schedule.getHandle(schedule.id).update((before) => ({ ...wanted, state: before.state })), options);
  return "repaired";
}

type Definition = Omit<Parameters<Client["schedule"]["create"]>[0], "scheduleId"> & {
  readonly action: { readonly type: "startWorkflow"; readonly workflowType: string };
};

function definition(schedule: MaintenanceSchedule, cron: string) {
  const args: Parameters<typeof maintenanceTick> = [schedule.tick];
  return {
    spec: { calendars: parseCron(cron), timezone: "UTC" },
    policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: CATCH_UP_MS },
    action: {
      type: "startWorkflow",
      workflowType: "maintenanceTick",
      workflowId: workflowIds.scheduleTick(schedule.id),
      taskQueue: taskQueues.maintenance,
      args,
      workflowRunTimeout: "10m",
      staticSummary: `Starts ${schedule.tick.job}`,
    },
  } satisfies Definition;
}

async function describe(temporal: TemporalConnection, id: string, options: CallOptions): Promise<ScheduleDescription | null> {
  return temporal.call((client) => client.schedule.getHandle(id).describe(), options).catch(ignore("NOT_FOUND"));
}

function ignore(code: "NOT_FOUND" | "CONFLICT"): (error: unknown) => null {
  return (error) => {
    if (isSlipwayError(error, code)) return null;
    throw error;
  };
}
