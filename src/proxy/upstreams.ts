/**
 * The upstreams as this process sees them: names for the resolver, clients for the fetchers. A picture of the rows is kept in memory and read
 * again when a row changed anywhere, or when the invalidation channel was lost.
 */
import type { Project } from "../catalog/registry.ts";
import type { Clock } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import type { Queryable } from "../db/pool.ts";
import type { UpstreamClient } from "../upstream/client.ts";
import type { UpstreamPool } from "../upstream/pool.ts";
import type { UpstreamCredential, UpstreamEndpoint } from "../upstream/types.ts";
import type { NamingWorld, UpstreamName } from "./plan/naming.ts";
import { REGISTRIES_SCOPE } from "./registry-store.ts";
import type { Registry, RegistryDraft, RegistryStore } from "./registry-store.ts";

export interface UpstreamsOptions {
  readonly store: RegistryStore;
  readonly db: Queryable;
  readonly pool: UpstreamPool;
  readonly clock: Clock;
  readonly mirrorHost: string | null;
  readonly invalidations: { trusted(): boolean; subscribe(listener: (scopes: readonly string[]) => void): () => void };
}

interface Picture {
  readonly world: NamingWorld;
  readonly byId: ReadonlyMap<number, Registry>;
  readonly readAt: number;
}

/** A row changed by hand is noticed after this time at the latest. */
const FRESH_MS = 30_000;
/** Types whose one-component names live under library/. */
const LIBRARY_TYPES: ReadonlySet<string> = new Set(["docker-hub", "harbor"]);

export class Upstreams {
  readonly #options: UpstreamsOptions;
  readonly #unsubscribe: () => void;
  #picture: Picture | null = null;
  #reading: Promise<Picture> | null = null;
  #generation = 0;

  constructor(options: UpstreamsOptions) {
    this.#options = options;
    this.#unsubscribe = options.invalidations.subscribe((scopes) => {
      if (scopes.some((scope) => scope === REGISTRIES_SCOPE || scope.startsWith("project:"))) this.#drop();
    });
  }

  /** From memory only; undefined when it must be read. */
  peekWorld(): NamingWorld | undefined {
    return this.#isFresh() ? this.#picture?.world : undefined;
  }

  async world(): Promise<NamingWorld> {
    return (await this.#current()).world;
  }

  async registryOf(project: Project): Promise<Registry> {
    const registry = project.registryId === null ? undefined : (await this.#current()).byId.get(project.registryId);
    if (!registry) throw new SlipwayError("UPSTREAM_UNAVAILABLE", { message: `project ${project.name} has no upstream registry` });
    return registry;
  }

  async clientOf(project: Project): Promise<UpstreamClient> {
    const registry = await this.registryOf(project);
    if (!registry.enabled)
      throw new SlipwayError("UPSTREAM_UNAVAILABLE", { message: `the upstream registry ${registry.name} is switched off` });
    return this.#options.pool.client(endpointOf(registry));
  }

  close(): void {
    this.#unsubscribe();
  }

  #drop(): void {
    this.#generation += 1;
    this.#picture = null;
    this.#reading = null;
  }

  #isFresh(): boolean {
    const { clock, invalidations } = this.#options;
    return this.#picture !== null && invalidations.trusted() && clock.now() - this.#picture.readAt < FRESH_MS;
  }

  /** While the database is away, the last picture holds: upstreams change rarely, pulls do not stop. */
  async #current(): Promise<Picture> {
    if (this.#isFresh() && this.#picture) return this.#picture;
    const last = this.#picture;
    this.#reading ??= this.#read();
    try {
      return await this.#reading;
    } catch (error) {
      if (last) return last;
      throw error;
    }
  }

  async #read(): Promise<Picture> {
    const generation = this.#generation;
    try {
      const [registries, projects] = await Promise.all([this.#options.store.listAll(), this.#projectNames()]);
      const picture: Picture = {
        byId: new Map(registries.map((registry) => [registry.id, registry])),
        world: {
          upstreams: registries.map((registry) => nameOf(registry, projects.get(registry.id) ?? null)),
          mirrorHost: this.#options.mirrorHost,
        },
        readAt: this.#options.clock.now(),
      };
      if (generation === this.#generation) this.#picture = picture;
      return picture;
    } finally {
      if (generation === this.#generation) this.#reading = null;
    }
  }

  /** The oldest proxy project of a registry keeps what is asked for by host. */
  async #projectNames(): Promise<Map<number, string>> {
    const { rows } = await this.#options.db.query<{ registry_id: number; name: string }>(
      "SELECT DISTINCT ON (registry_id) registry_id, name FROM projects WHERE registry_id IS NOT NULL ORDER BY registry_id, id LIMIT 1000",
    );
    return new Map(rows.map((row) => [row.registry_id, row.name]));
  }
}

function nameOf(registry: Registry, project: string | null): UpstreamName {
  return {
    registryId: registry.id,
    name: registry.name,
    hosts: hostsOf(registry),
    project,
    enabled: registry.enabled,
    priority: registry.priority,
    isDefault: registry.isDefault,
    routes: registry.routes,
    impliesLibrary: LIBRARY_TYPES.has(registry.type),
    prefix: registry.prefix,
    projects: registry.projects,
  };
}

/** Under which requests may name it. */
export function hostsOf(registry: Pick<RegistryDraft, "hosts" | "url">): readonly string[] {
  return registry.hosts.length > 0 ? registry.hosts : [hostOf(registry)];
}

function hostOf(registry: Pick<RegistryDraft, "url">): string {
  const { host } = new URL(registry.url);
  return host === "hub.docker.com" || host === "registry-1.docker.io" ? "docker.io" : host;
}

export function endpointOf(registry: RegistryDraft): UpstreamEndpoint {
  return {
    name: registry.name,
    urls: [registry.url, ...registry.mirrors],
    credential: credentialOf(registry),
    ca: registry.caCertificate === "" ? null : registry.caCertificate,
    insecure: registry.insecure,
    trust: "operator",
  };
}

function credentialOf(registry: RegistryDraft): UpstreamCredential | null {
  if (registry.accessKey === "" && registry.accessSecret === "") return null;
  if (registry.credentialType === "identity") return { type: "identity", token: registry.accessSecret, username: registry.accessKey };
  if (registry.credentialType === "bearer") return { type: "bearer", token: registry.accessSecret };
  return { type: "basic", username: registry.accessKey, password: registry.accessSecret };
}
