/** Runs planning to its end and shows what it wrote. */
import { createPlanner } from "../../../src/replication/planning/create-planner.ts";
import type { PlannerLimits } from "../../../src/replication/planning/create-planner.ts";
import type { Policy } from "../../../src/replication/plan/policy.ts";
import type { PlannedBatch } from "../../../src/replication/plan/run.ts";
import type { Planner } from "../../../src/replication/planner.ts";
import { systemClock } from "../../../src/core/clock.ts";
import type { FakeRegistry } from "../../support/fake-registry.ts";
import type { ReplicationSetting } from "../support.ts";

export function plannerFor(setting: ReplicationSetting, policy: Policy, limits: Partial<PlannerLimits> = {}): Planner {
  const { database, adapters } = setting;
  return createPlanner({ database, adapters, policies: { find: () => Promise.resolve(policy) }, clock: systemClock, limits });
}

export interface Planned {
  readonly batches: readonly PlannedBatch[];
  readonly steps: number;
  readonly longestCursor: number;
}

export async function planAll(planner: Planner, executionId: number): Promise<Planned> {
  const batches: PlannedBatch[] = [];
  let [cursor, steps, longestCursor]: [string | null, number, number] = [null, 0, 0];
  do {
    const step = await planner.step({ executionId, cursor }, new AbortController().signal, () => undefined);
    batches.push(...step.batches);
    cursor = step.next;
    steps += 1;
    longestCursor = Math.max(longestCursor, cursor?.length ?? 0);
  } while (cursor !== null);
  return { batches, steps, longestCursor };
}

export interface ItemFacts {
  readonly action: string;
  readonly source: string;
  readonly tag: string | null;
  readonly target: string;
  readonly status: string;
  readonly reason: string;
  readonly destination: number;
  readonly digest: string | null;
}

export async function itemsOf(setting: ReplicationSetting, executionId: number): Promise<ItemFacts[]> {
  const { rows } = await setting.database.query<ItemFacts>(
    `SELECT i.action, i.src_repository AS source, i.tag, i.dest_repository AS target, i.status, i.reason, i.digest,
            (t.extra_attrs ->> 'destination')::integer AS destination
       FROM replication_items i JOIN tasks t ON t.id = i.task_id WHERE i.execution_id = $1
      ORDER BY destination, source, tag NULLS FIRST`,
    [executionId],
  );
  return rows;
}

export interface TaskFacts {
  readonly id: number;
  readonly key: string;
  readonly status: string;
  readonly message: string;
  readonly attrs: Record<string, unknown>;
}

export async function tasksOf(setting: ReplicationSetting, executionId: number): Promise<TaskFacts[]> {
  const { rows } = await setting.database.query<TaskFacts>(
    "SELECT id, key, status, status_message AS message, extra_attrs AS attrs FROM tasks WHERE execution_id = $1 ORDER BY id",
    [executionId],
  );
  return rows;
}

export async function linesOf(setting: ReplicationSetting, executionId: number): Promise<string[]> {
  const { rows } = await setting.database.query<{ level: string; line: string }>(
    "SELECT level, line FROM execution_logs WHERE execution_id = $1 AND task_id IS NULL ORDER BY id",
    [executionId],
  );
  return rows.map(({ level, line }) => `${level} ${line}`);
}

export async function unchangedOf(setting: ReplicationSetting, executionId: number): Promise<number> {
  const sql = "SELECT items_unchanged AS unchanged FROM replication_runs WHERE execution_id = $1";
  const { rows } = await setting.database.query<{ unchanged: number }>(sql, [executionId]);
  return rows[0]?.unchanged ?? -1;
}

/** Requests by kind, without those that were none. */
export function requests(registry: FakeRegistry): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { kind } of registry.calls) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}

/** The same images in both, as if they had been copied. */
export function fill(registries: readonly FakeRegistry[], repositories: Readonly<Record<string, readonly string[]>>): void {
  for (const registry of registries)
    for (const [name, tags] of Object.entries(repositories)) for (const tag of tags) registry.putImage(name, tag);
}
