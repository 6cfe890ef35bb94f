/** Which mounts a process serves, by its roles. The only place where the HTTP surfaces meet the parts of the application. */
import type { App } from "../src/app.ts";
import { ContentList } from "../src/auth/content-list.ts";
import type { Principal } from "../src/auth/principal.ts";
import { RunFeed } from "../src/replication/run-feed.ts";
import { RunFigures } from "../src/replication/run-figures.ts";
import { addRunMetrics } from "../src/replication/run-metrics.ts";
import { RunProgress } from "../src/replication/run-progress.ts";
import { RunView } from "../src/replication/run-view.ts";
import { evictionRules } from "../src/proxy/eviction.ts";
import { createCacheApiRouter } from "./cache/cache-api.ts";
import { createPurgeRouter } from "./cache/purge.ts";
import { createClientAddresses } from "./http/client-address.ts";
import type { ClientAddresses } from "./http/client-address.ts";
import type { ProjectIdentity } from "../src/auth/principal.ts";
import { isSlipwayError } from "../src/core/errors.ts";
import { parseRepositoryName } from "../src/oci/names.ts";
import type { HealthComponent } from "./harbor/services.ts";
import type { HttpObserver } from "./http/observer.ts";
import type { Mount } from "./http/mounts.ts";
import { createHarborRouter } from "./harbor/harbor.ts";
import { reachableUrl } from "./internal/address.ts";
import { createInternalFills } from "./internal/fills.ts";
import { createRegistriesRouter, createRegistryDirectory } from "./harbor/registries.ts";
import { createAdaptersRouter } from "./harbor/replication/adapters.ts";
import { createExecutionsRouter } from "./harbor/replication/executions.ts";
import { createPoliciesRouter } from "./harbor/replication/policies.ts";
import type { ReplicationServices } from "./harbor/replication/services.ts";
import { createOpsRouter } from "./ops/ops.ts";
import { startServer } from "./server.ts";
import type { RunningServer, ServerOptions } from "./server.ts";
import { createTokenRouter } from "./token.ts";
import { createHotHandler } from "./v2/hot.ts";
import { createRegistryRouter } from "./v2/router.ts";
import { DEFAULT_REGISTRY_SETTINGS } from "./v2/services.ts";
import { createProxyContent } from "./v2/proxy-content.ts";
import { createProxyWrites } from "./v2/proxy-writes.ts";
import { createProxyResolver } from "./v2/proxy-resolver.ts";

export interface ServeOptions {
  readonly host: string;
  readonly port: number;
  readonly reusePort: boolean;
  readonly version: string;
}

interface Surface {
  readonly app: App;
  readonly addresses: ClientAddresses;
  readonly observer: HttpObserver;
  readonly version: string;
  isDraining(): boolean;
}

export async function serve(app: App, options: ServeOptions): Promise<RunningServer> {
  const { server } = app.config.settings;
  const limits = new LimitCounters();
  let running: RunningServer | null = null;
  app.metrics.addSource(() => limits.families());
  const surface: Surface = {
    app,
    addresses: createClientAddresses({ externalUrl: server.external_url, trustedProxies: server.trusted_proxies }),
    observer: {
      onResponse: (record) => {
        app.accessLog.onResponse(record);
        app.traffic.onResponse(record);
      },
      onLimit: (limit) => limits.count(limit),
    },
    version: options.version,
    isDraining: () => running?.draining ?? false,
  };
  const { roles } = app.config;
  const ops = createOpsRouter({ health: app.health, metrics: app.metrics, version: options.version });
  running = await startServer({
    host: options.host,
    port: options.port,
    reusePort: options.reusePort,
    tls: app.config.tls,
    ...(roles.has("proxy") ? createRegistry(surface) : {}),
    mounts: [
      ...(roles.has("proxy") ? [createTokenMount(surface), createInternalFills({ ...app.proxy, clock: app.clock })] : []),
      ...(roles.has("api") ? [createCacheMount(surface), createHarborMount(surface)] : []),
      { path: "/", operation: "ops", handler: ops },
    ],
    observer: surface.observer,
    limits: { maxConnections: server.max_connections, idleTimeoutMs: server.idle_body_seconds * 1000 },
  });
  const address = reachableUrl(running);
  app.proxy.setAddress(address);
  await app.members
    .setAddress(address)
    .catch((error: unknown) => app.logger.debug({ error }, "the address is announced with the next heartbeat"));
  return running;
}

function createRegistry({ app, addresses, observer }: Surface): Pick<ServerOptions, "hot" | "registry"> {
  const services = {
    reader: app.catalog.reader,
    writer: app.catalog.writer,
    auth: app.auth.registry,
    store: app.store,
    resolver: createProxyResolver(app.proxy.resolver),
    addresses,
    observer,
    settings: DEFAULT_REGISTRY_SETTINGS,
  };
  const router = createRegistryRouter(services, (sender, local) =>
    createProxyContent(app.proxy, sender, createProxyWrites(app.proxy, local, services)),
  );
  return { hot: createHotHandler(services, router.content), registry: router.handle };
}

function createTokenMount({ app, addresses }: Surface): Mount {
  const { tokenService } = app.auth;
  const handler = createTokenRouter({ tokenService, addresses, resolveProject: (repository) => projectOf(app, repository) });
  return { path: "/service/token", operation: "token", handler };
}

function createHarborMount({ app, addresses, version, isDraining }: Surface): Mount {
  const { registries: store } = app.proxy;
  const services = {
    auth: app.auth,
    projects: app.catalog.projects,
    content: {
      list: new ContentList(app.database),
      deleteTag: (repository: string, tag: string, principal: Principal) => app.catalog.writer.deleteTag(repository, tag, { principal }),
    },
    registries: createRegistryDirectory(store),
    addresses,
    clock: app.clock,
    version,
    storageProvider: app.store.driver === "fs" ? "filesystem" : "s3",
    health: () => harborHealth(app),
  };
  const { policies, schedules, logger } = app;
  const handler = createHarborRouter(services, [
    createRegistriesRouter({ ...services, store, probe: app.registryProbe }),
    createAdaptersRouter(services),
    createPoliciesRouter({ ...services, policies, registries: store, schedules, logger }),
    createExecutionsRouter({ ...services, ...runParts(app), isDraining }),
  ]);
  return { path: "/api", operation: "api", handler };
}

/** What people see of runs, and its series. */
function runParts({
  config,
  replication,
  database,
  kv,
  clock,
  closer,
  metrics,
  refresh,
}: App): Omit<ReplicationServices, "auth" | "clock" | "isDraining"> {
  const view = new RunView(database);
  const feed = new RunFeed({ view, kv, clock, marker: refresh.marker }, { maxWatchers: config.settings.replication.max_watchers });
  closer.add("run feed", () => feed.close());
  metrics.addSource(() => feed.families());
  const figures = new RunFigures(database);
  closer.add("run figures", figures.keepFolding());
  addRunMetrics(metrics, { figures, clock });
  return { runs: replication.control, view, feed, progress: new RunProgress(), items: replication.items, logs: replication.logs };
}

function createCacheMount({ app, addresses }: Surface): Mount {
  const services = {
    auth: app.auth,
    addresses,
    view: app.cacheView,
    registries: app.proxy.registries,
    projects: app.catalog.projects,
    probe: app.registryProbe,
    pool: app.upstreamPool,
    clock: app.clock,
  };
  const handler = createCacheApiRouter(services, [createPurgeRouter({ evictor: app.evictor, rules: evictionRules(app.config) })]);
  return { path: "/api/v1", operation: "api", handler };
}

async function projectOf(app: App, repository: string): Promise<ProjectIdentity | null> {
  if (!parseRepositoryName(repository)) return null;
  const found = await app.proxy.resolver.resolve({ requested: repository, namespace: null }).catch((error: unknown) => {
    // No name of ours and none that we serve from elsewhere.
    if (isSlipwayError(error, "NAME_UNKNOWN")) return null;
    throw error;
  });
  return found?.project ?? null;
}

/** Harbor's clients look for these names. */
const HARBOR_COMPONENTS: Readonly<Record<string, string>> = {
  database: "database",
  storage: "registry",
  redis: "redis",
  kv: "redis",
  temporal: "jobservice",
};

async function harborHealth(app: App): Promise<HealthComponent[]> {
  const { components } = await app.health.report();
  const known = components.flatMap(({ name, status, error }) => {
    const harborName = HARBOR_COMPONENTS[name];
    return harborName === undefined ? [] : [{ name: harborName, status, ...(error === undefined ? {} : { error }) }];
  });
  return [{ name: "core", status: "healthy" as const }, ...known].toSorted((a, b) => a.name.localeCompare(b.name));
}

/** Bounds that were hit, by name. */
class LimitCounters {
  readonly #counts = new Map<string, number>();

  count(limit: string): void {
    this.#counts.set(limit, (this.#counts.get(limit) ?? 0) + 1);
  }

  families(): { name: string; help: string; type: "counter"; samples: { value: number; labels: { limit: string } }[] }[] {
    const samples = [...this.#counts].map(([limit, value]) => ({ value, labels: { limit } }));
    return [{ name: "slipway_http_limits_total", help: "Requests and connections refused by a bound.", type: "counter", samples }];
  }
}
