/** /replication/executions: starting, watching and steering runs of policies. */
import { Router } from "express";
import type { Request, Response } from "express";
import { z } from "zod";
import { isSlipwayError, SlipwayError } from "../../../src/core/errors.ts";
import type { RunKind } from "../../../src/replication/plan/run.ts";
import { requireSystemRight } from "../access.ts";
import { readBody, readId, readQueryText } from "../conventions.ts";
import { parseSort, readPage, setListHeaders } from "../list-params.ts";
import { describeDetail, describeExecution, statusesOf, triggersOf } from "./execution-mapping.ts";
import { addEvents } from "./events.ts";
import { executionNotFound, extrasOf } from "./found.ts";
import type { ReplicationServices } from "./services.ts";
import { addTasks } from "./tasks.ts";

const EXECUTION = "/replication/executions/:id";

/** Null and absence are the same: clients in Go send both. */
const startBody = z.object({
  policy_id: z.number().int().nullish(),
  dry_run: z.boolean().nullish(),
  audit: z.boolean().nullish(),
  force: z.boolean().nullish(),
});
const MAX_SPEED = 2_147_483_647;
const changeBody = z.object({ speed: z.number().int().max(MAX_SPEED).nullable() });

export function createExecutionsRouter(services: ReplicationServices): Router {
  const router = Router();
  addList(router, services);
  addStart(router, services);
  addOne(router, services);
  addSteering(router, services);
  addTasks(router, services);
  addEvents(router, services);
  return router;
}

function addList(router: Router, services: ReplicationServices): void {
  router.get("/replication/executions", async (request, response) => {
    await requireSystemRight(services, request, "replication:list");
    const page = readPage(request);
    const policyId = readPolicyId(request);
    const status = readQueryText(request, "status");
    const trigger = readQueryText(request, "trigger");
    const { rows, total } = await services.view.list({
      ...page,
      sort: parseSort(readQueryText(request, "sort") ?? ""),
      ...(policyId === null ? {} : { policyId }),
      ...(status ? { statuses: statusesOf(status) } : {}),
      ...(trigger ? { triggers: triggersOf(trigger) } : {}),
    });
    setListHeaders(request, response, { total, ...page });
    response.json(rows.map((row) => describeExecution(row, extrasOf(services, row))));
  });
}

function addStart(router: Router, services: ReplicationServices): void {
  router.post("/replication/executions", async (request, response) => {
    const caller = await requireSystemRight(services, request, "replication:create");
    if (request.body === undefined) throw new SlipwayError("UNPROCESSABLE", { message: "execution in body is required" });
    const body = readBody(request, startBody);
    if (body.dry_run && body.audit) throw new SlipwayError("BAD_REQUEST", { message: "a run is either a dry run or an audit" });
    const kind: RunKind = body.dry_run ? "dry-run" : body.audit ? "audit" : "copy";
    const started = services.runs.start({
      policyId: body.policy_id ?? 0,
      kind,
      force: body.force ?? false,
      // As the scheduler of older Harbors asks.
      trigger: readQueryText(request, "trigger") === "scheduled" ? "scheduled" : "manual",
      operator: caller.name,
    });
    await answerStarted(request, response, started);
  });
  router.post(`${EXECUTION}/retry`, async (request, response) => {
    const caller = await requireSystemRight(services, request, "replication:create");
    await answerStarted(request, response, services.runs.retry(readId(request, "id"), caller.name));
  });
}

/** The address of the new execution, also when the workflow service is away: it is kept, and starts when the service is back. */
async function answerStarted(request: Request, response: Response, started: Promise<{ readonly executionId: number }>): Promise<void> {
  const locate = (id: number): Response => response.location(`${request.baseUrl}/replication/executions/${id}`);
  try {
    locate((await started).executionId)
      .status(201)
      .end();
  } catch (error) {
    const kept = isSlipwayError(error, "TEMPORAL_UNAVAILABLE") ? keptExecution(error.detail) : null;
    if (kept === null) throw error;
    locate(kept);
    throw new SlipwayError("TEMPORAL_UNAVAILABLE", {
      message: `the workflow service is not available: execution ${kept} is kept and starts when it is back`,
      retryAfterSeconds: (error as SlipwayError).retryAfterSeconds ?? RETRY_AFTER_SECONDS,
      cause: error,
    });
  }
}

const RETRY_AFTER_SECONDS = 5;

function keptExecution(detail: unknown): number | null {
  const id = typeof detail === "object" && detail !== null && "executionId" in detail ? detail.executionId : null;
  return typeof id === "number" ? id : null;
}

function addOne(router: Router, services: ReplicationServices): void {
  router.get(EXECUTION, async (request, response) => {
    await requireSystemRight(services, request, "replication:read");
    const id = readId(request, "id");
    const detail = await services.view.find(id);
    if (!detail) throw executionNotFound(id);
    response.json(describeDetail(detail, services.progress.of(detail), extrasOf(services, detail)));
  });
  router.put(EXECUTION, async (request, response) => {
    const caller = await requireSystemRight(services, request, "replication:create");
    const id = readId(request, "id");
    await services.runs.stop(id, caller.name);
    services.feed.announce(id);
    response.status(200).end();
  });
}

function addSteering(router: Router, services: ReplicationServices): void {
  for (const action of ["pause", "resume"] as const) {
    router.post(`${EXECUTION}/${action}`, async (request, response) => {
      await requireSystemRight(services, request, "replication:create");
      const id = readId(request, "id");
      await services.runs[action](id);
      services.feed.announce(id);
      response.status(200).end();
    });
  }
  router.patch(EXECUTION, async (request, response) => {
    await requireSystemRight(services, request, "replication:create");
    const id = readId(request, "id");
    const { speed } = readBody(request, changeBody);
    await services.runs.setSpeed(id, speed === null ? null : Math.max(0, speed));
    services.feed.announce(id);
    response.status(200).end();
  });
}

function readPolicyId(request: Request): number | null {
  const text = readQueryText(request, "policy_id");
  if (text === undefined || text === "") return null;
  if (!/^-?\d{1,15}$/.test(text)) throw new SlipwayError("UNPROCESSABLE", { message: "policy_id in query must be of type int64" });
  return Number(text);
}
