/** /upstreams: reading them and asking how they are. */
import { Router } from "express";
import type { Request } from "express";
import { SlipwayError } from "../../src/core/errors.ts";
import { describeReason } from "../../src/proxy/registry-probe.ts";
import type { Registry, Route } from "../../src/proxy/registry-store.ts";
import { endpointOf } from "../../src/proxy/upstreams.ts";
import { parseBase } from "../../src/upstream/endpoint.ts";
import { requireSystemRight } from "../harbor/access.ts";
import type { CacheApiServices } from "./services.ts";

const PROBES_AT_ONCE = 8;

export function createUpstreamsRouter(services: CacheApiServices): Router {
  const router = Router();
  const { registries } = services;
  router.get("/upstreams", async (request, response) => {
    await requireSystemRight(services, request, "registry:list");
    response.json((await registries.listAll()).map(describeUpstream));
  });
  router.get("/upstreams/health", async (request, response) => {
    await requireSystemRight(services, request, "registry:read");
    response.json(await checkAll(services, await registries.listAll()));
  });
  router.get("/upstreams/:upstream", async (request, response) => {
    response.json(describeUpstream(await requireUpstream(services, request)));
  });
  router.get("/upstreams/:upstream/routes", async (request, response) => {
    const registry = await requireUpstream(services, request);
    response.json(registry.routes.map((route, index) => describeRoute(registry, route, index)));
  });
  router.get("/upstreams/:upstream/health", async (request, response) => {
    response.json(await check(services, await requireUpstream(services, request)));
  });
  router.get("/upstreams/:upstream/stats", async (request, response) => {
    response.json(statsOf(services, await requireUpstream(services, request)));
  });
  return router;
}

async function requireUpstream(services: CacheApiServices, request: Request): Promise<Registry> {
  await requireSystemRight(services, request, "registry:read");
  return findUpstream(services, request);
}

/** By name; by id when there is no upstream of that name. */
export async function findUpstream(services: Pick<CacheApiServices, "registries">, request: Request): Promise<Registry> {
  const text = String(request.params["upstream"] ?? "");
  const byName = await services.registries.findByName(text);
  const found = byName ?? (/^[1-9]\d{0,14}$/.test(text) ? await services.registries.find(Number(text)) : null);
  if (!found) throw new SlipwayError("NOT_FOUND", { message: `upstream ${text.slice(0, 64)} not found` });
  return found;
}

export function describeUpstream(registry: Registry): object {
  return {
    id: registry.id,
    name: registry.name,
    display_name: registry.description || registry.name,
    url: registry.url,
    registry: registry.prefix || "library",
    projects: registry.projects.map((one) => ({
      name: one.name,
      pattern: one.pattern,
      effective_pattern: one.pattern,
      priority: one.priority,
      is_default: one.isDefault,
    })),
    uses_multi_project: registry.projects.length > 0,
    skip_tls_verify: registry.insecure,
    priority: registry.priority,
    enabled: registry.enabled,
    cache_isolation: "isolated",
    is_default: registry.isDefault,
    has_credentials: registry.accessKey !== "" || registry.accessSecret !== "",
    created_at: registry.createdAt.toISOString(),
    updated_at: registry.updatedAt.toISOString(),
  };
}

export function describeRoute({ id, createdAt }: Registry, route: Route, index: number): object {
  return { id: index, upstream_id: id, ...route, created_at: createdAt.toISOString() };
}

async function check({ probe, registries, clock }: CacheApiServices, registry: Registry): Promise<object> {
  const result = await probe.probe(endpointOf(registry));
  await registries.saveStatus(registry.id, result.healthy ? "healthy" : "unhealthy");
  return {
    upstream_id: registry.id,
    name: registry.description || registry.name,
    healthy: result.healthy,
    last_check: new Date(clock.now()).toISOString(),
    last_error: result.healthy ? null : describeReason(result.reason),
    consecutive_failures: result.healthy ? 0 : 1,
  };
}

async function checkAll(services: CacheApiServices, registries: readonly Registry[]): Promise<object[]> {
  const results: object[] = [];
  const waiting = registries.entries();
  const work = async (): Promise<void> => {
    for (const [index, registry] of waiting) results[index] = await check(services, registry);
  };
  await Promise.all(Array.from({ length: PROBES_AT_ONCE }, work));
  return results;
}

/** Of this process, since it started. */
function statsOf({ pool }: CacheApiServices, registry: Registry): object {
  const hosts = new Set([registry.url, ...registry.mirrors].map((url) => parseBase(url).host));
  const stats = pool.stats();
  const calls = stats.calls.filter(({ host }) => hosts.has(host));
  const gates = stats.hosts.filter(({ host }) => hosts.has(host));
  const sum = (items: readonly { readonly count: number }[]): number => items.reduce((total, { count }) => total + count, 0);
  return {
    upstream_id: registry.id,
    name: registry.description || registry.name,
    requests: sum(calls),
    errors: sum(calls.filter(({ status }) => status === "none" || status >= "5")),
    rate_limited: sum(calls.filter(({ status }) => status === "429")),
    breaker_open: gates.some(({ breaker }) => breaker !== "closed"),
    rate_limit_remaining: gates.map(({ remaining }) => remaining).find((remaining) => remaining !== null) ?? null,
  };
}
