/** The execution that a path names, and what is said when it is not there. */
import { SlipwayError } from "../../../src/core/errors.ts";
import type { RunSummary } from "../../../src/replication/run-view.ts";
import type { ReplicationServices } from "./services.ts";

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
