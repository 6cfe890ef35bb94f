/**
 * Configuration files of Harbor Cache work as they are: each of its keys is read as ours, or is named as one that has no meaning here. A key of ours in the
 * same file wins.
 */
type Sections = Record<string, Record<string, unknown>>;

interface Alias {
  readonly from: string;
  readonly to: string;
  readonly convert?: (value: unknown) => unknown;
}

const words =
  (meaning: Readonly<Record<string, string>>) =>
  (value: unknown): unknown =>
    typeof value === "string" ? (meaning[value.toLowerCase()] ?? value.toLowerCase()) : value;

const ALIASES: readonly Alias[] = [
  { from: "server.bind_address", to: "server.host" },
  { from: "cache.max_size", to: "cache.max_gb", convert: (value) => (typeof value === "number" ? value / 2 ** 30 : value) },
  { from: "cache.eviction_policy", to: "cache.eviction", convert: words({}) },
  { from: "storage.backend", to: "storage.driver", convert: words({ local: "fs" }) },
  { from: "storage.local.path", to: "storage.path" },
  { from: "storage.s3.bucket", to: "storage.s3_bucket" },
  { from: "storage.s3.region", to: "storage.s3_region" },
  { from: "storage.s3.endpoint", to: "storage.s3_endpoint" },
  { from: "storage.s3.prefix", to: "storage.s3_prefix" },
  { from: "storage.s3.access_key", to: "storage.s3_access_key_id" },
  { from: "storage.s3.secret_key", to: "storage.s3_secret_access_key" },
  { from: "logging.level", to: "log.level", convert: words({ trace: "debug" }) },
  { from: "logging.format", to: "log.format", convert: words({}) },
  { from: "tls.cert_path", to: "server.tls_cert" },
  { from: "tls.key_path", to: "server.tls_key" },
  { from: "blob_serving.enable_presigned_redirects", to: "storage.s3_redirect" },
];

const WITHOUT_MEANING: Readonly<Record<string, string>> = {
  "storage.s3.allow_http": "the scheme of the endpoint decides",
  "database.path": "metadata is kept in Postgres, see database.url",
  "auth.jwt_secret": "keys of tokens are made and kept by Slipway",
  "auth.enabled": "the management API always asks for a login; who may pull without one is auth.registry",
  "blob_serving.presigned_url_ttl_secs": "signed addresses live as long as a download may wait to begin",
};

export interface Translation {
  readonly file: Record<string, unknown>;
  /** Key of ours -> the key as it stands in the file. */
  readonly givenAs: ReadonlyMap<string, string>;
  readonly notices: readonly string[];
}

export function translateHarborCacheFile(given: Readonly<Record<string, unknown>>): Translation {
  const file = structuredClone(given) as Sections;
  const givenAs = new Map<string, string>();
  const notices: string[] = [];
  const useTls = take(file, "tls.enabled");
  const hasForeignEndpoint = valueAt(file, "storage.s3.endpoint") !== undefined;
  for (const { from, to, convert } of ALIASES) {
    const value = take(file, from);
    if (value === undefined || (from.startsWith("tls.") && useTls !== true)) continue;
    // An empty text is how its files say "none".
    if (value === "" || !put(file, to, convert ? convert(value) : value)) continue;
    givenAs.set(to, from);
  }
  // Its S3 client always puts the bucket into the path.
  if (hasForeignEndpoint) put(file, "storage.s3_path_style", true);
  for (const [key, reason] of Object.entries(WITHOUT_MEANING)) {
    if (take(file, key) !== undefined) notices.push(`${key} has no meaning here: ${reason}`);
  }
  if (givenAs.size + notices.length > 0) notices.push(...chooseDefault(file["upstreams"]));
  for (const section of ["storage.local", "storage.s3", "logging", "tls", "blob_serving"]) dropIfEmpty(file, section);
  return { file, givenAs, notices };
}

/** Its first enabled upstream is the default when none is marked. */
function chooseDefault(upstreams: unknown): string[] {
  const tables = Array.isArray(upstreams) ? upstreams.filter(isTable) : [];
  const first = tables.find((upstream) => upstream["enabled"] !== false);
  if (!first || tables.some((upstream) => upstream["is_default"] === true)) return [];
  first["is_default"] = true;
  return [`upstreams: "${String(first["name"])}" takes the names that nothing else takes, because none is marked is_default`];
}

function parentOf(file: Sections, path: string): { parent: Record<string, unknown>; name: string } | null {
  const parts = path.split(".");
  const name = parts.pop() ?? "";
  let parent: unknown = file;
  for (const part of parts) parent = isTable(parent) ? parent[part] : undefined;
  return isTable(parent) ? { parent, name } : null;
}

function valueAt(file: Sections, path: string): unknown {
  const found = parentOf(file, path);
  return found?.parent[found.name];
}

function take(file: Sections, path: string): unknown {
  const found = parentOf(file, path);
  const value = found?.parent[found.name];
  if (found) delete found.parent[found.name];
  return value;
}

function put(file: Sections, path: string, value: unknown): boolean {
  const [section = "", name = ""] = path.split(".");
  file[section] ??= {};
  const target: unknown = file[section];
  if (!isTable(target) || target[name] !== undefined) return false;
  target[name] = value;
  return true;
}

function dropIfEmpty(file: Sections, path: string): void {
  const value = valueAt(file, path);
  if (isTable(value) && Object.keys(value).length === 0) take(file, path);
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
