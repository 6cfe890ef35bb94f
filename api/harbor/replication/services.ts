/** What the execution part of /replication is built from. */
import type { LogStore } from "../../../src/execution/log-store.ts";
import type { Execution } from "../../../src/execution/execution-store.ts";
import type { ExecutionTrigger } from "../../../src/execution/plan/status.ts";
import type { ItemStore } from "../../../src/replication/item-store.ts";
import type { RunKind } from "../../../src/replication/plan/run.ts";
import type { RunProgress } from "../../../src/replication/run-progress.ts";
import type { RunView } from "../../../src/replication/run-view.ts";
import type { RunWatch } from "../../../src/replication/run-watch.ts";
import type { HarborServices } from "../services.ts";

export interface StartRequest {
  readonly policyId: number;
  readonly trigger: ExecutionTrigger;
  readonly kind: RunKind;
  readonly force: boolean;
  readonly retryOf: number | null;
  /** Name of who asked. */
  readonly operator: string;
}

/**
 * Runs as the API drives them. While the workflow service is away, `start` and `retry` throw TEMPORAL_UNAVAILABLE with the id of the kept
 * execution as `detail.executionId`. The others throw NOT_FOUND for an unknown execution and PRECONDITION_FAILED where the state forbids it.
 */
export interface RunsControl {
  start(request: StartRequest): Promise<{ readonly executionId: number }>;
  retry(executionId: number, operator: string): Promise<{ readonly executionId: number }>;
  stop(executionId: number): Promise<unknown>;
  pause(executionId: number): Promise<unknown>;
  resume(executionId: number): Promise<unknown>;
  /** Kilobits a second; 0 is unlimited, null as the policy says. */
  setSpeed(executionId: number, speedKb: number | null): Promise<unknown>;
  /** Null when there is nothing to be seen. */
  workflowUrl(execution: Execution): string | null;
}

export interface ReplicationServices extends Pick<HarborServices, "auth" | "clock"> {
  readonly policies: { find(id: number): Promise<{ readonly id: number; readonly enabled: boolean } | null> };
  readonly runs: RunsControl;
  readonly view: RunView;
  readonly progress: RunProgress;
  readonly watch: RunWatch;
  readonly items: Pick<ItemStore, "page">;
  readonly logs: Pick<LogStore, "read">;
  /** True when the process is about to end, so that watchers go elsewhere. */
  isDraining(): boolean;
}
