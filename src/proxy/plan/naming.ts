/**
 * Which project a name means. The order is the contract: an explicit namespace, a project of that name, a host-style name of an enabled upstream, a
 * route pattern, the default upstream; anything else is unknown. Pure: what exists is handed in.
 */
export interface UpstreamName {
  readonly registryId: number;
  readonly name: string;
  /** Hosts under which it may be named. */
  readonly hosts: readonly string[];
  /** The proxy project that keeps its content. */
  readonly project: string | null;
  readonly enabled: boolean;
  /** Lower goes first. */
  readonly priority: number;
  readonly isDefault: boolean;
  readonly routes: readonly { readonly pattern: string; readonly priority: number }[];
  /** Docker Hub keeps one-component names under library/. */
  readonly impliesLibrary: boolean;
  /** Put before every path that does not begin with it. */
  readonly prefix?: string;
  /** Where the upstream has projects: which of them a name belongs to. */
  readonly projects?: readonly UpstreamProject[];
}

export interface UpstreamProject {
  readonly name: string;
  readonly pattern: string;
  /** Lower goes first. */
  readonly priority: number;
  /** Takes the names that no pattern takes. */
  readonly isDefault: boolean;
}

export interface NamingWorld {
  readonly upstreams: readonly UpstreamName[];
  /** Plain names that no local project has go to this host (SLIPWAY_MIRROR). */
  readonly mirrorHost: string | null;
}

export interface NameRequest {
  readonly requested: string;
  /** The ?ns= parameter, when it is not our own name. */
  readonly namespace: string | null;
}

export interface UpstreamPath {
  readonly upstream: UpstreamName;
  /** Name at the upstream. */
  readonly path: string;
  readonly via: "namespace" | "host" | "route" | "default" | "mirror";
}

/** The upstream that a namespace names; null when we do not serve it, which must be refused: Slipway is no open relay. */
export function byNamespace(world: NamingWorld, request: NameRequest): UpstreamPath | null {
  const upstream = request.namespace === null ? undefined : byHost(world, request.namespace);
  return upstream ? { upstream, path: pathAtUpstream(upstream, request.requested), via: "namespace" } : null;
}

/** What a name means when no project has its first component. */
export function byName(world: NamingWorld, requested: string): UpstreamPath | null {
  const slash = requested.indexOf("/");
  const first = slash < 0 ? "" : requested.slice(0, slash);
  if (looksLikeHost(first)) {
    const upstream = byHost(world, first);
    // A host that we do not serve must not be looked up as a path elsewhere.
    return upstream ? { upstream, path: pathAtUpstream(upstream, requested.slice(slash + 1)), via: "host" } : null;
  }
  const mirror = world.mirrorHost === null ? undefined : byHost(world, world.mirrorHost);
  if (mirror) return { upstream: mirror, path: pathAtUpstream(mirror, requested), via: "mirror" };
  const routed = byRoute(world, requested) ?? byProjectPattern(world, requested);
  if (routed) return { upstream: routed, path: pathAtUpstream(routed, requested), via: "route" };
  const fallback = world.upstreams.find((upstream) => upstream.enabled && upstream.isDefault && upstream.project !== null);
  return fallback ? { upstream: fallback, path: pathAtUpstream(fallback, requested), via: "default" } : null;
}

function byHost(world: NamingWorld, host: string): UpstreamName | undefined {
  const wanted = canonicalHost(host);
  return world.upstreams
    .filter((upstream) => upstream.enabled && upstream.project !== null && upstream.hosts.some((own) => canonicalHost(own) === wanted))
    .toSorted((a, b) => a.priority - b.priority)[0];
}

function byRoute(world: NamingWorld, requested: string): UpstreamName | undefined {
  const matches = world.upstreams.flatMap((upstream) =>
    upstream.enabled && upstream.project !== null
      ? upstream.routes.filter((route) => matchesGlob(route.pattern, requested)).map((route) => ({ upstream, route }))
      : [],
  );
  const [best] = matches.toSorted(
    (a, b) =>
      a.route.priority - b.route.priority || a.upstream.priority - b.upstream.priority || b.route.pattern.length - a.route.pattern.length,
  );
  return best?.upstream;
}

/** Patterns of projects come after all routes. */
function byProjectPattern(world: NamingWorld, requested: string): UpstreamName | undefined {
  const matches = world.upstreams.flatMap((upstream) => {
    const project = upstream.enabled && upstream.project !== null ? matchingProject(upstream.projects ?? [], requested) : undefined;
    return project ? [{ upstream, project }] : [];
  });
  return matches.toSorted((a, b) => a.project.priority - b.project.priority || a.upstream.priority - b.upstream.priority)[0]?.upstream;
}

/** The name at the upstream of what is called `path` here. */
export function pathAtUpstream(upstream: Pick<UpstreamName, "impliesLibrary" | "prefix" | "projects">, path: string): string {
  const prefix = projectOf(upstream.projects ?? [], path)?.name ?? upstream.prefix ?? "";
  if (prefix !== "") return path.startsWith(`${prefix}/`) ? path : `${prefix}/${path}`;
  return upstream.impliesLibrary && !path.includes("/") ? `library/${path}` : path;
}

function projectOf(projects: readonly UpstreamProject[], path: string): UpstreamProject | undefined {
  const named = projects.find((project) => path.startsWith(`${project.name}/`));
  return named ?? matchingProject(projects, path) ?? projects.find((project) => project.isDefault) ?? projects[0];
}

function matchingProject(projects: readonly UpstreamProject[], path: string): UpstreamProject | undefined {
  return projects.filter((project) => matchesGlob(project.pattern, path)).toSorted((a, b) => a.priority - b.priority)[0];
}

/** A first component is a host when it could not be a plain path component of a short name, as every client decides it. */
function looksLikeHost(component: string): boolean {
  return component.includes(".") || component.includes(":") || component === "localhost";
}

export function canonicalHost(host: string): string {
  const lower = host.toLowerCase().replace(/:443$/, "");
  return lower === "registry-1.docker.io" || lower === "index.docker.io" ? "docker.io" : lower;
}

/** `*` within a component, `**` over components, `?` one character, `{a,b}` either. Linear in practice: patterns have at most ten stars. */
export function matchesGlob(pattern: string, name: string): boolean {
  return new RegExp(`^${globSource(pattern)}$`).test(name);
}

function globSource(pattern: string): string {
  return pattern
    .split(/(\*\*\/?|\*|\?|\{[^{}]*\})/)
    .map((part) => {
      if (part.startsWith("{") && part.endsWith("}")) return `(?:${part.slice(1, -1).split(",").map(globSource).join("|")})`;
      if (part === "**/") return "(?:.*/)?";
      if (part === "**") return ".*";
      if (part === "*") return "[^/]*";
      if (part === "?") return "[^/]";
      return part.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
    })
    .join("");
}

/** A list of patterns in one text: commas separate, except inside braces. */
export function splitPatterns(text: string): string[] {
  return (text.match(/(?:\{[^{}]*\}|[^,])+/g) ?? []).map((part) => part.trim()).filter((part) => part !== "");
}

export interface RepositoryRules {
  /** Empty: everything is allowed. */
  readonly allow: readonly string[];
  readonly deny: readonly string[];
}

/** Deny wins over allow. */
export function isRepositoryAllowed(rules: RepositoryRules, path: string): boolean {
  if (rules.deny.some((pattern) => matchesGlob(pattern, path))) return false;
  return rules.allow.length === 0 || rules.allow.some((pattern) => matchesGlob(pattern, path));
}
