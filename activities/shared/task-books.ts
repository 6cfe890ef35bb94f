/** What a batch says of its task in the books: that it has begun, how far it is, that it is done. */
import type { ActivityServices } from "../services.ts";
import { REVISION } from "../maintenance/records.ts";

export type TaskBooks = Pick<ActivityServices, "tasks" | "executions" | "marker">;

export interface TaskNews {
  readonly executionId: number;
  readonly vendor: string;
  readonly task: string;
  readonly attrs: Readonly<Record<string, unknown>>;
  readonly finished: boolean;
}

export async function beginTask({ tasks, executions }: TaskBooks, executionId: number, task: string): Promise<void> {
  const changed = await tasks.update(executionId, task, { status: "Running", revision: REVISION });
  if (changed) await executions.settle([executionId]);
}

export async function reportTask({ tasks, marker }: TaskBooks, { executionId, vendor, task, attrs, finished }: TaskNews): Promise<void> {
  await tasks.setAttrs(executionId, task, attrs);
  if (!finished) return;
  await tasks.update(executionId, task, { status: "Success", revision: REVISION });
  await marker.asyncRefreshStatus(executionId, vendor, { mayBeFinal: true });
}
