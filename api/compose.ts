/** Which mounts a process serves, by its roles. The only place where the HTTP surfaces meet the parts of the application. */
import type { App } from "../src/app.ts";
import { createClientAddresses } from "./http/client-address.ts";
import type { ProjectIdentity } from "../src/auth/principal.ts";
import { parseRepositoryName } from "../src/oci/names.ts";
import type { HealthComponent } from "./harbor/services.ts";
import type { HttpObserver } from "./http/observer.ts";
import type { Mount } from "./http/mounts.ts";
import { createHarborRouter } from "./harbor/harbor.ts";
import { createOpsRouter } from "./ops/ops.ts";
import { startServer } from "./server.ts";
import type { RunningServer, ServerOptions } from "./server.ts";
import { createTokenRouter } from "./token.ts";
import { createHotHandler } from "./v2/hot.ts";
import { createRegistryRouter } from "./v2/router.ts";
import { DEFAULT_REGISTRY_SETTINGS } from "./v2/services.ts";
import { createProxyContent } from "./v2/proxy-content.ts";
import { createProxyResolver } from "./v2/proxy-resolver.ts";

export interface ServeOptions {
  readonly host: string;
  readonly port: number;
  readonly reusePort: boolean;
  readonly version: string;
}

export async function serve(app: App, options: ServeOptions): Promise<RunningServer> {
  const { config } = app;
  const limits = new LimitCounters();
  const observer: HttpObserver = {
    onResponse: (record) => app.accessLog.onResponse(record),
    onLimit: (limit) => limits.count(limit),
  };
  app.metrics.addSource(() => limits.families());
  const addresses = createClientAddresses({
    externalUrl: config.settings.server.external_url,
    trustedProxies: config.settings.server.trusted_proxies,
  });
  const mounts: Mount[] = [];
  const registry: Pick<ServerOptions, "hot" | "registry"> = {};
  if (config.roles.has("proxy")) {
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
    const router = createRegistryRouter(services, (sender) => createProxyContent(app.proxy, sender));
    Object.assign(registry, { hot: createHotHandler(services, router.content), registry: router.handle });
    mounts.push({
      path: "/service/token",
      operation: "token",
      handler: createTokenRouter({
        tokenService: app.auth.tokenService,
        addresses,
        resolveProject: (repository) => projectOf(app, repository),
      }),
    });
  }
  if (config.roles.has("api")) {
    const services = {
      auth: app.auth,
      projects: app.catalog.projects,
      registries: null,
      addresses,
      clock: app.clock,
      version: options.version,
      storageProvider: app.store.driver === "fs" ? "filesystem" : "s3",
      health: () => harborHealth(app),
    };
    mounts.push({ path: "/api", operation: "api", handler: createHarborRouter(services) });
  }
  mounts.push({
    path: "/",
    operation: "ops",
    handler: createOpsRouter({ health: app.health, metrics: app.metrics, version: options.version }),
  });
  return startServer({
    host: options.host,
    port: options.port,
    reusePort: options.reusePort,
    tls: config.tls,
    ...registry,
    mounts,
    observer,
    limits: { maxConnections: config.settings.server.max_connections, idleTimeoutMs: config.settings.server.idle_body_seconds * 1000 },
  });
}

async function projectOf(app: App, repository: string): Promise<ProjectIdentity | null> {
  const name = parseRepositoryName(repository);
  return name ? app.catalog.reader.findProject(name.project) : null;
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
