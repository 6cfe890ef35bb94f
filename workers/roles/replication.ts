/** The workers of the replication role: one plans and decides, the other copies, so that bulk copying never keeps planning waiting. */
import { Worker } from "@temporalio/worker";
import { createReplicationActivities } from "../../activities/replication/index.ts";
import type { ReplicationServices } from "../../activities/replication/services.ts";
import { taskQueues } from "../../src/temporal/queues.ts";
import type { ReplicationWorkflows } from "../../src/temporal/replication.ts";
import { commonWorkerOptions } from "../options.ts";
import type { WorkerRole } from "../worker-group.ts";

export interface ReplicationRoleOptions {
  readonly services: ReplicationServices;
  readonly workflows: Pick<ReplicationWorkflows, "ensureReconcileSchedule" | "startReconcile">;
  /** Batches that are copied at once. */
  readonly copySlots: number;
}

/** Planning steps, starts and closings at once. */
const PLANNING_SLOTS = 20;
const CACHED_WORKFLOWS = 50;

export function replicationRoles({ services, workflows, copySlots }: ReplicationRoleOptions): WorkerRole[] {
  const activities = createReplicationActivities(services);
  return [
    {
      name: "replication",
      async prepare(signal) {
        await workflows.ensureReconcileSchedule({ signal });
        await workflows.startReconcile({ signal });
      },
      create: ({ connection, namespace, bundlePath }) =>
        Worker.create({
          ...commonWorkerOptions,
          connection,
          namespace,
          taskQueue: taskQueues.replication,
          workflowBundle: { codePath: bundlePath },
          activities,
          maxCachedWorkflows: CACHED_WORKFLOWS,
          maxConcurrentActivityTaskExecutions: PLANNING_SLOTS,
          maxConcurrentWorkflowTaskExecutions: 20,
        }),
    },
    {
      name: "replication-copy",
      create: ({ connection, namespace }) =>
        Worker.create({
          ...commonWorkerOptions,
          connection,
          namespace,
          taskQueue: taskQueues.replicationCopy,
          activities,
          maxConcurrentActivityTaskExecutions: copySlots,
        }),
    },
  ];
}
