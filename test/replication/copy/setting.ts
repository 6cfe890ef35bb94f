/** A copier over a real database and real registries, with runs and tasks planned by the test itself. */
import { randomUUID } from "node:crypto";
import type { TestContext } from "node:test";
import { createEncryption } from "../../../src/auth/encryption.ts";
import { SlipwayError } from "../../../src/core/errors.ts";
import type { Database } from "../../../src/db/pool.ts";
import { ExecutionStore } from "../../../src/execution/execution-store.ts";
import type { ExecutionTrigger } from "../../../src/execution/plan/status.ts";
import { TaskStore } from "../../../src/execution/task-store.ts";
import type { Task } from "../../../src/execution/task-store.ts";
import type { Kv } from "../../../src/kv/kv.ts";
import { PostgresKv } from "../../../src/kv/postgres-kv.ts";
import type { AdapterCapabilities, AdapterFactory } from "../../../src/replication/adapters/adapter.ts";
import { RemoteAdapter } from "../../../src/replication/adapters/remote-adapter.ts";
import { createCopier } from "../../../src/replication/copy/create-copier.ts";
import type { OpenCopier } from "../../../src/replication/copy/create-copier.ts";
import type { CopierOptions } from "../../../src/replication/copy/open-copier.ts";
import { ItemStore } from "../../../src/replication/item-store.ts";
import type { Item } from "../../../src/replication/item-store.ts";
import type { ItemAction, TaskDraft } from "../../../src/replication/plan/item.ts";
import type { Policy } from "../../../src/replication/plan/policy.ts";
import type { BatchOutcome } from "../../../src/replication/plan/run.ts";
import { RunStore } from "../../../src/replication/run-store.ts";
import type { Run } from "../../../src/replication/run-store.ts";
import { UpstreamPool } from "../../../src/upstream/pool.ts";
import type { UpstreamPoolOptions } from "../../../src/upstream/pool.ts";
import type { UpstreamEndpoint } from "../../../src/upstream/types.ts";
import { testLogger } from "../../support/maintenance.ts";
import { testDatabase } from "../../support/services.ts";
import { tempDir } from "../../support/temp.ts";
import { policyOf } from "../support.ts";

export const POLICY_ID = 7;
export const SOURCE_ID = 1;
export const ENCRYPTION_KEY = Buffer.alloc(32, 7);

export interface RegistryPlace {
  readonly url: string;
  readonly endpoint?: Partial<UpstreamEndpoint>;
  readonly capabilities?: Partial<AdapterCapabilities>;
}

export interface CopierSetting {
  /** By id; SOURCE_ID is the source. */
  readonly registries: Readonly<Record<number, RegistryPlace>>;
  readonly policy?: Partial<Policy>;
  readonly pool?: UpstreamPoolOptions;
  readonly options?: Partial<CopierOptions>;
}

/** What a process needs to copy; a child process builds the same from the same values. */
export function buildCopier(setting: CopierSetting, parts: { database: Database; kv: Pick<Kv, "increment" | "publish">; folder: string }) {
  const pool = new UpstreamPool({ probeIntervalMs: 200, probeMs: 500, reserve: 0, ...setting.pool });
  const policy = policyOf(SOURCE_ID, [], { id: POLICY_ID, name: "copies", destNamespaceReplaceCount: 0, trigger: null, ...setting.policy });
  const copier = createCopier({
    ...parts,
    encryption: createEncryption(ENCRYPTION_KEY),
    adapters: makeAdapters(setting.registries, pool),
    policies: { find: (id) => Promise.resolve(id === policy.id ? policy : null) },
    logger: testLogger,
    bootId: randomUUID(),
    stagingFolder: parts.folder,
    slots: 16,
    maxRequestsPerHost: 64,
    ...setting.options,
  });
  const close = async (): Promise<void> => {
    await copier.close();
    await pool.close();
  };
  return { copier, pool, close };
}

function makeAdapters(registries: Readonly<Record<number, RegistryPlace>>, pool: UpstreamPool): AdapterFactory {
  const open = (registryId: number) => {
    const place = registries[registryId];
    if (!place) return Promise.reject(new SlipwayError("NOT_FOUND", { message: `registry ${registryId} not found` }));
    const { url, endpoint, capabilities } = place;
    const client = pool.client({ name: `registry-${registryId}`, urls: [url], credential: null, trust: "operator", ...endpoint });
    const hooks = capabilities ? { capabilities } : {};
    const host = new URL(url).host;
    return Promise.resolve(new RemoteAdapter({ registryId, type: "docker-registry", name: `registry-${registryId}`, host, client, hooks }));
  };
  return { open, openTarget: ({ registryId }) => open(registryId) };
}

export interface PlannedCopy {
  readonly repository: string;
  readonly tags: readonly string[];
  readonly targets: readonly number[];
  readonly action?: ItemAction;
  /** Of deletions. */
  readonly digest?: string | null;
  readonly destination?: string;
  readonly empty?: boolean;
}

/** Runs, their tasks and items in the database. */
export class Plans {
  readonly database: Database;
  readonly executions: ExecutionStore;
  readonly runs: RunStore;
  readonly items: ItemStore;

  constructor(database: Database) {
    this.database = database;
    this.executions = new ExecutionStore(database);
    this.runs = new RunStore(database);
    this.items = new ItemStore(database);
  }

  async run(trigger: ExecutionTrigger = "manual"): Promise<number> {
    const { id } = await this.executions.create({ vendor: "REPLICATION", vendorId: POLICY_ID, trigger });
    await this.runs.create({ executionId: id, policyId: POLICY_ID, kind: "copy" });
    await this.executions.adopt(id, { workflowId: `run-${id}`, runId: `run-${id}` });
    return id;
  }

  /** One task for each target. */
  async plan(executionId: number, plan: PlannedCopy): Promise<number[]> {
    const { repository, tags, action = "copy", digest = null, destination = repository, empty = true } = plan;
    const drafts = plan.targets.map((target, position): TaskDraft => ({
      key: randomUUID(),
      attrs: {
        operation: "copy",
        resource_type: "image",
        src_resource: repository,
        dst_resource: destination,
        src_repository: repository,
        dst_repository: destination,
        destination: position,
        target_registry_id: target,
        items: tags.length,
        target_empty: empty,
      },
      items: tags.map((tag) => ({ action, tag, digest })),
    }));
    return (await this.items.plan(executionId, drafts)).map((task) => task.id);
  }

  async itemsOf(executionId: number): Promise<Item[]> {
    return (await this.items.page({ executionId, limit: 10_000, offset: 0 })).items;
  }

  async item(executionId: number, tag: string): Promise<Item> {
    const found = (await this.itemsOf(executionId)).find((item) => item.tag === tag);
    if (!found) throw new Error(`no item ${tag}`);
    return found;
  }

  async tasksOf(executionId: number): Promise<Task[]> {
    return await new TaskStore(this.database).list(executionId, { limit: 1000 });
  }

  async figures(executionId: number): Promise<Run> {
    const run = await this.runs.find(executionId);
    if (!run) throw new Error("no run");
    return run;
  }
}

export interface CopyTest extends Plans {
  readonly copier: OpenCopier;
  readonly pool: UpstreamPool;
  /** Plans and copies in one round. */
  copy(plan: PlannedCopy): Promise<{ executionId: number; outcome: BatchOutcome }>;
}

export async function startCopier(t: TestContext, setting: CopierSetting): Promise<CopyTest & { databaseUrl: string; folder: string }> {
  const { database, url } = await testDatabase(t);
  const folder = await tempDir(t, "copy-staging-");
  const kv = await PostgresKv.open({ database, prefix: "test:" });
  const { copier, pool, close } = buildCopier(setting, { database, kv, folder });
  t.after(async () => {
    await close();
    await kv.close();
  });
  const plans = new Plans(database);
  const copy = async (plan: PlannedCopy) => {
    const executionId = await plans.run();
    const tasks = await plans.plan(executionId, plan);
    const outcome = await copier.copyBatch({ executionId, tasks, round: 1 }, new AbortController().signal);
    return { executionId, outcome };
  };
  return Object.assign(plans, { copier, pool, copy, databaseUrl: url, folder });
}
