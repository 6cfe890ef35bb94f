/** The state that a batch begins with, read in a handful of statements. */
import { SlipwayError } from "../../core/errors.ts";
import type { Execution } from "../../execution/execution-store.ts";
import type { RegistryAdapter } from "../adapters/adapter.ts";
import type { Item, WorkTask } from "../item-store.ts";
import { compileFilters } from "../plan/filters.ts";
import type { Policy } from "../plan/policy.ts";
import type { BatchRequest } from "../plan/run.ts";
import type { CopyServices } from "./services.ts";
import type { Target } from "./target.ts";

export interface LoadedBatch {
  readonly execution: Execution;
  readonly policy: Policy;
  readonly platforms: readonly string[] | null;
  readonly tasks: ReadonlyMap<number, WorkTask>;
  readonly items: readonly Item[];
  readonly source: RegistryAdapter;
  /** By registry; of some the adapter could not be made, and why. */
  readonly targets: ReadonlyMap<number, Target | SlipwayError>;
}

/** Null when the run has ended: there is nothing to do any more. */
export async function loadBatch(
  services: CopyServices,
  request: BatchRequest,
  tasks: readonly WorkTask[],
  signal: AbortSignal,
): Promise<LoadedBatch | null> {
  const { executions, items: itemStore, runs, options } = services;
  const { executionId } = request;
  const [execution, run, items] = await Promise.all([
    executions.find(executionId),
    runs.find(executionId),
    itemStore.openItems(tasks.map((task) => task.id)),
  ]);
  if (!execution || !run || execution.endedAt !== null) return null;
  const policy = await options.policies.find(run.policyId);
  if (!policy) throw new SlipwayError("NOT_FOUND", { message: `policy ${run.policyId} was removed` });
  services.governor(policy.id).setSpeed(run.speedKb ?? policy.speedKb);
  const source = await options.adapters.open(policy.sourceRegistryId, signal);
  const targets = await openTargets(services, { policy, tasks }, signal);
  const byId = new Map(tasks.map((task) => [task.id, task]));
  return { execution, policy, platforms: compileFilters(policy.filters).platforms, tasks: byId, items, source, targets };
}

async function openTargets(
  services: CopyServices,
  batch: { policy: Policy; tasks: readonly WorkTask[] },
  signal: AbortSignal,
): Promise<Map<number, Target | SlipwayError>> {
  const targets = new Map<number, Target | SlipwayError>();
  const { policy, tasks } = batch;
  for (const [registryId, mine] of Map.groupBy(tasks, (task) => task.attrs.target_registry_id)) {
    const empty = new Set(mine.filter((task) => task.attrs.target_empty).map((task) => task.attrs.dst_repository));
    try {
      const adapter = await services.options.adapters.openTarget({ registryId, sourceRegistryId: policy.sourceRegistryId }, signal);
      targets.set(registryId, {
        registryId,
        adapter,
        lanes: services.lanes.of(adapter.host),
        mounts: adapter.capabilities.mounts,
        isEmpty: (repository) => empty.has(repository),
      });
    } catch (error) {
      if (!(error instanceof SlipwayError) || error.code === "CANCELLED" || error.code === "DATABASE_UNAVAILABLE") throw error;
      targets.set(registryId, error);
    }
  }
  return targets;
}
