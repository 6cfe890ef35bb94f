/** The execution that a path names, and what is said when it is not there. */
import type { Request } from "express";
import { SlipwayError } from "../../../src/core/errors.ts";
import type { RunSummary } from "../../../src/replication/run-view.ts";
import { readId } from "../conventions.ts";
import type { ReplicationServices } from "./services.ts";

/** The id of an execution that has not ended. */
export async function requireOpen(services: ReplicationServices, request: Request): Promise<number> {
  const id = readId(request, "id");
  const { execution } = await requireExecution(services, id);
  if (execution.endedAt !== null) throw new SlipwayError("PRECONDITION_FAILED", { message: `the execution ${id} has ended` });
  return id;
}

export async function requireExecution(services: Pick<ReplicationServices, "view">, id: number): Promise<RunSummary> {
  const found = await services.view.summary(id);
  if (!found) throw executionNotFound(id);
  return found;
}

export function executionNotFound(id: number): SlipwayError {
  return new SlipwayError("NOT_FOUND", { message: `replication execution ${id} not found` });
}

export function extrasOf({ runs }: Pick<ReplicationServices, "runs">, { execution }: RunSummary): { workflowUrl: string | null } {
  return { workflowUrl: runs.workflowUrl(execution) };
}
