/** What a batch says of its task in the books: that it has begun, how far it is, that it is done. */
import type { ActivityServices } from "../services.ts";
import { REVISION } from "../maintenance/records.ts";

export type TaskBooks = Pick<ActivityServices, "tasks" | "executions">;

export interface TaskNews {
  readonly executionId: number;
  readonly task: string;
  readonly attrs: Readonly<Record<string, unknown>>;
  readonly finished: boolean;
}

export async function beginTask({ tasks, executions }: TaskBooks, executionId: number, task: string): Promise<void> {
  const changed = await tasks.update(executionId, task, { status: "Running", revision: REVISION });
  if (changed) await executions.settle([executionId]);
}

export async function reportTask({ tasks }: TaskBooks, { executionId, task, attrs, finished }: TaskNews): Promise<void> {
  await tasks.setAttrs(executionId, task, attrs);
  if (finished) await tasks.update(executionId, task, { status: "Success", revision: REVISION });
}
