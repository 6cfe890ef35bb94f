/** The execution part of /replication over a real database and a real socket; runs are started for real, and no worker takes them up. */
import { createExecutionsRouter } from "../../api/harbor/replication/executions.ts";
import type { ReplicationServices } from "../../api/harbor/replication/services.ts";
import { systemClock } from "../../src/core/clock.ts";
import type { Database } from "../../src/db/pool.ts";
import { PostgresKv } from "../../src/kv/postgres-kv.ts";
import type { Kv } from "../../src/kv/kv.ts";
import { openReplication } from "../../src/replication/open-replication.ts";
import type { Replication } from "../../src/replication/open-replication.ts";
import type { TaskAttrs, TaskDraft } from "../../src/replication/plan/item.ts";
import { PolicyStore } from "../../src/replication/policy-store.ts";
import { RunFeed } from "../../src/replication/run-feed.ts";
import type { RunFeedLimits } from "../../src/replication/run-feed.ts";
import { RunProgress } from "../../src/replication/run-progress.ts";
import { RunView } from "../../src/replication/run-view.ts";
import { silentLogger } from "../../src/telemetry/logger.ts";
import type { TemporalConnection } from "../../src/temporal/connection.ts";
import { ReplicationWorkflows } from "../../src/temporal/replication.ts";
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
  readonly replication: Replication;
  readonly feed: RunFeed;
  readonly state: { draining: boolean };
}

export interface ReplicationApiOptions {
  readonly limits?: Partial<RunFeedLimits>;
  /** None: as if the workflow service were away. */
  readonly temporal?: TemporalConnection;
}

export async function startReplicationApi(t: Cleanable, { limits = {}, temporal }: ReplicationApiOptions = {}): Promise<ReplicationApi> {
  const { database } = await testDatabase(t);
  const parts = testAuth(t, { database, bus: await testBus(t) });
  await addUser(parts, "root", { sysadmin: true });
  await addUser(parts, "alice");
  const kv = await PostgresKv.open({ database, prefix: "test:" });
  t.after(() => kv.close());
  const replication = openReplication({
    database,
    policies: new PolicyStore(database),
    workflows: temporal ? new ReplicationWorkflows(temporal) : null,
    uiUrl: "http://temporal.example.com",
    logger: silentLogger,
  });
  const view = new RunView(database);
  const feed = new RunFeed({ view, kv, clock: systemClock }, limits);
  t.after(() => feed.close());
  const state = { draining: false };
  const services: ReplicationServices = {
    auth: parts.auth,
    clock: systemClock,
    runs: replication.control,
    view,
    progress: new RunProgress(),
    feed,
    items: replication.items,
    logs: replication.logs,
    isDraining: () => state.draining,
  };
  const api = await startApi(t, parts, { routers: [createExecutionsRouter(services)] });
  return { api, parts, database, kv, replication, feed, state };
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

const attrs: TaskAttrs = {
  operation: "copy",
  resource_type: "image",
  src_resource: "library/app [2 item(s) in total]",
  dst_resource: "mirror/app [2 item(s) in total]",
  src_repository: "library/app",
  dst_repository: "mirror/app",
  destination: 0,
  target_registry_id: 0,
  items: 2,
  target_empty: true,
};

/** Two tasks of two items each. */
export const drafts: readonly TaskDraft[] = ["one", "two"].map((key) => ({
  key,
  attrs,
  items: [
    { action: "copy", tag: `${key}-a`, digest: `sha256:${"a".repeat(64)}` },
    { action: "copy", tag: `${key}-b`, digest: null },
  ],
}));
