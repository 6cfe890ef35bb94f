/** What a run consists of: its tasks with their logs, its items, and the log of its planning. */
import { once } from "node:events";
import type { Request, Response, Router } from "express";
import { SlipwayError } from "../../../src/core/errors.ts";
import type { LogLine } from "../../../src/execution/log-store.ts";
import { requireSystemRight } from "../access.ts";
import { readId, readQueryText } from "../conventions.ts";
import { parseSort, readPage, setListHeaders } from "../list-params.ts";
import { describeItem, describeTask, itemStatusesOf, taskFiltersOf } from "./execution-mapping.ts";
import { requireExecution } from "./found.ts";
import type { ReplicationServices } from "./services.ts";

const LOG_PAGE = 1_000;
/** As much of a log as Harbor gives. */
const MAX_LOG_BYTES = 10 * 1024 * 1024;

export function addTasks(router: Router, services: ReplicationServices): void {
  router.get("/replication/executions/:id/tasks", async (request, response) => {
    await requireSystemRight(services, request, "replication:list");
    const executionId = readId(request, "id");
    const page = readPage(request);
    await requireExecution(services, executionId);
    const status = readQueryText(request, "status");
    const resourceType = readQueryText(request, "resource_type");
    const { rows, total } = await services.view.tasks({
      executionId,
      ...page,
      sort: parseSort(readQueryText(request, "sort") ?? ""),
      ...(status ? { anyOf: taskFiltersOf(status) } : {}),
      ...(resourceType ? { resourceType } : {}),
    });
    setListHeaders(request, response, { total, ...page });
    response.json(rows.map(describeTask));
  });
  addItems(router, services);
  addLogs(router, services);
}

function addItems(router: Router, services: ReplicationServices): void {
  router.get("/replication/executions/:id/items", async (request, response) => {
    await requireSystemRight(services, request, "replication:list");
    const executionId = readId(request, "id");
    const page = readPage(request);
    const taskId = readTaskId(request);
    await requireExecution(services, executionId);
    const status = readQueryText(request, "status");
    const { items, total } = await services.items.page({
      executionId,
      limit: page.pageSize,
      offset: (page.page - 1) * page.pageSize,
      ...(taskId === null ? {} : { taskId }),
      ...(status ? { statuses: itemStatusesOf(status) } : {}),
    });
    setListHeaders(request, response, { total, ...page });
    response.json(items.map(describeItem));
  });
}

function readTaskId(request: Request): number | null {
  const text = readQueryText(request, "task_id");
  if (text === undefined || text === "") return null;
  if (!/^\d{1,15}$/.test(text)) throw new SlipwayError("UNPROCESSABLE", { message: "task_id in query must be of type int64" });
  return Number(text);
}

function addLogs(router: Router, services: ReplicationServices): void {
  router.get("/replication/executions/:id/tasks/:task/log", async (request, response) => {
    await requireSystemRight(services, request, "replication:read");
    const executionId = readId(request, "id");
    const taskId = readId(request, "task");
    await requireExecution(services, executionId);
    const owner = await services.view.executionOf(taskId);
    if (owner === null) throw new SlipwayError("NOT_FOUND", { message: `replication task ${taskId} not found` });
    if (owner !== executionId) {
      throw new SlipwayError("NOT_FOUND", { message: `execution ${executionId} contains no task with ID ${taskId}` });
    }
    await sendLog(services, response, { executionId, taskId });
  });
  router.get("/replication/executions/:id/log", async (request, response) => {
    await requireSystemRight(services, request, "replication:read");
    const executionId = readId(request, "id");
    await requireExecution(services, executionId);
    await sendLog(services, response, { executionId, taskId: null });
  });
}

/** By pages, so that a long log costs no memory. */
async function sendLog(
  { logs }: Pick<ReplicationServices, "logs">,
  response: Response,
  of: { readonly executionId: number; readonly taskId: number | null },
): Promise<void> {
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  let lines = await logs.read(of.executionId, { taskId: of.taskId, limit: LOG_PAGE });
  response.status(200).type("text/plain");
  let bytes = 0;
  while (lines.length > 0 && !gone.signal.aborted) {
    const text = lines.map(lineText).join("");
    bytes += Buffer.byteLength(text);
    if (bytes > MAX_LOG_BYTES) {
      response.write("[the rest is left out: the log is too long]\n");
      break;
    }
    if (!response.write(text)) await once(response, "drain", { signal: gone.signal }).catch(() => undefined);
    if (lines.length < LOG_PAGE) break;
    lines = await logs.read(of.executionId, { taskId: of.taskId, after: lines.at(-1)?.id ?? 0, limit: LOG_PAGE });
  }
  response.end();
}

function lineText({ at, level, line }: LogLine): string {
  return `${at.toISOString()} [${level}] ${line}\n`;
}
