/** What the activities of replication need, in slices as narrow as their use. */
import type { ExecutionStore } from "../../src/execution/execution-store.ts";
import type { Copier } from "../../src/replication/copy/copier.ts";
import type { Planner } from "../../src/replication/planner.ts";
import type { RunStore } from "../../src/replication/run-store.ts";
import type { EventStore } from "../../src/replication/runs/event-store.ts";
import type { Reconciler } from "../../src/replication/runs/reconciler.ts";
import type { ReplicationRuns } from "../../src/replication/runs/replication-runs.ts";
import type { RunBooks } from "../../src/replication/runs/run-books.ts";
import type { EndWatch } from "../../src/replication/runs/end-watch.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import type { ReplicationWorkflows } from "../../src/temporal/replication.ts";

export interface ReplicationServices {
  readonly planner: Planner;
  readonly copier: Copier;
  readonly executions: Pick<ExecutionStore, "adopt" | "completePlanning" | "settle" | "end" | "find">;
  readonly runs: Pick<RunStore, "waiting">;
  readonly books: Pick<RunBooks, "endOpen" | "failTasks" | "setCancelling">;
  readonly events: Pick<EventStore, "take" | "release" | "isDue">;
  /** Changes that could not be carried out are tried again until they are so old. */
  readonly eventMaxAgeMs: number;
  readonly watch: Pick<EndWatch, "during">;
  readonly starter: Pick<ReplicationRuns, "start" | "startWaiting">;
  readonly reconciler: Pick<Reconciler, "run">;
  readonly workflows: Pick<ReplicationWorkflows, "triggerWaiting" | "triggerEvents">;
  /** Tells those who watch a run that it changed. */
  readonly announce: (executionId: number) => void;
  readonly logger: Logger;
}
