/** What the Harbor API is built from. */
import type { ContentList } from "../../src/auth/content-list.ts";
import type { Principal } from "../../src/auth/principal.ts";
import type { Auth } from "../../src/auth/open-auth.ts";
import type { ProjectStore } from "../../src/catalog/project-store.ts";
import type { Clock } from "../../src/core/clock.ts";
import type { ClientAddresses } from "../http/client-address.ts";

export interface HealthComponent {
  readonly name: string;
  readonly status: "healthy" | "unhealthy";
  readonly error?: string;
}

/** What proxy projects need to know of upstream registries. */
export interface RegistryDirectory {
  exists(id: number): Promise<boolean>;
  /** In the shape of the API, without credential. */
  describe(id: number): Promise<Record<string, unknown> | null>;
}

export interface HarborServices {
  readonly auth: Pick<
    Auth,
    "authenticator" | "decisions" | "users" | "members" | "robots" | "robotSecrets" | "passwords" | "projectList" | "robotPrefix" | "config"
  >;
  readonly projects: ProjectStore;
  readonly content: {
    readonly list: ContentList;
    /** False when there is no such tag. */
    deleteTag(repository: string, tag: string, by: Principal): Promise<boolean>;
  };
  readonly registries: RegistryDirectory | null;
  readonly addresses: Pick<ClientAddresses, "externalUrl" | "remoteAddress">;
  readonly clock: Clock;
  readonly version: string;
  readonly storageProvider: string;
  health(): Promise<readonly HealthComponent[]>;
}
