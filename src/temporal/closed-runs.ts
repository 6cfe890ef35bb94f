/** Whether the run of an execution still goes on, for those that say so. */
import { isSlipwayError } from "../core/errors.ts";
import type { ClosedRun } from "../execution/refresh/reconciler.ts";
import type { TemporalConnection } from "./connection.ts";

const STOPPED: ReadonlySet<string> = new Set(["TERMINATED", "CANCELLED"]);

/** Null while the run, or one that it continued as, is open. */
export async function findClosedRun(
  temporal: TemporalConnection,
  run: { workflowId: string; firstRunId: string },
  signal: AbortSignal,
): Promise<ClosedRun | null> {
  try {
    const latest = await temporal.call((client) => client.workflow.getHandle(run.workflowId).describe(), { signal });
    const firstRunId = latest.raw.workflowExecutionInfo?.firstRunId || latest.runId;
    if (firstRunId !== run.firstRunId) return { status: "Error", reason: "the run is over, another one followed it" };
    const { name } = latest.status;
    if (name === "RUNNING" || name === "PAUSED" || name === "CONTINUED_AS_NEW") return null;
    const status = STOPPED.has(name) ? "Stopped" : "Error";
    return { status, reason: `the run was closed without reporting: ${name.toLowerCase().replaceAll("_", " ")}` };
  } catch (error) {
    if (isSlipwayError(error, "NOT_FOUND")) return { status: "Error", reason: "the workflow service does not know the run" };
    throw error;
  }
}
