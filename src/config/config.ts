/**
 * Settings made into one typed configuration: alternatives become unions, contradictions become problems. Code outside src/config sees
 * only this.
 */
import { resolve } from "node:path";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { SlipwayError } from "../core/errors.ts";
import { readSettings } from "./env.ts";
import { ROLES } from "./schema.ts";
import type { Role, Settings } from "./schema.ts";
import type { ConfiguredUpstream } from "./upstreams.ts";
import { instanceIdFrom } from "../execution/plan/assignment.ts";
import type { FixedShard } from "../execution/plan/assignment.ts";
import { findKeptProblems } from "../execution/plan/retention-rules.ts";
import { checkHost } from "../proxy/registry-draft.ts";
import type { FsStorageConfig, S3StorageConfig } from "../storage/storage-config.ts";

export type { Role } from "./schema.ts";
export type { ConfiguredUpstream } from "./upstreams.ts";

export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

export interface Config {
  readonly roles: ReadonlySet<Role>;
  /** Roles were asked for by name: the process joins what runs already instead of owning the data folder. */
  readonly rolesGiven: boolean;
  readonly dataDir: string;
  readonly tls: TlsFiles | null;
  readonly database: { readonly mode: "embedded" } | { readonly mode: "external"; readonly url: string };
  readonly temporal: { readonly mode: "embedded" } | { readonly mode: "external"; readonly address: string };
  /** 32 bytes, or null when Slipway keeps its own. */
  readonly encryptionKey: Buffer | null;
  readonly storage: StorageSettings;
  /** This process's fixed share of the refresh; null when instances share by themselves. */
  readonly refreshShard: FixedShard | null;
  readonly settings: Settings;
  /** Null without a configuration file: rows that came from one are left alone then. */
  readonly upstreams: readonly ConfiguredUpstream[] | null;
  /** Keys of the file that have no meaning here; to be logged once. */
  readonly notices: readonly string[];
}

export type StorageSettings = FsStorageConfig | Omit<S3StorageConfig, "limits">;

export interface LoadOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly roles?: readonly string[];
}

/** Throws CONFIG_INVALID whose detail is the list of problems, one line each, naming the key. */
export function loadConfig(options: LoadOptions = {}): Config {
  const { settings, upstreams, problems, notices } = readSettings(options.env);
  const roles = parseRoles(options.roles ?? [], problems);
  const dataDir = resolve(settings.data.dir);
  const encryptionKey = parseEncryptionKey(settings, problems);
  const config: Config = {
    roles: new Set(roles.length > 0 ? roles : ROLES),
    rolesGiven: roles.length > 0,
    dataDir,
    tls: parseTls(settings, problems),
    database: settings.database.url === null ? { mode: "embedded" } : { mode: "external", url: settings.database.url },
    temporal: settings.temporal.address === null ? { mode: "embedded" } : { mode: "external", address: settings.temporal.address },
    encryptionKey,
    storage: parseStorage(settings, dataDir, problems),
    refreshShard: parseShard(settings, roles, problems),
    settings,
    upstreams,
    notices,
  };
  findContradictions(config, problems);
  if (problems.length > 0) {
    throw new SlipwayError("CONFIG_INVALID", { message: problems.join("\n"), detail: problems });
  }
  return config;
}

function parseRoles(names: readonly string[], problems: string[]): Role[] {
  const roles: Role[] = [];
  for (const name of names) {
    const role = ROLES.find((known) => known === name);
    if (role) roles.push(role);
    else problems.push(`--role: expected one of ${ROLES.join(", ")}, found "${name}"`);
  }
  return roles;
}

function parseTls(settings: Settings, problems: string[]): TlsFiles | null {
  const { tls_cert: certFile, tls_key: keyFile } = settings.server;
  if (certFile === null && keyFile === null) return null;
  if (certFile === null || keyFile === null) {
    problems.push(
      `${certFile === null ? "SLIPWAY_TLS_CERT" : "SLIPWAY_TLS_KEY"}: certificate and key belong together; this one is missing`,
    );
    return null;
  }
  return { certFile: resolve(certFile), keyFile: resolve(keyFile) };
}

function parseEncryptionKey(settings: Settings, problems: string[]): Buffer | null {
  const text = settings.data.encryption_key;
  if (text === null) return null;
  const key = /^[0-9a-f]{64}$/i.test(text) ? Buffer.from(text, "hex") : Buffer.from(text, "base64");
  if (key.length === 32) return key;
  problems.push("SLIPWAY_ENCRYPTION_KEY: expected 32 bytes as 64 hexadecimal digits or base64 (make one: openssl rand -hex 32)");
  return null;
}

function parseStorage(settings: Settings, dataDir: string, problems: string[]): StorageSettings {
  const { storage } = settings;
  if (storage.driver === "fs") return { driver: "fs", root: storage.path === null ? resolve(dataDir, "storage") : resolve(storage.path) };
  if (storage.s3_bucket === null) problems.push("SLIPWAY_S3_BUCKET: needed with SLIPWAY_STORAGE=s3");
  if ((storage.s3_access_key_id === null) !== (storage.s3_secret_access_key === null)) {
    problems.push("SLIPWAY_S3_SECRET_ACCESS_KEY: access key id and secret belong together; one is missing");
  }
  return {
    driver: "s3",
    bucket: storage.s3_bucket ?? "",
    prefix: storage.s3_prefix,
    region: storage.s3_region,
    endpoint: storage.s3_endpoint,
    pathStyle: storage.s3_path_style,
    accessKeyId: storage.s3_access_key_id,
    secretAccessKey: storage.s3_secret_access_key,
    redirect: storage.s3_redirect,
    publicEndpoint: storage.s3_public_endpoint,
  };
}

/** Only a process that refreshes needs a number. */
function parseShard({ refresh }: Settings, roles: readonly Role[], problems: string[]): FixedShard | null {
  const { instance_total: total, instance_id: given } = refresh;
  if (total === 0 || (roles.length > 0 && !roles.includes("refresh"))) return null;
  const name = given ?? hostname();
  const id = instanceIdFrom(name);
  if (id !== null && id < total) return { id, total };
  problems.push(
    id === null
      ? `CORE_INSTANCE_ID: expected a number or a name that ends with -<number>, found "${name}"${given === null ? ", the host name" : ""}`
      : `CORE_INSTANCE_ID: ${id} is not below CORE_INSTANCE_TOTAL, which is ${total}`,
  );
  return null;
}

function findContradictions(config: Config, problems: string[]): void {
  const { settings } = config;
  if (config.database.mode === "external" && config.encryptionKey === null && settings.data.encryption_key === null) {
    problems.push("SLIPWAY_ENCRYPTION_KEY: required with SLIPWAY_DATABASE_URL, so that all processes read the same secrets");
  }
  if (settings.database.url !== null && !/^postgres(ql)?:\/\//.test(settings.database.url)) {
    problems.push("SLIPWAY_DATABASE_URL: expected postgres://user:password@host/database");
  }
  if (settings.redis.url !== null && !/^rediss?:\/\//.test(settings.redis.url)) {
    problems.push("REDIS_URL: expected redis:// or rediss://");
  }
  if (settings.refresh.old_redis_url !== null && !/^rediss?:\/\//.test(settings.refresh.old_redis_url)) {
    problems.push("SLIPWAY_REFRESH_OLD_REDIS_URL: expected redis:// or rediss://");
  }
  for (const problem of findKeptProblems(settings.maintenance.keep_by_vendor)) problems.push(`SLIPWAY_KEEP_BY_VENDOR: ${problem}`);
  findBadRanges("SLIPWAY_TRUSTED_PROXIES", settings.server.trusted_proxies, problems);
  findBadRanges("SLIPWAY_UPSTREAM_DENY", settings.proxy.upstream_deny, problems);
  const { mirror } = settings.proxy;
  const mirrorProblem = mirror === null ? null : checkHost(mirror);
  if (mirrorProblem !== null) problems.push(`SLIPWAY_MIRROR: ${mirrorProblem}, found "${mirror}"`);
  if (settings.temporal.port !== 0 && settings.temporal.port === settings.temporal.ui_port && config.temporal.mode === "embedded") {
    problems.push("SLIPWAY_TEMPORAL_UI_PORT: is the same as SLIPWAY_TEMPORAL_PORT");
  }
  for (const [name, cron] of [
    ["SLIPWAY_GC_CRON", settings.maintenance.gc_cron],
    ["SLIPWAY_CACHE_WARM_UP_CRON", settings.cache.warm_up_cron],
  ] as const) {
    if (cron !== "off" && !/^\S+( \S+){4}$/.test(cron)) problems.push(`${name}: expected five fields, or off, found "${cron}"`);
  }
  if (settings.server.proxy_processes > 1 && settings.server.port === 0) {
    problems.push("SLIPWAY_PROXY_PROCESSES: needs a fixed SLIPWAY_PORT");
  }
  const external = settings.server.external_url;
  if (external !== null && !/^https?:\/\/[^/]+\/?$/.test(external)) {
    problems.push("SLIPWAY_EXTERNAL_URL: expected http(s)://host[:port] without a path; registries have none");
  }
}

function findBadRanges(key: string, entries: readonly string[], problems: string[]): void {
  for (const entry of entries) {
    const [address = "", bits, ...rest] = entry.split("/");
    const family = isIP(address);
    if (family === 0 || rest.length > 0 || (bits !== undefined && !(/^\d+$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128)))) {
      problems.push(`${key}: expected addresses or CIDR ranges, found "${entry}"`);
    }
  }
}
