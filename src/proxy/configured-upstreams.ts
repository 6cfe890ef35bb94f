/**
 * Makes the rows of upstreams and their proxy projects agree with the configuration, at the start of a process. Rows that were made by REST are never touched, and
 * rows that the file no longer names are switched off, because they hold content. Any number of processes may start together: one of them does the work under a
 * lock of the database, the others find it done.
 */
import type { Encryption } from "../auth/encryption.ts";
import { ProjectStore } from "../catalog/project-store.ts";
import type { Project } from "../catalog/registry.ts";
import type { ConfiguredUpstream } from "../config/config.ts";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import type { Database, Queryable } from "../db/pool.ts";
import { isProjectName } from "../oci/names.ts";
import type { Logger } from "../telemetry/logger.ts";
import { canonicalHost } from "./plan/naming.ts";
import { DEFAULT_HOSTS, defaultUpstream } from "./default-upstreams.ts";
import { typeForHost } from "./registry-draft.ts";
import { EMPTY_REGISTRY, RegistryStore } from "./registry-store.ts";
import type { Announcer, Registry, RegistryDraft } from "./registry-store.ts";
import { hostsOf } from "./upstreams.ts";

export interface SyncOptions {
  readonly database: Database;
  readonly encryption: Encryption;
  readonly announcer: Announcer;
  readonly logger: Logger;
  /** Null: nobody said which there should be, and rows that came from a file stay as they are. */
  readonly upstreams: readonly ConfiguredUpstream[] | null;
  readonly defaults: boolean;
  readonly mirrorHost: string | null;
}

export interface SyncReport {
  readonly created: string[];
  readonly updated: string[];
  /** No longer in the file. */
  readonly disabled: string[];
  /** Of the same name as one that was made by REST, which stays. */
  readonly taken: string[];
  readonly projects: string[];
  /** Their project's name belongs to another project, so nothing can be pulled through them. */
  readonly withoutProject: string[];
}

const LOCK_KEY = 7_514_021;
const ATTEMPTS = 5;

export async function syncUpstreams(options: SyncOptions): Promise<SyncReport> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await syncOnce(options);
    } catch (error) {
      // Somebody changed a row by REST at the same moment.
      if (!isSlipwayError(error, "CONFLICT") || attempt >= ATTEMPTS) throw error;
    }
  }
}

async function syncOnce(options: SyncOptions): Promise<SyncReport> {
  const scopes = new Set<string>();
  const collector: Announcer = {
    publish: async (changed) => {
      for (const scope of changed) scopes.add(scope);
    },
  };
  const report = await options.database.transaction(async (tx) => {
    await tx.query("SELECT pg_advisory_xact_lock($1)", [LOCK_KEY]);
    const sync = new Sync(tx, options, collector);
    await sync.run();
    return sync.report;
  });
  if (scopes.size > 0) await options.announcer.publish([...scopes]);
  tell(options.logger, report);
  return report;
}

class Sync {
  readonly #options: SyncOptions;
  readonly #registries: RegistryStore;
  readonly #projects: ProjectStore;
  readonly report: SyncReport = { created: [], updated: [], disabled: [], taken: [], projects: [], withoutProject: [] };

  constructor(tx: Queryable, options: SyncOptions, announcer: Announcer) {
    this.#options = options;
    this.#registries = new RegistryStore(tx, options.encryption, announcer);
    this.#projects = new ProjectStore(tx, announcer);
  }

  async run(): Promise<void> {
    const { upstreams, defaults, mirrorHost } = this.#options;
    if (upstreams !== null) await this.#configured(upstreams);
    const mirror = mirrorHost === null ? null : canonicalHost(mirrorHost);
    if (defaults) await this.#defaults(mirror);
    if (mirror !== null) await this.#mirror(mirror);
  }

  async #configured(upstreams: readonly ConfiguredUpstream[]): Promise<void> {
    const existing = new Map((await this.#registries.listAll()).map((registry) => [registry.name, registry]));
    for (const upstream of upstreams) {
      const registry = await this.#agree(existing.get(upstream.name), upstream);
      if (registry) await this.#ensureProject(registry, upstream);
    }
    const named = new Set(upstreams.map(({ name }) => name));
    for (const registry of existing.values()) {
      if (registry.origin !== "config" || !registry.enabled || named.has(registry.name)) continue;
      await this.#change(registry, { ...registry, enabled: false });
      this.report.disabled.push(registry.name);
    }
  }

  async #agree(registry: Registry | undefined, upstream: ConfiguredUpstream): Promise<Registry | null> {
    const draft = draftOf(upstream);
    if (!registry) {
      this.report.created.push(upstream.name);
      return this.#registries.save(draft);
    }
    if (registry.origin === "rest") {
      this.report.taken.push(upstream.name);
      return null;
    }
    if (isSame(registry, draft)) return registry;
    this.report.updated.push(upstream.name);
    return this.#change(registry, draft);
  }

  async #change(registry: Registry, draft: RegistryDraft): Promise<Registry> {
    const changed = await this.#registries.update(registry.id, draft, registry.version);
    if (!changed) throw new SlipwayError("CONFLICT", { message: `the registry ${registry.name} is being changed` });
    return changed;
  }

  async #ensureProject(registry: Registry, wanted: Pick<ConfiguredUpstream, "project" | "public" | "metadata">): Promise<void> {
    const { project: name, metadata } = wanted;
    const found = await this.#projects.find(name);
    if (!found) {
      const made = await this.#projects.ensure({ name, public: wanted.public, ownerId: null, registryId: registry.id, metadata });
      if (made.registryId === registry.id) this.report.projects.push(name);
      else this.report.withoutProject.push(registry.name);
    } else if (found.registryId !== registry.id) this.report.withoutProject.push(registry.name);
    else if (!hasMetadata(found, metadata)) await this.#projects.update(found.id, { metadataMerge: metadata });
  }

  /** Once: whoever removed one of them meant it. The mirror may have been made before without them. */
  async #defaults(mirror: string | null): Promise<void> {
    const existing = await this.#registries.listAll();
    if (existing.some((registry) => registry.origin === "default" && registry.name !== mirror)) return;
    for (const host of DEFAULT_HOSTS) {
      if (!existing.some((registry) => registry.name === host)) await this.#addDefault(host);
    }
  }

  async #mirror(host: string): Promise<void> {
    const wanted = canonicalHost(host);
    const existing = await this.#registries.listAll();
    const isServed = existing.some(
      (registry) => registry.name === wanted || hostsOf(registry).some((own) => canonicalHost(own) === wanted),
    );
    if (!isServed) await this.#addDefault(wanted);
  }

  async #addDefault(host: string): Promise<void> {
    const registry = await this.#registries.save(defaultUpstream(host));
    this.report.created.push(host);
    // A port cannot stand in the name of a project.
    const project = isProjectName(host) ? host : host.replaceAll(":", "-");
    await this.#ensureProject(registry, { project, public: true, metadata: {} });
  }
}

function draftOf(upstream: ConfiguredUpstream): RegistryDraft {
  return {
    ...EMPTY_REGISTRY,
    name: upstream.name,
    type: upstream.type ?? typeForHost(new URL(upstream.url).hostname),
    url: upstream.url,
    mirrors: upstream.mirrors,
    hosts: upstream.hosts,
    credentialType: upstream.username === "" && upstream.password === "" ? "" : upstream.credentialType,
    accessKey: upstream.username,
    accessSecret: upstream.password,
    caCertificate: upstream.caCertificate,
    insecure: upstream.insecure,
    enabled: upstream.enabled,
    priority: upstream.priority,
    isDefault: upstream.isDefault,
    routes: upstream.routes,
    prefix: upstream.prefix,
    projects: upstream.projects,
    description: upstream.description,
    origin: "config",
  };
}

const FIELDS = Object.keys({ ...EMPTY_REGISTRY, name: "", url: "" }) as (keyof RegistryDraft)[];

function isSame(registry: Registry, draft: RegistryDraft): boolean {
  return FIELDS.every((field) => canonical(registry[field]) === canonical(draft[field]));
}

/** The database gives objects back with their keys in another order. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

function hasMetadata(project: Project, metadata: Readonly<Record<string, string>>): boolean {
  return Object.entries(metadata).every(([key, value]) => project.metadata[key] === value);
}

function tell(logger: Logger, report: SyncReport): void {
  const { taken, withoutProject, ...done } = report;
  if (Object.values(done).some((names) => names.length > 0)) logger.info(done, "upstreams were made to agree with the configuration");
  if (taken.length > 0)
    logger.warn({ upstreams: taken }, "upstreams of the configuration file were left out: REST made others of the same name");
  if (withoutProject.length > 0) {
    logger.warn({ upstreams: withoutProject }, "upstreams have no proxy project: another project has its name; set `project`");
  }
}
