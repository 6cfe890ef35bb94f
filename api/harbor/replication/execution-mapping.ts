/** Executions and tasks of replication in Harbor's JSON and words. What is ours beyond Harbor stands in further fields. */
import type { Execution } from "../../../src/execution/execution-store.ts";
import type { ExecutionStatus, ExecutionTrigger, TaskStatus } from "../../../src/execution/plan/status.ts";
import type { Task } from "../../../src/execution/task-store.ts";
import type { Item } from "../../../src/replication/item-store.ts";
import type { ItemStatus } from "../../../src/replication/plan/item.ts";
import { itemsToDo } from "../../../src/replication/run-progress.ts";
import type { Progress } from "../../../src/replication/run-progress.ts";
import type { DestinationView, RunDetail, RunSummary, TaskFilter } from "../../../src/replication/run-view.ts";
import { omitEmpty } from "../conventions.ts";

type ApiStatus = "InProgress" | "Succeed" | "Stopped" | "Failed";

/** Clients of Harbor wait for Succeed, Failed or Stopped; `state` tells what it is really. */
const STATUS_WORDS: Readonly<Record<ExecutionStatus, ApiStatus>> = {
  Pending: "InProgress",
  Running: "InProgress",
  Paused: "InProgress",
  Success: "Succeed",
  Error: "Failed",
  Stopped: "Stopped",
  Skipped: "Stopped",
};
const TASK_WORDS: Readonly<Record<TaskStatus, ApiStatus | "Pending">> = {
  Pending: "Pending",
  Scheduled: "InProgress",
  Running: "InProgress",
  Success: "Succeed",
  Error: "Failed",
  Stopped: "Stopped",
};
const TRIGGER_WORDS: Readonly<Record<ExecutionTrigger, string>> = { manual: "manual", scheduled: "scheduled", event: "event_based" };
/** Harbor's internal words work as filters too. */
const INTERNAL_TRIGGERS: Readonly<Record<string, ExecutionTrigger>> = { MANUAL: "manual", SCHEDULE: "scheduled", EVENT: "event" };

/** The states that a filter word means: what is shown by it, or a state by its own name. Empty for a word that means nothing. */
export function statusesOf(word: string): ExecutionStatus[] {
  const all = Object.keys(STATUS_WORDS) as ExecutionStatus[];
  const shown = all.filter((status) => STATUS_WORDS[status] === word);
  return shown.length > 0 ? shown : all.filter((status) => status === word);
}

export function triggersOf(word: string): ExecutionTrigger[] {
  const internal = INTERNAL_TRIGGERS[word];
  if (internal) return [internal];
  return (Object.keys(TRIGGER_WORDS) as ExecutionTrigger[]).filter((trigger) => TRIGGER_WORDS[trigger] === word);
}

/** A failed task that is tried again counts among those in progress. */
export function taskFiltersOf(word: string): TaskFilter[] {
  if (word === "InProgress") {
    return [
      { statuses: ["Scheduled", "Running"], waiting: null },
      { statuses: ["Error"], waiting: true },
    ];
  }
  if (word === "Failed" || word === "Error") return [{ statuses: ["Error"], waiting: false }];
  const all = Object.keys(TASK_WORDS) as TaskStatus[];
  const shown = all.filter((status) => TASK_WORDS[status] === word);
  const statuses = shown.length > 0 ? shown : all.filter((status) => status === word);
  return statuses.length === 0 ? [] : [{ statuses, waiting: null }];
}

const ITEM_WORDS: Readonly<Record<string, ItemStatus>> = { Succeed: "Success", Failed: "Error" };
const ITEM_STATUSES: readonly ItemStatus[] = ["Pending", "Success", "Skipped", "Error", "Stopped"];

export function itemStatusesOf(word: string): ItemStatus[] {
  return ITEM_STATUSES.filter((status) => status === (ITEM_WORDS[word] ?? word));
}

/** What Go writes for a time that is not set. */
const UNSET_TIME = "0001-01-01T00:00:00.000Z";

function timeText(time: Date | null): string {
  return time ? time.toISOString() : UNSET_TIME;
}

const ALWAYS = ["status_text", "total", "failed", "succeed", "in_progress", "stopped"];

export interface ExecutionExtras {
  readonly workflowUrl: string | null;
}

export function describeExecution({ execution, run }: RunSummary, extras: ExecutionExtras): Record<string, unknown> {
  return inOrder({ ...harborFields(execution), ...furtherFields({ execution, run }, extras) });
}

function harborFields(execution: Execution): Record<string, unknown> {
  const { tasks } = execution;
  return omitEmpty(
    {
      end_time: timeText(execution.endedAt),
      failed: tasks.failed,
      id: execution.id,
      in_progress: tasks.pending + tasks.running + tasks.waiting,
      policy_id: execution.vendorId,
      start_time: timeText(execution.startedAt ?? execution.createdAt),
      status: STATUS_WORDS[execution.status],
      status_text: execution.statusMessage,
      stopped: tasks.stopped,
      succeed: tasks.succeeded,
      total: tasks.total,
      trigger: TRIGGER_WORDS[execution.trigger],
    },
    ALWAYS,
  );
}

function furtherFields({ execution, run }: RunSummary, { workflowUrl }: ExecutionExtras): Record<string, unknown> {
  const { operator, active_execution: active } = execution.extraAttrs;
  return {
    state: execution.status,
    kind: run?.kind ?? "copy",
    ...omitEmpty({
      // The run that stood in the way of a skipped one.
      active_execution: typeof active === "number" ? active : 0,
      operator: typeof operator === "string" ? operator : "",
      queued: run?.queued ?? false,
      retry_of: run?.retryOf ?? 0,
      force: run?.force ?? false,
      workflow_url: workflowUrl,
    }),
    ...(run?.speedKb === null || run?.speedKb === undefined ? {} : { speed: run.speedKb }),
  };
}

export function describeDetail(detail: RunDetail, progress: Progress, extras: ExecutionExtras): Record<string, unknown> {
  const { execution, run } = detail;
  return inOrder({
    ...describeExecution(detail, extras),
    destinations: detail.destinations.map((destination) => describeDestination(destination, detail)),
    progress: describeProgress(progress),
    ...(run?.kind === "dry-run" ? { plan: describePlan(detail) } : {}),
    planned: execution.plannedAt !== null,
  });
}

function describeProgress(progress: Progress): Record<string, unknown> {
  return {
    bytes_copied: progress.bytesCopied,
    bytes_mounted: progress.bytesMounted,
    bytes_per_second: progress.bytesPerSecond,
    bytes_skipped: progress.bytesSkipped,
    bytes_total: progress.bytesTotal,
    items: inOrder({ ...progress.items }),
    seconds_left: progress.secondsLeft,
  };
}

/** What the run would do; the single steps are its items. Planning leaves the repositories beside the execution when it is done. */
function describePlan({ execution, items, run }: RunDetail): Record<string, unknown> {
  const { repositories = [], truncated = false } = (execution.extraAttrs["plan"] ?? {}) as Partial<StoredPlan>;
  return {
    bytes: run?.bytesTotal ?? 0,
    copy: itemsToDo(items, "copy"),
    delete: itemsToDo(items, "delete"),
    repositories: repositories.map(inOrder),
    truncated,
    unchanged: run?.itemsUnchanged ?? 0,
  };
}

interface StoredPlan {
  readonly repositories: readonly Readonly<Record<string, unknown>>[];
  readonly truncated: boolean;
}

function describeDestination(destination: DestinationView, { execution, items }: RunDetail): Record<string, unknown> {
  const here = items.filter((item) => item.position === destination.position);
  const sum = (...statuses: ItemStatus[]): number =>
    here.reduce((total, { status, count }) => total + (statuses.includes(status) ? count : 0), 0);
  return {
    bytes_copied: here.reduce((total, { bytesCopied }) => total + bytesCopied, 0),
    failed: destination.failed,
    in_progress: destination.pending + destination.running + destination.waiting,
    items: inOrder({
      failed: sum("Error"),
      pending: sum("Pending"),
      skipped: sum("Skipped"),
      stopped: sum("Stopped"),
      succeeded: sum("Success"),
    }),
    position: destination.position,
    registry_id: destination.registryId,
    registry_name: destination.registryName,
    status: STATUS_WORDS[statusOfDestination(destination, execution)],
    stopped: destination.stopped,
    succeed: destination.succeeded,
    total: destination.total,
  };
}

/** By the rule of executions: open while anything is open or still being planned, then failed before stopped before succeeded. */
function statusOfDestination(destination: DestinationView, execution: Execution): ExecutionStatus {
  if (destination.pending + destination.running + destination.waiting > 0) return execution.status === "Paused" ? "Paused" : "Running";
  if (execution.endedAt === null && execution.plannedAt === null) return execution.status;
  if (destination.failed > 0) return "Error";
  if (destination.stopped > 0) return "Stopped";
  if (destination.total > 0) return "Success";
  return execution.endedAt !== null && execution.status !== "Error" ? execution.status : "Success";
}

export function describeTask(task: Task): Record<string, unknown> {
  const text = (name: string): string => {
    const value = task.extraAttrs[name];
    return typeof value === "string" ? value : "";
  };
  const number = (name: string): number => Number(task.extraAttrs[name] ?? 0);
  return inOrder({
    ...omitEmpty({
      dst_resource: text("dst_resource"),
      end_time: timeText(task.retryAt ? null : task.endedAt),
      execution_id: task.executionId,
      id: task.id,
      job_id: task.key,
      operation: text("operation"),
      resource_type: text("resource_type"),
      src_resource: text("src_resource"),
      start_time: timeText(task.startedAt),
      status: task.retryAt ? "InProgress" : TASK_WORDS[task.status],
    }),
    destination: number("destination"),
    dst_registry_id: number("target_registry_id"),
    ...omitEmpty({ status_text: task.statusMessage, retry_at: task.retryAt?.toISOString() }),
    items: number("items"),
    run_count: task.runCount,
    state: task.status,
  });
}

export function describeItem(item: Item): Record<string, unknown> {
  return {
    action: item.action,
    attempts: item.attempts,
    blobs_copied: item.blobsCopied,
    blobs_mounted: item.blobsMounted,
    blobs_skipped: item.blobsSkipped,
    bytes_copied: item.bytesCopied,
    digest: item.digest,
    dst_repository: item.destRepository,
    execution_id: item.executionId,
    id: item.id,
    message: item.message,
    reason: item.reason,
    src_repository: item.srcRepository,
    status: item.status,
    tag: item.tag,
    task_id: item.taskId,
    update_time: item.updatedAt.toISOString(),
  };
}

/** Keys in alphabetical order, as Harbor's encoder writes them. */
function inOrder(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).toSorted(([one], [other]) => (one < other ? -1 : 1)));
}
