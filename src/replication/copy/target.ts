/** One destination of a batch. */
import type { RegistryAdapter } from "../adapters/adapter.ts";
import type { HostLanes } from "./lanes.ts";

export interface Target {
  readonly registryId: number;
  readonly adapter: RegistryAdapter;
  readonly lanes: HostLanes;
  readonly mounts: boolean;
  /** Nothing was in the repository when the run was planned: nothing in it needs to be looked for. */
  isEmpty(repository: string): boolean;
}
