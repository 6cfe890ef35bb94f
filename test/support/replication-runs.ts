/**
 * Runs of replication over real services, for tests of how they start, go on and end: planner and copier are driven by a plan that the test
 * writes into the database, everything else is the product's.
 */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { ReplicationServices } from "../../activities/replication/services.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import type { Database } from "../../src/db/pool.ts";
import { openReplication } from "../../src/replication/open-replication.ts";
import type { Replication } from "../../src/replication/open-replication.ts";
import type { Copier } from "../../src/replication/copy/copier.ts";
import type { Planner } from "../../src/replication/planner.ts";
import type { TaskDraft } from "../../src/replication/plan/item.ts";
import { PolicyStore } from "../../src/replication/policy-store.ts";
import { EndWatch } from "../../src/replication/runs/end-watch.ts";
import { Reconciler } from "../../src/replication/runs/reconciler.ts";
import type { TemporalConnection } from "../../src/temporal/connection.ts";
import { ReplicationWorkflows } from "../../src/temporal/replication.ts";
import { replicationRoles } from "../../workers/roles/replication.ts";
import { startWorkerGroup } from "../../workers/worker-group.ts";
import type { WorkerGroup } from "../../workers/worker-group.ts";
import { testLogger } from "./maintenance.ts";

/** The bundle is made once for all tests; this is the folder of the replay test too. */
const BUNDLES = join(tmpdir(), "slipway-test-replay");

/** What the runs of a policy find to do. */
export interface Script {
  /** Steps of planning, and batches of one task that each of them finds. */
  readonly steps: number;
  readonly batchesPerStep: number;
  readonly stepMs: number;
  /** How long copying one batch takes; the signal ends it. */
  readonly copyMs: number;
  /** The first tries of every task end with: again after so long. */
  readonly againMs: number;
  readonly againTimes: number;
  /** Planning fails with this text. */
  readonly planError: string;
  /** Copying throws this code of the catalogue, or "bug". */
  readonly copyError: string;
}

const IDLE: Script = { steps: 1, batchesPerStep: 0, stepMs: 0, copyMs: 0, againMs: 0, againTimes: 0, planError: "", copyError: "" };

export async function createScriptTables(database: Database): Promise<void> {
  await database.query("CREATE TABLE test_scripts (policy_id bigint PRIMARY KEY, script jsonb NOT NULL)");
  // What really happened, in order.
  await database.query(
    `CREATE TABLE test_deeds (position bigint GENERATED ALWAYS AS IDENTITY, execution_id bigint NOT NULL, deed text NOT NULL,
       tasks bigint[], round int, pid int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())`,
  );
}

export async function writeScript(database: Database, policyId: number, script: Partial<Script>): Promise<void> {
  await database.query("INSERT INTO test_scripts VALUES ($1, $2) ON CONFLICT (policy_id) DO UPDATE SET script = excluded.script", [
    policyId,
    JSON.stringify({ ...IDLE, ...script }),
  ]);
}

export interface Deed {
  readonly execution_id: number;
  readonly deed: string;
  readonly tasks: number[] | null;
  readonly round: number | null;
  readonly pid: number;
  readonly at: Date;
}

export async function deeds(database: Database, deed: string, executionId?: number): Promise<Deed[]> {
  const { rows } = await database.query<Deed>(
    "SELECT * FROM test_deeds WHERE deed = $1 AND ($2::bigint IS NULL OR execution_id = $2) ORDER BY position",
    [deed, executionId ?? null],
  );
  return rows;
}

export interface PolicyOptions {
  readonly overlap?: "skip" | "queue-one" | "allow";
  readonly trigger?: "manual" | "scheduled" | "event_based";
  readonly deletion?: boolean;
  readonly enabled?: boolean;
  readonly target?: number | null;
}

/** A policy from the local registry to itself, unless a target is named. */
export async function createPolicy(database: Database, options: PolicyOptions = {}): Promise<number> {
  const { rows } = await database.query<{ id: number }>(
    `INSERT INTO replication_policies (name, trigger_type, enabled, overlap, deletion) VALUES ('policy ' || gen_random_uuid(), $1, $2, $3, $4) RETURNING id`,
    [options.trigger ?? "manual", options.enabled ?? true, options.overlap ?? "skip", options.deletion ?? false],
  );
  const id = rows[0]?.id ?? 0;
  await database.query("INSERT INTO replication_destinations (policy_id, position, registry_id) VALUES ($1, 0, $2)", [
    id,
    options.target ?? null,
  ]);
  return id;
}

export function openRuns(database: Database, temporal: TemporalConnection | null): Replication {
  const workflows = temporal === null ? null : new ReplicationWorkflows(temporal);
  const policies = new PolicyStore(database);
  return openReplication({
    database,
    policies,
    workflows,
    uiUrl: "http://temporal.test",
    logger: testLogger,
  });
}

export interface RunsParts {
  readonly database: Database;
  readonly temporal: TemporalConnection;
  readonly copySlots?: number;
  readonly graceMs?: number;
  readonly replace?: Partial<ReplicationServices>;
}

export interface RunningRuns {
  readonly replication: Replication;
  readonly reconciler: Reconciler;
  readonly group: WorkerGroup;
}

export function startReplicationWorkers(parts: RunsParts): RunningRuns {
  const { database, temporal } = parts;
  const replication = openRuns(database, temporal);
  const workflows = replication.workflows as ReplicationWorkflows;
  const eventMaxAgeMs = 3_600_000;
  const reconciler = new Reconciler({
    ...replication,
    workflows,
    starter: replication.control,
    schedules: () => Promise.resolve(0),
    uploads: () => Promise.resolve(0),
    eventMaxAgeMs,
    logger: testLogger,
    graceMs: parts.graceMs ?? 30_000,
  });
  const services: ReplicationServices = {
    planner: scriptedPlanner(replication, database),
    copier: scriptedCopier(replication, database),
    ...replication,
    watch: new EndWatch({ books: replication.books, logger: testLogger, everyMs: 200 }),
    starter: replication.control,
    reconciler,
    workflows,
    eventMaxAgeMs,
    announce: () => undefined,
    logger: testLogger,
    ...parts.replace,
  };
  const roles = replicationRoles({ services, workflows, copySlots: parts.copySlots ?? 16 });
  return { replication, reconciler, group: startWorkerGroup({ roles, temporal, dataDir: BUNDLES, logger: testLogger }) };
}

async function scriptOf(database: Database, executionId: number): Promise<Script> {
  const { rows } = await database.query<{ script: Script }>(
    "SELECT s.script FROM test_scripts s JOIN replication_runs r ON r.policy_id = s.policy_id WHERE r.execution_id = $1",
    [executionId],
  );
  return rows[0]?.script ?? IDLE;
}

async function note(
  database: Database,
  executionId: number,
  deed: string,
  more: { readonly tasks?: readonly number[]; readonly round?: number } = {},
): Promise<void> {
  await database.query("INSERT INTO test_deeds (execution_id, deed, tasks, round, pid) VALUES ($1, $2, $3, $4, $5)", [
    executionId,
    deed,
    more.tasks ?? null,
    more.round ?? null,
    process.pid,
  ]);
}

function draft(key: string): TaskDraft {
  return {
    key,
    attrs: {
      operation: "copy",
      resource_type: "image",
      src_resource: `${key} [1 item(s) in total]`,
      dst_resource: `${key} [1 item(s) in total]`,
      src_repository: `team/${key}`,
      dst_repository: `team/${key}`,
      destination: 0,
      target_registry_id: 0,
      items: 1,
      target_empty: false,
    },
    items: [{ action: "copy", tag: "latest", digest: null }],
  };
}

function scriptedPlanner({ items }: Replication, database: Database): Planner {
  return {
    async step({ executionId, cursor }, signal) {
      const script = await scriptOf(database, executionId);
      const index = cursor === null ? 0 : Number(cursor);
      await note(database, executionId, "plan", { round: index });
      if (script.stepMs > 0) await delay(script.stepMs, undefined, { signal });
      if (script.planError !== "" && index === script.steps - 1) throw new SlipwayError("BAD_REQUEST", { message: script.planError });
      const drafts = Array.from({ length: script.batchesPerStep }, (_, batch) => draft(`t${index}-${batch}`));
      const tasks = await items.plan(executionId, drafts);
      return {
        batches: tasks.map(({ id }) => ({ tasks: [id], targets: [0] })),
        next: index + 1 < script.steps ? String(index + 1) : null,
      };
    },
  };
}

function scriptedCopier({ tasks, items }: Replication, database: Database): Copier {
  return {
    abandonUploads: () => Promise.resolve(0),
    async copyBatch({ executionId, tasks: ids, round }, signal) {
      const script = await scriptOf(database, executionId);
      await note(database, executionId, "copy", { tasks: ids, round });
      if (script.copyError === "bug") throw new TypeError("a bug of the copier");
      if (script.copyError !== "") throw new SlipwayError(script.copyError as "DENIED");
      const work = await items.tasks(ids);
      for (const { key } of work) await tasks.update(executionId, key, { status: "Running", revision: round });
      if (script.copyMs > 0) {
        await delay(script.copyMs, undefined, { signal }).catch(async () => {
          await note(database, executionId, "cancelled", { tasks: ids });
          throw new SlipwayError("CANCELLED");
        });
      }
      if (round <= script.againTimes) {
        const retryAt = new Date(Date.now() + script.againMs);
        for (const { key } of work) await tasks.update(executionId, key, { status: "Error", revision: round, retryAt });
        return { again: [{ tasks: ids, delayMs: script.againMs, tried: true }], succeeded: 0, failed: 0 };
      }
      const open = await items.openItems(ids);
      const figures = { bytesCopied: 1, blobsCopied: 1, blobsMounted: 0, blobsSkipped: 0 };
      await items.report(
        open.map(({ id }) => ({ id, status: "Success", reason: "copied", message: "", digest: null, ...figures, attempts: round })),
      );
      for (const { key } of work) await tasks.update(executionId, key, { status: "Success", revision: round });
      await note(database, executionId, "copied", { tasks: ids, round });
      return { again: [], succeeded: ids.length, failed: 0 };
    },
  };
}
