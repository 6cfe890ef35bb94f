/**
 * The composition root: configuration in, running parts out. Nothing else constructs pools, stores, clients or services, and what was
 * opened is closed in reverse order. A test replaces any part by an override.
 */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { join } from "node:path";
import { loadEncryption, verifyEncryptionKey } from "./auth/encryption.ts";
import type { Encryption } from "./auth/encryption.ts";
import { ensureAdmin } from "./auth/first-admin.ts";
import type { AdminOutcome } from "./auth/first-admin.ts";
import { createAuth } from "./auth/open-auth.ts";
import type { Auth } from "./auth/open-auth.ts";
import { InvalidationBus } from "./catalog/cache/invalidation-bus.ts";
import { OUTBOX_CHANNEL } from "./catalog/outbox-relay.ts";
import { createCatalog } from "./catalog/open-catalog.ts";
import type { Catalog } from "./catalog/open-catalog.ts";
import type { Config } from "./config/config.ts";
import { systemClock } from "./core/clock.ts";
import type { Clock } from "./core/clock.ts";
import { Closer } from "./core/dispose.ts";
import { migrate } from "./db/migrate.ts";
import { Database } from "./db/pool.ts";
import { findOldMarks } from "./execution/refresh/find-old-marks.ts";
import { openRefresh } from "./execution/refresh/open-refresh.ts";
import type { Refresh } from "./execution/refresh/open-refresh.ts";
import { markFamilies } from "./execution/refresh/refresh-metrics.ts";
import type { Kv } from "./kv/kv.ts";
import { Members } from "./kv/members.ts";
import { openKv } from "./kv/open-kv.ts";
import { CacheTraffic } from "./proxy/cache-traffic.ts";
import { CacheView } from "./proxy/cache-view.ts";
import { syncUpstreams } from "./proxy/configured-upstreams.ts";
import { hostIdentity } from "./proxy/fill/host-identity.ts";
import { CacheEvictor } from "./proxy/eviction.ts";
import { createProxy } from "./proxy/open-proxy.ts";
import type { Proxy } from "./proxy/open-proxy.ts";
import { addProxyMetrics } from "./proxy/proxy-metrics.ts";
import { RegistryProbe } from "./proxy/registry-probe.ts";
import { RegistryWatch } from "./proxy/registry-watch.ts";
import { openReplication } from "./replication/open-replication.ts";
import type { Replication } from "./replication/open-replication.ts";
import type { BlobStore } from "./storage/blob-store.ts";
import { openBlobStore } from "./storage/open-store.ts";
import { AccessLog } from "./telemetry/access-log.ts";
import { Health } from "./telemetry/health.ts";
import type { RootLogger } from "./telemetry/logger.ts";
import { Metrics } from "./telemetry/metrics.ts";
import { addAppMetrics } from "./telemetry/app-metrics.ts";
import { StorageMetrics } from "./telemetry/storage-metrics.ts";
import { registerSecret } from "./telemetry/redact.ts";
import { registerSettings } from "./telemetry/register-settings.ts";
import { PolicyStore } from "./replication/policy-store.ts";
import type { TemporalConnection } from "./temporal/connection.ts";
import type { ReplicationSchedules, ReplicationSchedulesOptions } from "./temporal/replication-schedules.ts";
import { KvHostState } from "./upstream/shared-host-state.ts";
import { UpstreamPool } from "./upstream/pool.ts";

/** Where the services are that the process does not start by configuration alone (embedded ones have addresses of their own). */
export interface Endpoints {
  readonly databaseUrl: string;
  /** Null when there is no Temporal to talk to; the parts that need it are then not ready. */
  readonly temporalAddress: string | null;
  /** Where people look at workflows; absent: as configured. */
  readonly temporalUiUrl?: string | null;
}

export interface AppParts {
  readonly clock: Clock;
  readonly logger: RootLogger;
}

export interface App {
  readonly config: Config;
  /** Names this process among all; new at every start. */
  readonly bootId: string;
  readonly clock: Clock;
  readonly logger: RootLogger;
  readonly metrics: Metrics;
  readonly health: Health;
  readonly accessLog: AccessLog;
  readonly database: Database;
  readonly kv: Kv;
  readonly members: Members;
  readonly bus: InvalidationBus;
  readonly refresh: Refresh;
  readonly store: BlobStore;
  readonly encryption: Encryption;
  readonly catalog: Catalog;
  readonly auth: Auth;
  readonly upstreamPool: UpstreamPool;
  readonly proxy: Proxy;
  readonly registryProbe: RegistryProbe;
  readonly traffic: CacheTraffic;
  readonly cacheView: CacheView;
  readonly evictor: CacheEvictor;
  readonly temporal: TemporalConnection | null;
  readonly policies: PolicyStore;
  /** Null without a workflow service. */
  readonly schedules: ReplicationSchedules | null;
  readonly replication: Replication;
  readonly admin: AdminOutcome;
  /** Closed in reverse order with everything else. */
  readonly closer: Closer;
  close(): Promise<void>;
}

export async function createApp(config: Config, endpoints: Endpoints, parts: AppParts): Promise<App> {
  const closer = new Closer();
  try {
    return await build({ config, endpoints, parts, closer });
  } catch (error) {
    await closer.close();
    throw error;
  }
}

interface BuildInput {
  readonly config: Config;
  readonly endpoints: Endpoints;
  readonly parts: AppParts;
  readonly closer: Closer;
}

async function build(input: BuildInput): Promise<App> {
  const { config, endpoints, parts, closer } = input;
  registerSettings(config, endpoints);
  for (const notice of config.notices) parts.logger.warn({ notice }, "the configuration file has a key without a meaning here");
  const telemetry = openTelemetry(input);
  const state = await openState(input);
  const content = await openContent(input, { ...state, metrics: telemetry.metrics });
  const upstream = await openUpstream(input, { ...state, ...content });
  const { auth, catalog } = content;
  const admin = await ensureAdmin({
    database: state.database,
    passwords: auth.passwords,
    password: config.settings.auth.admin_password,
    dataDir: config.dataDir,
  });
  await catalog.outbox.advance();
  await catalog.ensureLibrary();
  await syncConfigured(input, { ...state, ...content });
  const temporal = await openTemporal(config, endpoints, closer);
  const policies = new PolicyStore(state.database);
  const app: App = {
    config,
    ...parts,
    ...telemetry,
    ...state,
    ...content,
    ...upstream,
    temporal,
    policies,
    schedules: temporal && (await openSchedules({ temporal, policies, logger: parts.logger })),
    replication: await openRuns(input, { ...state, policies, temporal }),
    admin,
    closer,
    close: async () => {
      for (const { name, error } of await closer.close()) parts.logger.warn({ part: name, error }, "a part did not close cleanly");
    },
  };
  addHealthChecks(app);
  addAppMetrics(app.metrics, app);
  addPullThroughMetrics(app);
  app.metrics.addSource(() => markFamilies(app.refresh.marker.stats()));
  app.metrics.addSource(() => app.schedules?.families() ?? []);
  return app;
}

function openTelemetry({ config, parts }: BuildInput): Pick<App, "metrics" | "health" | "accessLog"> {
  const { access, level } = config.settings.log;
  const metrics = new Metrics();
  const accessLog = new AccessLog(parts.logger, { enabled: access && level !== "error" && level !== "warn" });
  metrics.addSource(() => accessLog.metrics());
  return { metrics, health: new Health(), accessLog };
}

type State = Pick<App, "bootId" | "database" | "kv" | "members" | "bus" | "refresh">;

/** What all processes share, and how they hear of each other. */
async function openState({ config, endpoints, parts, closer }: BuildInput): Promise<State> {
  const { settings } = config;
  const { logger } = parts;
  const bootId = randomUUID();
  const database = new Database({
    url: endpoints.databaseUrl,
    poolSize: settings.database.pool_size,
    applicationName: `slipway-${[...config.roles].join("+")}`.slice(0, 60),
    onError: (error) => logger.warn({ error }, "an idle database connection was lost"),
  });
  closer.add("database", () => database.close());
  const applied = await migrate(database);
  if (applied.length > 0) logger.info({ applied }, "database schema was brought up to date");
  const kv = await openKv({
    redisUrl: settings.redis.url,
    database,
    prefix: "slipway:",
    onError: (error) => logger.warn({ error }, "the key-value connection failed"),
  });
  closer.add("kv", () => kv.close());
  const members = await Members.join(kv, { bootId, host: hostname(), address: null, roles: [...config.roles] });
  closer.add("members", () => members.leave());
  const bus = await InvalidationBus.open({ kv, members, logger });
  closer.add("invalidations", () => bus.close());
  const { slots, batch, attempts, sweep_seconds: sweep } = settings.refresh;
  const refresh = openRefresh({
    kv,
    database,
    logger,
    settings: { slots, batch, attempts, sweepMs: sweep * 1000 },
    onChanges: () => announceOutbox(kv),
    oldMarks: findOldMarks({ settings, kv, logger, owner: bootId }),
  });
  closer.add("refresh marks", () => refresh.marker.close());
  return { bootId, database, kv, members, bus, refresh };
}

/** A wake-up: the relay polls as well, so a lost one costs a moment. */
function announceOutbox(kv: Kv): void {
  void kv.publish(OUTBOX_CHANNEL, "").catch(() => undefined);
}

type Content = Pick<App, "encryption" | "store" | "catalog" | "auth">;

async function openContent({ config, parts, closer }: BuildInput, shared: State & Pick<App, "metrics">): Promise<Content> {
  const { database, bus, kv, metrics } = shared;
  const { settings } = config;
  const { logger, clock } = parts;
  const encryption = await loadEncryption({ key: config.encryptionKey, dataDir: config.dataDir });
  await verifyEncryptionKey(database, encryption);
  const storageMetrics = new StorageMetrics();
  const store = storageMetrics.measure(await openBlobStore(config.storage));
  metrics.addSource(() => storageMetrics.families(store));
  closer.add("storage", () => store.close());
  const catalog = createCatalog({
    database,
    store,
    bus,
    clock,
    log: logger,
    onOutbox: () => announceOutbox(kv),
    cache: { maxBytes: settings.cache.memory_mb * 1024 * 1024, staleOnDbErrorMs: settings.auth.stale_on_db_error_seconds * 1000 },
  });
  closer.add("catalog", () => catalog.close());
  const auth = createAuth({ database, bus, encryption, logger, clock, config: authConfig(config) });
  closer.add("auth", () => auth.close());
  return { encryption, store, catalog, auth };
}

type Upstream = Pick<App, "upstreamPool" | "proxy" | "registryProbe" | "traffic" | "cacheView" | "evictor">;

async function openUpstream({ config, parts, closer }: BuildInput, opened: State & Content): Promise<Upstream> {
  const { kv, members, bus, encryption, catalog, database, store, bootId } = opened;
  const hostState = await KvHostState.start(kv);
  closer.add("host state", () => hostState.close());
  const { proxy: settings } = config.settings;
  const reach = { deny: settings.upstream_deny, onSecret: registerSecret };
  const upstreamPool = new UpstreamPool({
    ...reach,
    shared: hostState,
    processes: () => Math.max(1, members.known().filter((member) => member.roles.includes("proxy")).length),
  });
  closer.add("upstream", () => upstreamPool.close());
  const stagingFolder = join(config.dataDir, "staging");
  const proxy = createProxy({
    ...parts,
    catalog,
    database,
    store,
    encryption,
    pool: upstreamPool,
    invalidations: bus,
    self: { bootId, host: await hostIdentity(stagingFolder), address: null },
    internalKey: encryption.deriveKey("internal-fills"),
    stagingFolder,
    mirrorHost: settings.mirror,
    defaults: {
      mode: settings.mode,
      ttlSeconds: settings.tag_ttl_seconds,
      maxStaleSeconds: settings.max_stale_seconds,
      negativeSeconds: settings.negative_seconds,
      prefetch: settings.prefetch,
    },
    maxFills: settings.max_fills,
    unread: { finishFromPercent: settings.finish_unread_percent },
  });
  closer.add("proxy", () => proxy.close());
  const registryProbe = new RegistryProbe({ openPool: () => new UpstreamPool({ ...reach, attempts: 1 }) });
  if (config.roles.has("api")) {
    const watch = new RegistryWatch({ store: proxy.registries, probe: registryProbe, kv, owner: bootId, logger: parts.logger });
    closer.add("registry watch", () => watch.close());
  }
  const traffic = new CacheTraffic(database, parts.logger);
  closer.add("cache counters", () => traffic.close());
  const cacheView = new CacheView({ db: database, clock: parts.clock, traffic });
  const evictor = new CacheEvictor({ db: database, writer: catalog.writer, collection: catalog.collection });
  return { upstreamPool, proxy, registryProbe, traffic, cacheView, evictor };
}

function addPullThroughMetrics({ config, metrics, proxy, upstreamPool: pool, traffic, cacheView: view }: App): void {
  const { max_gb: limit } = config.settings.cache;
  addProxyMetrics(metrics, {
    fills: proxy.fills,
    usage: proxy.usage,
    pool,
    traffic,
    view,
    maxBytes: limit === 0 ? null : Math.round(limit * 2 ** 30),
  });
}

/** By processes that serve; a command line tool leaves the upstreams as they are. */
async function syncConfigured({ config, parts }: BuildInput, { database, encryption, bus }: State & Content): Promise<void> {
  const { default_upstreams: defaults, mirror: mirrorHost } = config.settings.proxy;
  if (!config.roles.has("proxy") && !config.roles.has("api")) return;
  await syncUpstreams({ database, encryption, announcer: bus, logger: parts.logger, upstreams: config.upstreams, defaults, mirrorHost });
}

function authConfig(config: Config): Parameters<typeof createAuth>[0]["config"] {
  const { auth } = config.settings;
  return {
    mode: auth.registry,
    tokenTtlSeconds: auth.token_ttl_seconds,
    staleOnDbErrorMs: auth.stale_on_db_error_seconds * 1000,
    createProjectsOnPush: auth.create_projects_on_push,
    adminOnly: auth.project_creation === "adminonly",
  };
}

async function openTemporal(config: Config, endpoints: Endpoints, closer: Closer): Promise<TemporalConnection | null> {
  // A process that only serves the registry never talks to Temporal, and the client costs some 25 MB of memory.
  const servesOnly = config.roles.size === 1 && config.roles.has("proxy");
  if (endpoints.temporalAddress === null || servesOnly) return null;
  const { TemporalConnection } = await import("./temporal/connection.ts");
  const temporal = new TemporalConnection({ address: endpoints.temporalAddress, namespace: config.settings.temporal.namespace });
  closer.add("temporal", () => temporal.close());
  return temporal;
}

/** Imported when needed, with the client that it is made of. */
async function openSchedules(options: ReplicationSchedulesOptions): Promise<ReplicationSchedules> {
  const { ReplicationSchedules } = await import("./temporal/replication-schedules.ts");
  return new ReplicationSchedules(options);
}

async function openRuns(
  { config, endpoints, parts }: BuildInput,
  { database, policies, temporal }: Pick<App, "database" | "policies" | "temporal">,
): Promise<Replication> {
  return openReplication({
    ...parts,
    database,
    policies,
    workflows: temporal && new (await import("./temporal/replication.ts")).ReplicationWorkflows(temporal),
    uiUrl: endpoints.temporalUiUrl ?? config.settings.temporal.ui_url,
  });
}

function addHealthChecks(app: App): void {
  const needsTemporal = ["replication", "refresh", "tuf", "maintenance"].some((role) => app.config.roles.has(role as "tuf"));
  app.health.add({
    name: "database",
    required: true,
    check: async () => {
      await app.database.query("SELECT 1");
    },
  });
  app.health.add({ name: "storage", required: true, check: (signal) => app.store.check(signal) });
  app.health.add({ name: app.kv.driver === "redis" ? "redis" : "kv", required: false, check: (signal) => app.kv.check(signal) });
  if (needsTemporal || app.config.roles.has("api")) {
    app.health.add({
      name: "temporal",
      // The registry is served without it, so a process that also has worker roles still takes requests.
      required: needsTemporal && !app.config.roles.has("proxy") && !app.config.roles.has("api"),
      check: async (signal) => {
        if (app.temporal === null) return "there is no Temporal server";
        await app.temporal.check({ signal });
        return undefined;
      },
    });
  }
}

export { systemClock };
