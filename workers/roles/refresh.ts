/**
 * The workers of the refresh role: one runs the refresh workflow and watches the instances for it, the other takes this instance's share from a task
 * queue of its own. The instance announces itself while its worker polls and its database answers.
 */
import { Worker } from "@temporalio/worker";
import { refreshActivities } from "../../activities/refresh/refresh.ts";
import { sleep } from "../../src/core/clock.ts";
import type { RefreshInstances } from "../../src/execution/refresh/instances.ts";
import type { Refresher } from "../../src/execution/refresh/refresher.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import type { TemporalConnection } from "../../src/temporal/connection.ts";
import { refreshInstanceQueue, taskQueues } from "../../src/temporal/queues.ts";
import { startExecutionRefresh } from "../../src/temporal/refresh.ts";
import { commonWorkerOptions } from "../options.ts";
import type { WorkerRole } from "../worker-group.ts";

export interface RefreshRoleOptions {
  readonly refresher: Pick<Refresher, "hold" | "isWell" | "noteRecovery">;
  readonly instances: RefreshInstances;
  readonly temporal: TemporalConnection;
  readonly logger: Logger;
  /** Throws when the database does not answer. */
  readonly checkDatabase: () => Promise<unknown>;
}

/** An activity that replaces another overlaps with it. */
const INSTANCE_ACTIVITIES = 5;
const PRESENCE_MS = 1_000;
const DATABASE_DEADLINE_MS = 2_000;

export function refreshRoles(options: RefreshRoleOptions): WorkerRole[] {
  const { instances, temporal } = options;
  return [
    {
      name: "refresh",
      prepare: async (signal) => void (await startExecutionRefresh(temporal, { signal })),
      create: ({ connection, namespace, bundlePath, stopping }) =>
        Worker.create({
          ...commonWorkerOptions,
          connection,
          namespace,
          taskQueue: taskQueues.refresh,
          workflowBundle: { codePath: bundlePath },
          activities: refreshActivities(options, stopping),
          maxCachedWorkflows: 2,
          // The run must go on at once when the process that had it in memory is gone.
          stickyQueueScheduleToStartTimeout: 1_000,
          maxConcurrentActivityTaskExecutions: INSTANCE_ACTIVITIES,
          maxConcurrentActivityTaskPolls: 1,
        }),
    },
    {
      name: "refresh-instance",
      async create({ connection, namespace, stopping }) {
        const worker = await Worker.create({
          ...commonWorkerOptions,
          connection,
          namespace,
          taskQueue: refreshInstanceQueue(instances.host, instances.bootId),
          activities: refreshActivities(options, stopping),
          maxConcurrentActivityTaskExecutions: INSTANCE_ACTIVITIES,
          // Every instance has such a queue, and the service bears a limited number of polls.
          maxConcurrentActivityTaskPolls: 1,
        });
        void keepPresence(worker, options, stopping);
        return worker;
      },
    },
  ];
}

/** From the start of the worker to its end. */
async function keepPresence(worker: Worker, options: RefreshRoleOptions, stopping: AbortSignal): Promise<void> {
  const { instances, logger } = options;
  for (let ended = false; !ended;) {
    const state = worker.getState();
    ended = stopping.aborted || state === "STOPPED" || state === "FAILED" || state === "DRAINED";
    const takesPart = !ended && state === "RUNNING" && (await isWell(options));
    const before = instances.announced;
    try {
      await instances.announce(takesPart);
      if (before !== takesPart)
        logger.info({ takesPart }, takesPart ? "this instance takes part in the refresh" : "this instance refreshes nothing");
    } catch (error) {
      logger.debug({ error }, "the instance could not announce itself, it tries again");
    }
    if (!ended) await sleep(PRESENCE_MS, stopping).catch(() => undefined);
  }
}

async function isWell({ refresher, checkDatabase, logger }: RefreshRoleOptions): Promise<boolean> {
  if (refresher.isWell()) return true;
  const deadline = new AbortController();
  try {
    const late = sleep(DATABASE_DEADLINE_MS, deadline.signal).then(() => Promise.reject(new Error("no answer in time")));
    late.catch(() => undefined);
    await Promise.race([checkDatabase(), late]);
    refresher.noteRecovery();
    return true;
  } catch (error) {
    logger.debug({ error }, "the database does not answer this instance");
    return false;
  } finally {
    deadline.abort();
  }
}
