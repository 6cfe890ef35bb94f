/** Everything that adapters and planning need, real, over a database and a disk of the test's own; and rows to begin a run with. */
import type { TestContext } from "node:test";
import { loadEncryption } from "../../src/auth/encryption.ts";
import { createCatalog } from "../../src/catalog/open-catalog.ts";
import type { Catalog } from "../../src/catalog/open-catalog.ts";
import { InvalidationBus } from "../../src/catalog/cache/invalidation-bus.ts";
import { systemClock } from "../../src/core/clock.ts";
import type { Database } from "../../src/db/pool.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import type { ExecutionTrigger } from "../../src/execution/plan/status.ts";
import { Members } from "../../src/kv/members.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { EMPTY_REGISTRY, RegistryStore } from "../../src/proxy/registry-store.ts";
import type { RegistryDraft } from "../../src/proxy/registry-store.ts";
import { createAdapters } from "../../src/replication/adapters/create-adapters.ts";
import type { AdapterFactory } from "../../src/replication/adapters/adapter.ts";
import { openReplicationPool } from "../../src/replication/adapters/replication-pool.ts";
import type { Destination, Policy } from "../../src/replication/plan/policy.ts";
import { RunStore } from "../../src/replication/run-store.ts";
import type { NewRun } from "../../src/replication/run-store.ts";
import { FsBlobStore } from "../../src/storage/fs-store.ts";
import type { UpstreamPool } from "../../src/upstream/pool.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";

export interface ReplicationSetting {
  readonly database: Database;
  readonly catalog: Catalog;
  readonly store: FsBlobStore;
  readonly registries: RegistryStore;
  readonly pool: UpstreamPool;
  readonly adapters: AdapterFactory;
  /** Id of a new registry row. */
  addRegistry(draft: Partial<RegistryDraft> & { readonly url: string }): Promise<number>;
}

const SILENT = { warn: () => undefined, info: () => undefined, error: () => undefined, debug: () => undefined };

export async function replicationSetting(t: TestContext): Promise<ReplicationSetting> {
  const { database } = await testDatabase(t);
  const store = await FsBlobStore.open(await tempDir(t));
  const kv = await openKv({ redisUrl: null, database, prefix: "test:", onError: () => undefined });
  const members = await Members.join(kv, { bootId: "test", host: "test", address: null, roles: ["replication"] });
  const bus = await InvalidationBus.open({ kv, members, logger: SILENT as never });
  const cache = { maxBytes: 8 * 1024 * 1024, staleOnDbErrorMs: 0 };
  const catalog = createCatalog({ database, store, bus, clock: systemClock, log: SILENT, cache });
  const encryption = await loadEncryption({ key: null, dataDir: await tempDir(t) });
  const registries = new RegistryStore(database, encryption, bus);
  const { pool, close } = await openReplicationPool({ kv, maxRequestsPerHost: 64, probeIntervalMs: 200 });
  t.after(async () => {
    await close();
    catalog.close();
    await bus.close();
    await members.leave();
    await kv.close();
    await store.close();
  });
  return {
    database,
    catalog,
    store,
    registries,
    pool,
    adapters: createAdapters({ registries, pool, catalog, store, database }),
    addRegistry: async (draft) => (await registries.save({ ...EMPTY_REGISTRY, name: new URL(draft.url).host, ...draft })).id,
  };
}

export function destination(registryId: number, rest: Partial<Destination> = {}): Destination {
  return { position: 0, registryId, namespace: "", replaceCount: -1, ownNamespace: null, ownReplaceCount: null, ...rest };
}

export function policyOf(sourceRegistryId: number, destinations: readonly Destination[], rest: Partial<Policy> = {}): Policy {
  return {
    id: 1,
    name: "policy",
    description: "",
    creator: "",
    sourceRegistryId,
    destinations,
    destNamespace: "",
    destNamespaceReplaceCount: -1,
    trigger: { type: "manual" },
    timezone: "UTC",
    filters: [],
    deletion: false,
    override: true,
    enabled: true,
    speedKb: 0,
    copyByChunk: false,
    singleActive: false,
    overlap: "allow",
    mirror: false,
    maxDeletions: 100,
    maxDeletionPercent: 10,
    createdAt: new Date(),
    updatedAt: new Date(),
    ...rest,
  };
}

/** The rows of a run that begins. */
export async function beginRun(database: Database, run: Partial<NewRun> & { readonly trigger?: ExecutionTrigger } = {}): Promise<number> {
  const { trigger = "manual", ...rest } = run;
  const executions = new ExecutionStore(database);
  const { id } = await executions.create({ vendor: "REPLICATION", vendorId: rest.policyId ?? 1, trigger });
  await new RunStore(database).create({ executionId: id, policyId: 1, kind: "copy", ...rest });
  await executions.adopt(id, { workflowId: `replication/1/${id}`, runId: "run" });
  return id;
}
