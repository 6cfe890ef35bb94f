/** Which project a request is about, with proxies: the order of plan/naming.ts over what exists now. Harmless to ask often: everything is in memory. */
import { LRUCache } from "lru-cache";
import type { Project, RegistryReader } from "../catalog/registry.ts";
import { SlipwayError } from "../core/errors.ts";
import { parseRepositoryName } from "../oci/names.ts";
import { byName, byNamespace, isRepositoryAllowed, pathAtUpstream } from "./plan/naming.ts";
import type { NamingWorld, UpstreamName, UpstreamPath } from "./plan/naming.ts";
import type { RepositoryRules } from "./plan/naming.ts";
import type { Upstreams } from "./upstreams.ts";

export interface ResolvedName {
  readonly kind: "local" | "proxy";
  readonly repository: string;
  readonly projectName: string;
  readonly project: Project | null;
  readonly upstreamRepository: string;
}

export interface ResolverOptions {
  readonly reader: Pick<RegistryReader, "peekProject" | "findProject" | "repositoryExists">;
  readonly upstreams: Pick<Upstreams, "peekWorld" | "world">;
  readonly rulesOf: (project: Project) => RepositoryRules;
  /** Told when a plain name went to the mirror upstream; of each name once in a while. */
  readonly onMirrored: (requested: string) => void;
}

export interface ResolveRequest {
  readonly requested: string;
  readonly namespace: string | null;
  /** Writes to a project of ours never go to a mirror. */
  readonly isWrite?: boolean;
}

const REMEMBERED_MS = 60_000;
const TOLD_MS = 3_600_000;

export class NameResolver {
  readonly #options: ResolverOptions;
  /** Repositories of ours that exist: with a mirror, plain names that do not are its. */
  readonly #ours = new LRUCache<string, true>({ max: 20_000, ttl: REMEMBERED_MS });

  readonly #told = new LRUCache<string, true>({ max: 10_000, ttl: TOLD_MS });

  constructor(options: ResolverOptions) {
    this.#options = options;
  }

  /** Undefined when memory does not know enough, and for whatever resolve would refuse. */
  peek(request: ResolveRequest): ResolvedName | undefined {
    const found = this.#peek(request);
    const isRefused = found?.kind === "proxy" && found.project && !this.#isAllowed(found.project, found.upstreamRepository);
    return isRefused ? undefined : found;
  }

  /** As peek, for a name that is asked for again and again: what it gave holds as long as upstreams and project are the same. */
  lookup(request: ResolveRequest): () => ResolvedName | undefined {
    const { reader, upstreams } = this.#options;
    let last: { readonly world: NamingWorld; readonly found: ResolvedName } | undefined;
    return () => {
      const world = upstreams.peekWorld();
      if (last !== undefined && last.world === world && reader.peekProject(last.found.projectName) === last.found.project)
        return last.found;
      const found = this.peek(request);
      // With a mirror, whose a plain name is depends on more.
      const holds = world !== undefined && found?.project && (found.kind === "proxy" || world.mirrorHost === null);
      last = holds ? { world, found } : undefined;
      return found;
    };
  }

  #peek(request: ResolveRequest): ResolvedName | undefined {
    const world = this.#options.upstreams.peekWorld();
    if (world === undefined) return undefined;
    if (request.namespace !== null) {
      const named = byNamespace(world, request);
      const project = named?.upstream.project ? this.#options.reader.peekProject(named.upstream.project) : undefined;
      return named && project ? this.#proxied(project, named) : undefined;
    }
    const name = parseRepositoryName(request.requested);
    const project = name ? this.#options.reader.peekProject(name.project) : undefined;
    if (!name || !project) return undefined;
    const mayBeMirrored = world.mirrorHost !== null && project.registryId === null && !request.isWrite && !this.#ours.get(name.name);
    return mayBeMirrored ? undefined : this.#within(project, name, world);
  }

  async resolve(request: ResolveRequest, signal?: AbortSignal): Promise<ResolvedName> {
    const found = await this.#resolve(request, signal);
    if (found.kind === "proxy" && found.project && !this.#isAllowed(found.project, found.upstreamRepository)) {
      throw new SlipwayError("NAME_UNKNOWN", { message: "this repository is not allowed through the proxy" });
    }
    return found;
  }

  async #resolve(request: ResolveRequest, signal?: AbortSignal): Promise<ResolvedName> {
    const { reader, upstreams } = this.#options;
    const world = await upstreams.world();
    if (request.namespace !== null) {
      const named = byNamespace(world, request);
      if (!named) throw new SlipwayError("NAME_UNKNOWN", { detail: { namespace: request.namespace.slice(0, 255) } });
      return this.#proxied(await this.#projectOf(named.upstream, signal), named);
    }
    const name = parseRepositoryName(request.requested);
    if (name) {
      const project = await reader.findProject(name.project, signal);
      const mayBeMirrored = world.mirrorHost !== null && project?.registryId === null && !request.isWrite;
      if (project && (!mayBeMirrored || (await this.#isOurs(name.name)))) return this.#within(project, name, world);
    }
    const found = byName(world, request.requested);
    // A mirror is for pulls: what is pushed under a new name makes a project of ours.
    if (found && !(request.isWrite && found.via === "mirror" && name)) {
      if (found.via === "mirror") this.#tellMirrored(request.requested);
      return this.#proxied(await this.#projectOf(found.upstream, signal), found);
    }
    if (!name) throw new SlipwayError("NAME_UNKNOWN");
    return {
      kind: "local",
      repository: name.name,
      projectName: name.project,
      project: await reader.findProject(name.project, signal),
      upstreamRepository: "",
    };
  }

  #tellMirrored(requested: string): void {
    if (this.#told.get(requested)) return;
    this.#told.set(requested, true);
    this.#options.onMirrored(requested);
  }

  async #isOurs(repository: string): Promise<boolean> {
    if (this.#ours.get(repository)) return true;
    const exists = await this.#options.reader.repositoryExists(repository);
    if (exists) this.#ours.set(repository, true);
    return exists;
  }

  async #projectOf(upstream: UpstreamName, signal?: AbortSignal): Promise<Project> {
    const project = upstream.project === null ? null : await this.#options.reader.findProject(upstream.project, signal);
    if (!project) throw new SlipwayError("NAME_UNKNOWN", { detail: { upstream: upstream.name } });
    return project;
  }

  #within(project: Project, name: { name: string; project: string }, world: NamingWorld): ResolvedName {
    if (project.registryId === null)
      return { kind: "local", repository: name.name, projectName: project.name, project, upstreamRepository: "" };
    const upstream = world.upstreams.find((candidate) => candidate.registryId === project.registryId);
    const path = name.name.slice(project.name.length + 1);
    return this.#named(project, upstream ? pathAtUpstream(upstream, path) : path);
  }

  #proxied(project: Project, found: UpstreamPath): ResolvedName {
    return this.#named(project, found.path);
  }

  #isAllowed(project: Project, path: string): boolean {
    return isRepositoryAllowed(this.#options.rulesOf(project), path);
  }

  #named(project: Project, path: string): ResolvedName {
    return { kind: "proxy", repository: `${project.name}/${path}`, projectName: project.name, project, upstreamRepository: path };
  }
}
