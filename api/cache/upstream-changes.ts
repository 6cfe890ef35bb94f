/**
 * /upstreams: making, changing and removing them in the words of Harbor Cache. Each gets a proxy project of its name, which keeps its content; what the configuration
 * file names is changed there.
 */
import { Router } from "express";
import type { Request } from "express";
import { z } from "zod";
import { SlipwayError } from "../../src/core/errors.ts";
import { isProjectName } from "../../src/oci/names.ts";
import { checkPattern, normalizeUrl, typeForHost } from "../../src/proxy/registry-draft.ts";
import { describeReason } from "../../src/proxy/registry-probe.ts";
import type { Registry, RegistryDraft } from "../../src/proxy/registry-store.ts";
import { endpointOf } from "../../src/proxy/upstreams.ts";
import { requireSystemRight } from "../harbor/access.ts";
import { readBody } from "../harbor/conventions.ts";
import { applyFields, draftOf } from "../harbor/registry-mapping.ts";
import type { CacheApiServices } from "./services.ts";
import { describeRoute, describeUpstream, findUpstream } from "./upstreams.ts";

const priority = z.int().min(-1_000_000).max(1_000_000);
const pattern = z.string().refine((value) => checkPattern(value) === null, "not a pattern");
const route = z.object({ pattern, priority: priority.default(100) });
const project = z.object({
  name: z.string(),
  pattern: pattern.nullish().transform((value) => value ?? undefined),
  priority: priority.default(100),
  is_default: z.boolean().default(false),
});
const fields = {
  display_name: z.string().max(128),
  url: z.string(),
  registry: z.string(),
  username: z.string().nullable(),
  password: z.string().nullable(),
  skip_tls_verify: z.boolean(),
  priority,
  enabled: z.boolean(),
  /** Content is always served by the rights of its own project only, so that both mean the same. */
  cache_isolation: z.enum(["shared", "isolated"]),
  is_default: z.boolean(),
  projects: z.array(project).max(100),
};
const change = z.object(fields).partial();
const creation = change.extend({ name: z.string(), url: z.string(), routes: z.array(route).max(100).default([]) });
const trial = change.pick({ registry: true, username: true, password: true, skip_tls_verify: true }).extend({ url: z.string() });

const ATTEMPTS = 5;

export function createUpstreamChangesRouter(services: CacheApiServices): Router {
  const router = Router();
  addUpstreams(router, services);
  addRoutes(router, services);
  router.post("/upstreams/test", async (request, response) => {
    await requireSystemRight(services, request, "registry:read");
    const body = readBody(request, trial);
    const result = await services.probe.probe(endpointOf(newDraft({ name: "test", routes: [], ...body })));
    response.json({ success: result.healthy, message: result.healthy ? "the registry answers" : describeReason(result.reason) });
  });
  router.post("/upstreams/reload", async (request, response) => {
    await requireSystemRight(services, request, "registry:update");
    response.json({ success: true, message: "nothing to reload: changes hold from the next request on" });
  });
  return router;
}

function addUpstreams(router: Router, services: CacheApiServices): void {
  const { registries, projects } = services;
  router.post("/upstreams", async (request, response) => {
    await requireSystemRight(services, request, "registry:create");
    const draft = newDraft(readBody(request, creation));
    const name = projectNameOf(draft.name);
    if (await projects.find(name)) throw taken(name);
    const registry = await registries.save(draft);
    const kept = { name, public: draft.accessKey === "" && draft.accessSecret === "", ownerId: null, registryId: registry.id };
    if ((await projects.ensure(kept)).registryId !== registry.id) {
      await registries.remove(registry.id);
      throw taken(name);
    }
    response.status(201).json(describeUpstream(registry));
  });
  router.put("/upstreams/:upstream", async (request, response) => {
    const body = readBody(request, change);
    response.json(describeUpstream(await update(services, request, (registry) => withFields(registry, body))));
  });
  router.delete("/upstreams/:upstream", async (request, response) => {
    await requireSystemRight(services, request, "registry:delete");
    const registry = await findUpstream(services, request);
    if (registry.origin === "config" && registry.enabled) throw keptByFile(registry);
    const kept = await projects.find(projectNameOf(registry.name));
    // With content in it, the project stays, and says so.
    if (kept?.registryId === registry.id) await projects.remove(kept.id);
    await registries.remove(registry.id);
    response.status(204).end();
  });
}

function addRoutes(router: Router, services: CacheApiServices): void {
  router.post("/upstreams/:upstream/routes", async (request, response) => {
    const added = readBody(request, route);
    const registry = await update(services, request, (found) => ({ ...found, routes: [...found.routes, added] }));
    response.status(201).json(describeRoute(registry, added, registry.routes.length - 1));
  });
  router.delete("/upstreams/:upstream/routes/:index", async (request, response) => {
    const index = Number(request.params["index"]);
    await update(services, request, (found) => {
      if (!Number.isInteger(index) || found.routes[index] === undefined) throw new SlipwayError("NOT_FOUND");
      return { ...found, routes: found.routes.toSpliced(index, 1) };
    });
    response.status(204).end();
  });
}

/** A change that meets another one is made again from what that one left. */
async function update(services: CacheApiServices, request: Request, edit: (found: Registry) => RegistryDraft): Promise<Registry> {
  await requireSystemRight(services, request, "registry:update");
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const found = await findUpstream(services, request);
    if (found.origin === "config") throw keptByFile(found);
    const changed = await services.registries.update(found.id, edit(found), found.version);
    if (changed) return changed;
  }
  throw new SlipwayError("CONFLICT", { message: "this upstream is being changed by others" });
}

function newDraft({ name, url, routes, ...given }: z.output<typeof creation>): RegistryDraft {
  const type = typeForHost(new URL(normalizeUrl(url)).hostname);
  return withFields({ ...draftOf({ name, url, type }), routes }, given);
}

function withFields<Draft extends RegistryDraft>(draft: Draft, given: z.output<typeof change>): Draft {
  return applyFields(draft, {
    url: given.url,
    description: given.display_name,
    prefix: given.registry,
    access_key: given.username,
    access_secret: given.password,
    insecure: given.skip_tls_verify,
    priority: given.priority,
    enabled: given.enabled,
    is_default: given.is_default,
    projects: given.projects,
  });
}

function projectNameOf(name: string): string {
  const project = name.toLowerCase();
  if (!isProjectName(project)) throw new SlipwayError("BAD_REQUEST", { message: `"${name.slice(0, 64)}" cannot be the name of a project` });
  return project;
}

function taken(project: string): SlipwayError {
  return new SlipwayError("CONFLICT", { message: `there is a project ${project} already: choose another name` });
}

function keptByFile({ name }: Registry): SlipwayError {
  return new SlipwayError("CONFLICT", { message: `the upstream ${name} is kept by the configuration file: change it there` });
}
