/** The parts of replication that every process has: stores, and the one road by which runs are started and steered. */
import type { Database } from "../db/pool.ts";
import { ExecutionStore } from "../execution/execution-store.ts";
import { LogStore } from "../execution/log-store.ts";
import { TaskStore } from "../execution/task-store.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { ReplicationWorkflows } from "../temporal/replication.ts";
import { ItemStore } from "./item-store.ts";
import type { PolicyStore } from "./policy-store.ts";
import { RunStore } from "./run-store.ts";
import { EventStore } from "./runs/event-store.ts";
import { ReplicationRuns } from "./runs/replication-runs.ts";
import { RunBooks } from "./runs/run-books.ts";

export interface Replication {
  readonly policies: PolicyStore;
  readonly executions: ExecutionStore;
  readonly tasks: TaskStore;
  readonly runs: RunStore;
  readonly items: ItemStore;
  readonly logs: LogStore;
  readonly books: RunBooks;
  readonly events: EventStore;
  /** Null where there is no workflow service. */
  readonly workflows: ReplicationWorkflows | null;
  /** Starts, stops, pauses, retries. */
  readonly control: ReplicationRuns;
}

export interface ReplicationParts {
  readonly database: Database;
  readonly policies: PolicyStore;
  readonly workflows: ReplicationWorkflows | null;
  /** Where people look at workflows. */
  readonly uiUrl: string | null;
  readonly logger: Logger;
}

export function openReplication({ database, policies, workflows, uiUrl, logger }: ReplicationParts): Replication {
  const executions = new ExecutionStore(database);
  const runs = new RunStore(database);
  const books = new RunBooks(database);
  return {
    policies,
    executions,
    tasks: new TaskStore(database),
    runs,
    items: new ItemStore(database),
    logs: new LogStore(database),
    books,
    events: new EventStore(database),
    workflows,
    control: new ReplicationRuns({ policies, executions, runs, books, workflows, uiUrl, logger }),
  };
}
