/**
 * Replication's way to Temporal: launching runs under the id that is their lock, reaching them while they go on, and the small workflows around
 * them. What an id, a memo or a closed run mean is known here; what follows from it is decided by src/replication/runs.
 */
import { ScheduleOverlapPolicy, WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError } from "@temporalio/client";
import type { Client, WorkflowExecutionDescription } from "@temporalio/client";
import { WorkflowIdConflictPolicy, WorkflowIdReusePolicy } from "@temporalio/common";
import type { SearchAttributePair } from "@temporalio/common";
import type { replicate } from "../../workflows/replication/replicate.ts";
import type { replicationReconcile } from "../../workflows/replication/reconcile.ts";
import type { replicationTrigger } from "../../workflows/replication/trigger.ts";
import { isSlipwayError } from "../core/errors.ts";
import type { ReplicationRequest, RunKind, RunTrigger } from "../replication/plan/run.ts";
import type { CallOptions, TemporalConnection } from "./connection.ts";
import { scheduleIds, workflowIds } from "./ids.ts";
import { taskQueues } from "./queues.ts";
import { ensureSearchAttributes, searchAttributeKeys } from "./search-attributes.ts";

export interface Launch {
  readonly request: ReplicationRequest;
  readonly kind: RunKind;
  /** Runs of the policy may go on side by side. */
  readonly mayOverlap: boolean;
  /** For the operator who looks at the list of workflows. */
  readonly policyName: string;
  readonly sourceRegistryId: number;
  readonly targetRegistryIds: readonly number[];
}

export type LaunchOutcome =
  | { readonly outcome: "started" }
  /** Another run holds the id; null when it does not tell which execution it is of. */
  | { readonly outcome: "active"; readonly executionId: number | null };

export interface RunAddress {
  readonly workflowId: string;
  /** The first of the chain. */
  readonly runId: string;
}

/** What the service knows of a run: it goes on, or how it ended; "unknown" when it was forgotten. */
export type RunState = { readonly open: true } | { readonly open: false; readonly status: string };

/** Events of one policy that come close together make one run. */
export const EVENT_DEBOUNCE_MS = 2_000;
export const RECONCILE_EVERY_MS = 120_000;

export class ReplicationWorkflows {
  readonly #temporal: TemporalConnection;
  #attributesRegistered: boolean | undefined;

  constructor(temporal: TemporalConnection) {
    this.#temporal = temporal;
  }

  get namespace(): string {
    return this.#temporal.namespace;
  }

  /** Starts the run unless its id is taken by another one; a repeated launch of the same execution is "started". */
  async launch(launch: Launch, options: CallOptions = {}): Promise<LaunchOutcome> {
    this.#attributesRegistered ??= await ensureSearchAttributes(this.#temporal, options);
    const attributes = this.#attributesRegistered ? attributesOf(launch) : [];
    const workflowId = launchId(launch);
    return this.#temporal.call(async (client) => {
      for (let attempt = 1; ; attempt += 1) {
        if (await startRun(client, launch, { workflowId, attributes })) return { outcome: "started" };
        const active = await describe(client, workflowId);
        const executionId = active ? await memoOf(active) : null;
        if (executionId === launch.request.executionId) return { outcome: "started" };
        // It closed between the two calls: the id is free again.
        if ((active === null || active.status.name !== "RUNNING") && isShared(launch) && attempt < 5) continue;
        return { outcome: "active", executionId };
      }
    }, options);
  }

  /** False when no such run is open. */
  async cancel(run: RunAddress, options: CallOptions = {}): Promise<boolean> {
    return this.#reach(run, (handle) => handle.cancel().then(() => undefined), options);
  }

  async signal(run: RunAddress, name: "pause" | "resume", options: CallOptions = {}): Promise<boolean> {
    return this.#reach(run, (handle) => handle.signal(name), options);
  }

  async state(run: RunAddress, options: CallOptions = {}): Promise<RunState> {
    const found = await this.#temporal.call((client) => describe(client, run.workflowId), options);
    if (found === null) return { open: false, status: "unknown" };
    const firstRunId = found.raw.workflowExecutionInfo?.firstRunId || found.runId;
    if (firstRunId === run.runId) {
      const { name } = found.status;
      return name === "RUNNING" ? { open: true } : { open: false, status: name.toLowerCase().replaceAll("_", " ") };
    }
    // The id went to a later run, so ours is over.
    return { open: false, status: "closed" };
  }

  /** After a moment, so that what is pushed together is replicated together; one that waits already is enough. */
  async triggerEvents(policyId: number, delayMs: number, options: CallOptions = {}): Promise<void> {
    await this.#trigger(
      {
        workflowId: workflowIds.replicationEvents(policyId),
        policyId,
        trigger: "event",
        delayMs,
        summary: "Follows changes of local content",
      },
      options,
    );
  }

  /** Starts the run that waits for the policy's active one, once that has closed. */
  async triggerWaiting(policyId: number, options: CallOptions = {}): Promise<void> {
    const workflowId = workflowIds.replicationQueue(policyId);
    await this.#trigger({ workflowId, policyId, trigger: "waiting", delayMs: 0, summary: "Starts the run that waited" }, options);
  }

  async startReconcile(options: CallOptions = {}): Promise<void> {
    const args: Parameters<typeof replicationReconcile> = [];
    await this.#temporal.call(
      (client) =>
        client.workflow.start("replicationReconcile", {
          workflowId: workflowIds.replicationReconcile,
          taskQueue: taskQueues.replication,
          args,
          workflowIdConflictPolicy: WorkflowIdConflictPolicy.USE_EXISTING,
          workflowRunTimeout: "10m",
          staticSummary: "Repairs runs and schedules of replication",
        }),
      options,
    );
  }

  /** The reconciler's own schedule; made again when somebody removed it. */
  async ensureReconcileSchedule(options: CallOptions = {}): Promise<void> {
    await this.#temporal
      .call(
        (client) =>
          client.schedule.create({
            scheduleId: scheduleIds.replicationReconcile,
            spec: { intervals: [{ every: RECONCILE_EVERY_MS }] },
            policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: RECONCILE_EVERY_MS },
            action: {
              type: "startWorkflow",
              workflowType: "replicationReconcile",
              workflowId: workflowIds.scheduleTick(scheduleIds.replicationReconcile),
              taskQueue: taskQueues.replication,
              args: [],
              workflowRunTimeout: "10m",
              staticSummary: "Repairs runs and schedules of replication",
            },
          }),
        { timeoutMs: 20_000, ...options },
      )
      .catch((error: unknown) => {
        if (!isSlipwayError(error, "CONFLICT")) throw error;
      });
  }

  async #trigger(
    what: {
      readonly workflowId: string;
      readonly policyId: number;
      readonly trigger: RunTrigger;
      readonly delayMs: number;
      readonly summary: string;
    },
    options: CallOptions,
  ): Promise<void> {
    const args: Parameters<typeof replicationTrigger> = [{ policyId: what.policyId, trigger: what.trigger }];
    await this.#temporal.call(
      (client) =>
        client.workflow.start("replicationTrigger", {
          workflowId: what.workflowId,
          taskQueue: taskQueues.replication,
          args,
          workflowIdConflictPolicy: WorkflowIdConflictPolicy.USE_EXISTING,
          staticSummary: what.summary,
          priority: { priorityKey: 2 },
          ...(what.delayMs > 0 ? { startDelay: what.delayMs } : {}),
        }),
      options,
    );
  }

  async #reach(run: RunAddress, act: (handle: Handle) => Promise<void>, options: CallOptions): Promise<boolean> {
    try {
      await this.#temporal.call(
        (client) => act(client.workflow.getHandle(run.workflowId, undefined, { firstExecutionRunId: run.runId })),
        options,
      );
      return true;
    } catch (error) {
      if (isSlipwayError(error, "NOT_FOUND")) return false;
      throw error;
    }
  }
}

type Handle = ReturnType<Client["workflow"]["getHandle"]>;

function isShared({ kind, mayOverlap }: Launch): boolean {
  return kind === "copy" && !mayOverlap;
}

function launchId(launch: Launch): string {
  const { policyId, executionId } = launch.request;
  if (launch.kind !== "copy") return workflowIds.replicationSurvey(executionId);
  return launch.mayOverlap ? workflowIds.replicationRun(policyId, executionId) : workflowIds.replication(policyId);
}

/** False when the id is taken. */
async function startRun(
  client: Client,
  launch: Launch,
  { workflowId, attributes }: { workflowId: string; attributes: SearchAttributePair[] },
): Promise<boolean> {
  const args: Parameters<typeof replicate> = [launch.request];
  try {
    await client.workflow.start("replicate", {
      workflowId,
      taskQueue: taskQueues.replication,
      args,
      workflowIdConflictPolicy: WorkflowIdConflictPolicy.FAIL,
      // An id of one execution alone is never used twice, also when a lost answer makes us launch it again.
      workflowIdReusePolicy: isShared(launch) ? WorkflowIdReusePolicy.ALLOW_DUPLICATE : WorkflowIdReusePolicy.REJECT_DUPLICATE,
      memo: { executionId: launch.request.executionId },
      typedSearchAttributes: attributes,
      staticSummary: summaryOf(launch),
      priority: { priorityKey: launch.request.trigger === "scheduled" ? 3 : 2, fairnessKey: `policy ${launch.request.policyId}` },
    });
    return true;
  } catch (error) {
    if (error instanceof WorkflowExecutionAlreadyStartedError) return false;
    throw error;
  }
}

async function describe(client: Client, workflowId: string): Promise<WorkflowExecutionDescription | null> {
  try {
    return await client.workflow.getHandle(workflowId).describe();
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return null;
    throw error;
  }
}

async function memoOf({ memo }: WorkflowExecutionDescription): Promise<number | null> {
  const value = memo?.["executionId"];
  return typeof value === "number" ? value : null;
}

function attributesOf({ request, sourceRegistryId, targetRegistryIds }: Launch): SearchAttributePair[] {
  return [
    { key: searchAttributeKeys.policyId, value: String(request.policyId) },
    { key: searchAttributeKeys.sourceRegistry, value: String(sourceRegistryId) },
    { key: searchAttributeKeys.targetRegistry, value: targetRegistryIds.join(",") },
    { key: searchAttributeKeys.triggerKind, value: request.trigger },
  ];
}

const TITLES: Readonly<Record<RunKind, string>> = { copy: "Replicates", "dry-run": "Plans", audit: "Audits" };

function summaryOf({ kind, policyName, request }: Launch): string {
  return `${TITLES[kind]} ${policyName.slice(0, 80)} (execution ${request.executionId})`;
}
