/** What the execution part of /replication is built from. */
import type { LogStore } from "../../../src/execution/log-store.ts";
import type { Execution } from "../../../src/execution/execution-store.ts";
import type { ExecutionTrigger } from "../../../src/execution/plan/status.ts";
import type { ItemStore } from "../../../src/replication/item-store.ts";
import type { RunKind } from "../../../src/replication/plan/run.ts";
import type { RunProgress } from "../../../src/replication/run-progress.ts";
import type { RunView } from "../../../src/replication/run-view.ts";
import type { RunFeed } from "../../../src/replication/run-feed.ts";
import type { HarborServices } from "../services.ts";

export interface StartRequest {
  readonly policyId: number;
  readonly trigger: ExecutionTrigger;
  readonly kind: RunKind;
  readonly force: boolean;
  /** Name of who asks. */
  readonly operator: string;
}

interface Started {
  readonly executionId: number;
}

/**
 * Runs as the API drives them. All throw NOT_FOUND for what does not exist and PRECONDITION_FAILED where the state forbids it. While the workflow
 * service is away, `start` and `retry` throw TEMPORAL_UNAVAILABLE with the id of the kept execution as `detail.executionId`.
 */
export interface RunsControl {
  start(request: StartRequest): Promise<Started>;
  retry(executionId: number, operator: string): Promise<Started>;
  stop(executionId: number, by: string): Promise<void>;
  pause(executionId: number): Promise<void>;
  resume(executionId: number): Promise<void>;
  /** Kilobits a second; 0 is unlimited, null as the policy says. */
  setSpeed(executionId: number, speedKb: number | null): Promise<void>;
  /** Null when there is nothing to be seen. */
  workflowUrl(execution: Execution): string | null;
}

export interface ReplicationServices extends Pick<HarborServices, "auth" | "clock"> {
  readonly runs: RunsControl;
  readonly view: RunView;
  readonly progress: RunProgress;
  readonly feed: RunFeed;
  readonly items: Pick<ItemStore, "page">;
  readonly logs: Pick<LogStore, "read">;
  /** True when the process is about to end, so that watchers go elsewhere. */
  isDraining(): boolean;
}
