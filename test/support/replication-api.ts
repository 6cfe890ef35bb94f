/** The execution part of /replication over a real database and a real socket; what drives runs is replaced by a record of what was asked. */
import { createExecutionsRouter } from "../../api/harbor/replication/executions.ts";
import type { ReplicationServices, RunsControl, StartRequest } from "../../api/harbor/replication/services.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { systemClock } from "../../src/core/clock.ts";
import type { Database } from "../../src/db/pool.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { LogStore } from "../../src/execution/log-store.ts";
import { vendors } from "../../src/execution/plan/status.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { PostgresKv } from "../../src/kv/postgres-kv.ts";
import type { Kv } from "../../src/kv/kv.ts";
import { ItemStore } from "../../src/replication/item-store.ts";
import { RunProgress } from "../../src/replication/run-progress.ts";
import { RunStore } from "../../src/replication/run-store.ts";
import type { Run } from "../../src/replication/run-store.ts";
import { RunView } from "../../src/replication/run-view.ts";
import { RunFeed } from "../../src/replication/run-feed.ts";
import type { RunFeedLimits } from "../../src/replication/run-feed.ts";
import { addUser, startApi, testAuth } from "./auth.ts";
import type { TestApi, TestAuth } from "./auth.ts";
import { testDatabase } from "./services.ts";
import { testBus } from "./test-bus.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export const EXECUTIONS = "/api/v2.0/replication/executions";

export interface ReplicationApi {
  readonly api: TestApi;
  readonly parts: TestAuth;
  readonly database: Database;
  readonly kv: Kv;
  readonly runs: RecordedRuns;
  readonly executions: ExecutionStore;
  readonly tasks: TaskStore;
  readonly runStore: RunStore;
  readonly items: ItemStore;
  readonly logs: LogStore;
  readonly feed: RunFeed;
  readonly state: { draining: boolean };
}

/** Makes the rows that a start makes, and notes every call. */
export class RecordedRuns implements RunsControl {
  readonly calls: unknown[][] = [];
  /** As if the workflow service were away. */
  away = false;
  readonly #executions: ExecutionStore;
  readonly #runs: RunStore;
  readonly #database: Database;

  constructor(database: Database) {
    this.#executions = new ExecutionStore(database);
    this.#runs = new RunStore(database);
    this.#database = database;
  }

  async start({ retryOf = null, ...request }: StartRequest & { retryOf?: number | null }): Promise<{ executionId: number }> {
    this.calls.push(["start", request]);
    const { policyId, trigger, kind, force, operator } = request;
    const { rows } = await this.#database.query<{ enabled: boolean }>("SELECT enabled FROM replication_policies WHERE id = $1", [policyId]);
    if (!rows[0]) throw new SlipwayError("NOT_FOUND", { message: `replication policy ${policyId} not found` });
    if (!rows[0].enabled) throw new SlipwayError("PRECONDITION_FAILED", { message: `the policy ${policyId} is disabled` });
    const { id } = await this.#executions.create({ vendor: vendors.replication, vendorId: policyId, trigger, extraAttrs: { operator } });
    await this.#runs.create({ executionId: id, policyId, kind, force, retryOf });
    if (this.away) throw new SlipwayError("TEMPORAL_UNAVAILABLE", { detail: { execution_id: id }, retryAfterSeconds: 5 });
    return { executionId: id };
  }

  async retry(executionId: number, { operator }: { operator: string }): Promise<{ executionId: number }> {
    const run = await this.#find(executionId);
    return await this.start({
      policyId: run.policyId,
      trigger: "manual",
      kind: run.kind,
      force: run.force,
      retryOf: executionId,
      operator,
    });
  }

  async stop(executionId: number, by: string): Promise<void> {
    await this.#find(executionId);
    this.calls.push(["stop", executionId, by]);
    await this.#executions.end(executionId, "Stopped", `stopped by ${by}`);
  }

  async pause(executionId: number): Promise<void> {
    await this.#find(executionId);
    this.calls.push(["pause", executionId]);
  }

  async resume(executionId: number): Promise<void> {
    await this.#find(executionId);
    this.calls.push(["resume", executionId]);
  }

  async setSpeed(executionId: number, speedKb: number | null): Promise<void> {
    await this.#find(executionId);
    this.calls.push(["speed", executionId, speedKb]);
    await this.#runs.setSpeed(executionId, speedKb);
  }

  async #find(executionId: number): Promise<Run> {
    const run = await this.#runs.find(executionId);
    if (!run) throw new SlipwayError("NOT_FOUND", { message: `replication execution ${executionId} not found` });
    return run;
  }

  workflowUrl({ workflowId, runId }: { workflowId: string | null; runId: string | null }): string | null {
    return workflowId === null || runId === null ? null : `http://temporal.example.com/${encodeURIComponent(workflowId)}/${runId}`;
  }
}

export async function startReplicationApi(t: Cleanable, limits: Partial<RunFeedLimits> = {}): Promise<ReplicationApi> {
  const { database } = await testDatabase(t);
  const parts = testAuth(t, { database, bus: await testBus(t) });
  await addUser(parts, "root", { sysadmin: true });
  await addUser(parts, "alice");
  const kv = await PostgresKv.open({ database, prefix: "test:" });
  t.after(() => kv.close());
  const executions = new ExecutionStore(database);
  const runStore = new RunStore(database);
  const runs = new RecordedRuns(database);
  const view = new RunView(database);
  const feed = new RunFeed({ view, kv, clock: systemClock }, limits);
  t.after(() => feed.close());
  const items = new ItemStore(database);
  const logs = new LogStore(database);
  const state = { draining: false };
  const services: ReplicationServices = {
    auth: parts.auth,
    clock: systemClock,
    runs,
    view,
    progress: new RunProgress(),
    feed,
    items,
    logs,
    isDraining: () => state.draining,
  };
  const api = await startApi(t, parts, { routers: [createExecutionsRouter(services)] });
  return { api, parts, database, kv, runs, executions, tasks: new TaskStore(database), runStore, items, logs, feed, state };
}

/** A policy that copies from a registry to the local one. */
export async function addPolicy(database: Database, name: string, options: { enabled?: boolean } = {}): Promise<number> {
  const registry = await database.query<{ id: number }>("INSERT INTO registries (name, url) VALUES ($1, $2) RETURNING id", [
    `from-${name}`,
    `https://${name}.example.com`,
  ]);
  const { rows } = await database.query<{ id: number }>(
    "INSERT INTO replication_policies (name, src_registry_id, enabled) VALUES ($1, $2, $3) RETURNING id",
    [name, registry.rows[0]?.id, options.enabled ?? true],
  );
  const id = rows[0]?.id ?? 0;
  await database.query("INSERT INTO replication_destinations (policy_id, position, registry_id) VALUES ($1, 0, NULL)", [id]);
  return id;
}
