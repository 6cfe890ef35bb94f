/** Planning steps and the closing of a run. The first step gives the execution to the run; the last one closes the books where nothing is to be copied. */
import { Context } from "@temporalio/activity";
import type { Execution } from "../../src/execution/execution-store.ts";
import type { PlannedStep, ReplicationRequest } from "../../src/replication/plan/run.ts";
import { withHeartbeat } from "../shared/heartbeat.ts";
import type { ReplicationServices } from "./services.ts";

export interface PlanRequest {
  readonly request: ReplicationRequest;
  /** The first of the chain, which continuing as new does not change. */
  readonly runId: string;
  readonly cursor: string | null;
}

export interface StepPlanned extends PlannedStep {
  /** The execution is over: nothing had to be copied, or it was stopped. */
  readonly closed: RunClosed | null;
}

export interface RunClosed {
  readonly status: string;
  readonly message: string;
  readonly succeeded: number;
  readonly failed: number;
}

export interface CloseRequest {
  readonly request: ReplicationRequest;
  /** Null: its tasks say how it ended. */
  readonly end: { readonly status: "Stopped" | "Error"; readonly message: string } | null;
}

const NOTHING_TO_DO = "no resources need to be replicated";
const LEFT_BEHIND = "the run ended before this was done";

export function planningActivities(services: ReplicationServices) {
  return {
    planReplication: ({ request, runId, cursor }: PlanRequest): Promise<StepPlanned> => {
      let reached = cursor;
      return withHeartbeat(
        () => reached,
        (signal) =>
          services.watch
            .during(request.executionId, signal, async (watched) => {
              if (cursor === null && !(await adopt(services, request, runId))) return closedStep(await closed(services, request));
              const { executionId } = request;
              const step = await services.planner.step({ executionId, cursor }, watched, (at) => {
                reached = at;
              });
              // With batches the books are closed later: were this answer lost, the repeated step could not tell them any more.
              if (step.next !== null || step.batches.length > 0) return { ...step, closed: null };
              const ended = await services.executions.completePlanning(executionId, NOTHING_TO_DO);
              if (ended === null || ended.endedAt === null) return { ...step, closed: null };
              await afterRun(services, request);
              return { ...step, closed: toClosed(ended) };
            })
            .then(async (step) => step ?? closedStep(await closed(services, request)))
            .finally(() => services.announce(request.executionId)),
      );
    },

    closeReplication: ({ request, end }: CloseRequest): Promise<RunClosed> =>
      withHeartbeat(
        () => null,
        async () => {
          await settle(services, request.executionId, end);
          return closed(services, request);
        },
      ),
  };
}

/** False when the execution was ended, or belongs to another run. */
async function adopt(
  { executions, events }: ReplicationServices,
  { executionId, policyId, trigger }: ReplicationRequest,
  runId: string,
): Promise<boolean> {
  const { workflowExecution } = Context.current().info;
  if (workflowExecution === undefined) throw new Error("planning belongs to a workflow");
  const { workflowId } = workflowExecution;
  const adopted = await executions.adopt(executionId, { workflowId, runId });
  if (adopted === null) return false;
  if (trigger === "event") await events.take(policyId, executionId);
  return true;
}

async function settle({ executions, books }: ReplicationServices, executionId: number, end: CloseRequest["end"]): Promise<void> {
  if (end === null) await executions.completePlanning(executionId, NOTHING_TO_DO);
  else {
    await books.endOpen(executionId, end);
    await executions.end(executionId, end.status, end.message);
  }
  await executions.settle([executionId]);
  const execution = await executions.find(executionId);
  if (execution === null || execution.endedAt !== null) return;
  await books.endOpen(executionId, { status: "Error", message: LEFT_BEHIND });
  await executions.settle([executionId]);
}

async function closed(services: ReplicationServices, request: ReplicationRequest): Promise<RunClosed> {
  await afterRun(services, request);
  services.announce(request.executionId);
  const execution = await services.executions.find(request.executionId);
  if (execution === null) return { status: "Stopped", message: "the execution was removed", succeeded: 0, failed: 0 };
  return toClosed(execution);
}

/**
 * What follows a run: changes that it could not carry out wait for another, and what waited for it is started. Failing that, the reconciler
 * does it.
 */
async function afterRun(
  { events, runs, workflows, books, copier, eventMaxAgeMs, logger }: ReplicationServices,
  { executionId, policyId }: ReplicationRequest,
): Promise<void> {
  try {
    await books.setCancelling(executionId, false);
    await events.release(executionId, eventMaxAgeMs);
    if ((await runs.waiting(policyId)) !== null) await workflows.triggerWaiting(policyId);
    else if (await events.isDue(policyId)) await workflows.triggerEvents(policyId, 0);
    await copier.abandonUploads(executionId, Context.current().cancellationSignal);
  } catch (error) {
    logger.warn({ execution: executionId, policy: policyId, error }, "what follows a run is left to the reconciler");
  }
}

function closedStep(run: RunClosed): StepPlanned {
  return { batches: [], next: null, closed: run };
}

function toClosed({ status, statusMessage, tasks }: Execution): RunClosed {
  return { status, message: statusMessage.slice(0, 500), succeeded: tasks.succeeded, failed: tasks.failed };
}
