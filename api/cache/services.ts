/** What the cache API is built from. */
import type { Auth } from "../../src/auth/open-auth.ts";
import type { ProjectStore } from "../../src/catalog/project-store.ts";
import type { Clock } from "../../src/core/clock.ts";
import type { CacheView } from "../../src/proxy/cache-view.ts";
import type { RegistryProbe } from "../../src/proxy/registry-probe.ts";
import type { RegistryStore } from "../../src/proxy/registry-store.ts";
import type { UpstreamPool } from "../../src/upstream/pool.ts";
import type { HarborServices } from "../harbor/services.ts";

export interface CacheApiServices extends Pick<HarborServices, "addresses"> {
  readonly auth: HarborServices["auth"] & Pick<Auth, "tokenService">;
  readonly view: CacheView;
  readonly registries: RegistryStore;
  readonly projects: Pick<ProjectStore, "find" | "ensure" | "remove">;
  readonly probe: Pick<RegistryProbe, "probe">;
  readonly pool: Pick<UpstreamPool, "stats">;
  readonly clock: Clock;
}
