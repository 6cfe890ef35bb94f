/** [[upstreams]] of the configuration file: registries to pull through. Every problem is one line that names its key. */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { isSlipwayError } from "../core/errors.ts";
import { isProjectName } from "../oci/names.ts";
import { splitPatterns } from "../proxy/plan/naming.ts";
import { TAG_MODES } from "../proxy/plan/policy.ts";
import { checkCertificate, checkHost, checkPath, checkPattern, MAX_NAME, normalizeUrl, REGISTRY_TYPES } from "../proxy/registry-draft.ts";

export interface ConfiguredUpstream {
  readonly name: string;
  readonly type: string | null;
  readonly url: string;
  readonly mirrors: readonly string[];
  readonly hosts: readonly string[];
  readonly credentialType: "basic" | "identity" | "bearer";
  readonly username: string;
  readonly password: string;
  readonly caCertificate: string;
  readonly insecure: boolean;
  readonly enabled: boolean;
  readonly priority: number;
  readonly isDefault: boolean;
  readonly routes: readonly { readonly pattern: string; readonly priority: number }[];
  readonly prefix: string;
  readonly projects: readonly { readonly name: string; readonly pattern: string; readonly priority: number; readonly isDefault: boolean }[];
  readonly description: string;
  /** The proxy project that keeps its content, and its metadata. */
  readonly project: string;
  readonly public: boolean;
  readonly metadata: Readonly<Record<string, string>>;
}

const MAX_UPSTREAMS = 500;
const MAX_PROJECTS = 100;

function text(check: (value: string) => string | null): z.ZodString {
  return z.string().check((context) => {
    const problem = check(context.value);
    if (problem !== null) context.issues.push({ code: "custom", message: problem, input: context.value });
  });
}

function checkUrl(url: string): string | null {
  try {
    normalizeUrl(url);
    return null;
  } catch (error) {
    return isSlipwayError(error) ? error.message : "invalid URL";
  }
}

const priority = z.int().min(-1_000_000).max(1_000_000);
const seconds = z.int().min(0).max(99_999_999);
const patterns = text(
  (value) =>
    splitPatterns(value)
      .map(checkPattern)
      .find((problem) => problem !== null) ?? null,
);
const name = text((value) =>
  /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(value) && value.length <= MAX_NAME ? null : "expected letters, digits, dots, - and _, at most 64",
);

const connection = {
  url: text(checkUrl),
  registry: text(checkPath).optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  password_file: z.string().optional(),
  skip_tls_verify: z.boolean().optional(),
};

const SHAPE = {
  name,
  ...connection,
  display_name: z.string().max(256).optional(),
  projects: z
    .array(
      z.strictObject({
        name: text(checkPath),
        pattern: text(checkPattern).optional(),
        priority: priority.optional(),
        is_default: z.boolean().optional(),
      }),
    )
    .max(MAX_PROJECTS)
    .optional(),
  priority: priority.optional(),
  enabled: z.boolean().optional(),
  cache_isolation: z.enum(["shared", "isolated"]).optional(),
  is_default: z.boolean().optional(),
  routes: z
    .array(z.strictObject({ pattern: text(checkPattern), priority: priority.optional() }))
    .max(1000)
    .optional(),
  type: z.enum(REGISTRY_TYPES).optional(),
  mirrors: z.array(text(checkUrl)).max(9).optional(),
  hosts: z.array(text(checkHost)).max(50).optional(),
  credential_type: z.enum(["basic", "identity", "bearer"]).optional(),
  ca_file: z.string().optional(),
  project: z.string().optional(),
  public: z.boolean().optional(),
  mode: z.enum(TAG_MODES).optional(),
  tag_ttl: seconds.optional(),
  max_stale: seconds.optional(),
  negative_ttl: z.int().min(10).max(60).optional(),
  keep_deleted: z.boolean().optional(),
  allow: z.array(patterns).optional(),
  deny: z.array(patterns).optional(),
  push_through: z.boolean().optional(),
  prefetch: z.boolean().optional(),
};

/** For docs/configuration.md; a key without a text does not compile. */
export const UPSTREAM_KEY_DOCS: Readonly<Record<keyof typeof SHAPE, string>> = {
  name: "Names the upstream; unique in the file.",
  url: "Address, http or https.",
  registry:
    "Project at the upstream that is put before every path that does not begin with it. Unset: Docker Hub and Harbor get `library/` before one-component names.",
  username: "User or robot of the upstream.",
  password: "Its password or token.",
  password_file: "A file that holds the password, such as a mounted secret.",
  skip_tls_verify: "Accept any TLS certificate. Better: `ca_file`.",
  display_name: "A description for people.",
  projects:
    "Projects at the upstream, each with `name`, `pattern` (default `<name>/*`), `priority` (100) and `is_default`: which project a name without one belongs to.",
  priority: "Lower goes first among upstreams of the same host or pattern; default 100.",
  enabled: "`false` keeps its content and answers for nothing else.",
  cache_isolation: "Accepted; content is always served by the rights of its own project only.",
  is_default: "Takes the names that nothing else takes.",
  routes:
    "Patterns over names without a project, each with `pattern` and `priority` (100): `*` within a component, `**` over components, `{a,b}` either.",
  type: "Harbor's name for the kind of registry; unset: told from the host.",
  mirrors: "Further addresses of the same registry, tried in order when `url` cannot be reached.",
  hosts: "Names by which requests may ask for it (`/v2/<host>/...`, `?ns=<host>`); unset: the host of `url`.",
  credential_type: "`basic` (default), `identity` (an OAuth2 refresh token) or `bearer` (a token sent as it is), given as `password`.",
  ca_file: "PEM file of the authorities that its certificate is checked with.",
  project: "The proxy project that keeps its content; unset: `name` in lower case.",
  public: "Whether everybody may pull; unset: only where there is no credential. Holds when the project is made.",
  mode: "`proxy.mode` for this upstream.",
  tag_ttl: "`proxy.tag_ttl_seconds` for this upstream.",
  max_stale: "`proxy.max_stale_seconds` for this upstream.",
  negative_ttl: "`proxy.negative_seconds` for this upstream.",
  keep_deleted: "Serve tags that the upstream has deleted.",
  allow: "Patterns of the repositories that may be pulled; unset: all.",
  deny: "Patterns of those that may not; wins over `allow`.",
  push_through: "Send pushes on to the upstream.",
  prefetch: "`proxy.prefetch` for this upstream.",
};

type Entry = z.output<z.ZodObject<typeof SHAPE, z.core.$strict>>;

/** `upstreams` of the file, or the single `[upstream]` of older files, which meant a Harbor. */
export function parseUpstreams(file: Readonly<Record<string, unknown>>, problems: string[]): ConfiguredUpstream[] {
  const list = file["upstreams"] ?? [];
  if (!Array.isArray(list)) {
    problems.push("upstreams: expected a list, as in [[upstreams]]");
    return [];
  }
  if (list.length > MAX_UPSTREAMS) problems.push(`upstreams: expected at most ${MAX_UPSTREAMS}`);
  const found = list.slice(0, MAX_UPSTREAMS).flatMap((value, index) => {
    const path = `upstreams[${index}]`;
    return readEntry(value, path, problems).map((upstream) => ({ path, upstream }));
  });
  if (list.length === 0 && file["upstream"] !== undefined) {
    const legacy = z.strictObject(connection).safeParse(file["upstream"]);
    if (legacy.success) return readEntry({ name: "default", type: "harbor", is_default: true, ...legacy.data }, "upstream", problems);
    problems.push(...linesOf(legacy.error, "upstream"));
  }
  findDuplicates(found, problems);
  return found.map(({ upstream }) => upstream);
}

function readEntry(value: unknown, path: string, problems: string[]): ConfiguredUpstream[] {
  const parsed = z.strictObject(SHAPE).safeParse(value);
  if (!parsed.success) {
    problems.push(...linesOf(parsed.error, path));
    return [];
  }
  const before = problems.length;
  const upstream = build(parsed.data, path, problems);
  return problems.length === before ? [upstream] : [];
}

/** "upstreams[0].routes[1].pattern: expected ..." */
function linesOf(error: z.ZodError, path: string): string[] {
  return error.issues.flatMap((issue) => {
    const at = path + issue.path.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`)).join("");
    if (issue.code === "unrecognized_keys") return issue.keys.map((key) => `${at}.${key}: unknown setting`);
    return [`${at}: ${issue.message.replace(/^Invalid (input|option): /, "")}`];
  });
}

function build(entry: Entry, path: string, problems: string[]): ConfiguredUpstream {
  const password = entry.password ?? readFile(entry.password_file, `${path}.password_file`, problems).trim();
  const caCertificate = readFile(entry.ca_file, `${path}.ca_file`, problems);
  const certificateProblem = checkCertificate(caCertificate);
  if (certificateProblem !== null) problems.push(`${path}.ca_file: ${certificateProblem}`);
  if (entry.password !== undefined && entry.password_file !== undefined) problems.push(`${path}.password_file: password is given as well`);
  const project = entry.project ?? entry.name.toLowerCase();
  if (!isProjectName(project)) {
    problems.push(`${path}.${entry.project === undefined ? "name" : "project"}: "${project}" cannot be the name of a project; set project`);
  }
  const projects = (entry.projects ?? []).map((one) => ({
    name: one.name,
    pattern: one.pattern ?? `${one.name}/*`,
    priority: one.priority ?? 100,
    isDefault: one.is_default ?? false,
  }));
  if (projects.filter((one) => one.isDefault).length > 1) problems.push(`${path}.projects: more than one is_default`);
  if (new Set(projects.map((one) => one.name)).size < projects.length) problems.push(`${path}.projects: a name stands twice`);
  return {
    name: entry.name,
    type: entry.type ?? null,
    url: normalizeUrl(entry.url),
    mirrors: (entry.mirrors ?? []).map(normalizeUrl),
    hosts: entry.hosts ?? [],
    credentialType: entry.credential_type ?? "basic",
    username: entry.username ?? "",
    password,
    caCertificate,
    insecure: entry.skip_tls_verify ?? false,
    enabled: entry.enabled ?? true,
    priority: entry.priority ?? 100,
    isDefault: entry.is_default ?? false,
    routes: (entry.routes ?? []).map((route) => ({ pattern: route.pattern, priority: route.priority ?? 100 })),
    prefix: entry.registry ?? "",
    projects,
    description: entry.display_name ?? "",
    project,
    public: entry.public ?? (entry.username === undefined && password === ""),
    metadata: metadataOf(entry),
  };
}

/** In the texts of a project's metadata; what is not given is left to the defaults of the proxy. */
function metadataOf(entry: Entry): Record<string, string> {
  const given = {
    proxy_mode: entry.mode,
    proxy_tag_ttl: entry.tag_ttl,
    proxy_max_stale: entry.max_stale,
    proxy_negative_ttl: entry.negative_ttl,
    proxy_keep_deleted: entry.keep_deleted,
    proxy_allow: entry.allow?.join(","),
    proxy_deny: entry.deny?.join(","),
    proxy_push_through: entry.push_through,
    proxy_prefetch: entry.prefetch,
  };
  return Object.fromEntries(Object.entries(given).flatMap(([key, value]) => (value === undefined ? [] : [[key, String(value)]])));
}

function readFile(file: string | undefined, key: string, problems: string[]): string {
  if (file === undefined) return "";
  try {
    return readFileSync(file, "utf8");
  } catch {
    problems.push(`${key}: cannot read ${file}`);
    return "";
  }
}

function findDuplicates(found: readonly { readonly path: string; readonly upstream: ConfiguredUpstream }[], problems: string[]): void {
  for (const [index, { path, upstream }] of found.entries()) {
    const earlier = found.slice(0, index).map((other) => other.upstream);
    if (earlier.some((other) => other.name === upstream.name)) problems.push(`${path}.name: "${upstream.name}" stands twice`);
    else if (earlier.some((other) => other.project === upstream.project))
      problems.push(`${path}.project: "${upstream.project}" stands twice`);
    if (upstream.isDefault && earlier.some((other) => other.isDefault)) {
      problems.push(`${path}.is_default: another upstream is the default already`);
    }
  }
}
