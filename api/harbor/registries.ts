/** /registries: other registries, as upstreams of proxy projects and as ends of replication. For system administrators. */
import { Router } from "express";
import type { Request } from "express";
import { SlipwayError } from "../../src/core/errors.ts";
import { describeReason } from "../../src/proxy/registry-probe.ts";
import type { RegistryProbe } from "../../src/proxy/registry-probe.ts";
import { EMPTY_REGISTRY, REGISTRY_LIST_KEYS } from "../../src/proxy/registry-store.ts";
import type { Registry, RegistryDraft, RegistryStore } from "../../src/proxy/registry-store.ts";
import { endpointOf } from "../../src/proxy/upstreams.ts";
import { requireSystemRight } from "./access.ts";
import { readBody, readId, readQueryText } from "./conventions.ts";
import { readListQuery, setListHeaders } from "./list-params.ts";
import {
  applyFields,
  describeInfo,
  describeLocal,
  describeRegistry,
  draftOf,
  newRegistry,
  registryChange,
  registryPing,
} from "./registry-mapping.ts";
import type { HarborServices, RegistryDirectory } from "./services.ts";

export interface RegistriesServices extends Pick<HarborServices, "auth" | "addresses"> {
  readonly store: RegistryStore;
  readonly probe: Pick<RegistryProbe, "probe">;
}

/** An update that meets another one is made again from what that one left. */
const UPDATE_ATTEMPTS = 5;

export function createRegistriesRouter(services: RegistriesServices): Router {
  const router = Router();
  addCollection(router, services);
  addPing(router, services);
  addOne(router, services);
  return router;
}

/** What project creation and summaries ask. */
export function createRegistryDirectory(store: Pick<RegistryStore, "find">): RegistryDirectory {
  return {
    exists: async (id) => (await store.find(id)) !== null,
    describe: async (id) => {
      const registry = await store.find(id);
      return registry ? describeRegistry(registry, { credential: false }) : null;
    },
  };
}

function addCollection(router: Router, services: RegistriesServices): void {
  const { store } = services;
  router.get("/registries", async (request, response) => {
    await requireSystemRight(services, request, "registry:list");
    const query = readListQuery(request, REGISTRY_LIST_KEYS);
    const { rows, total } = await store.list(query, readQueryText(request, "name") || undefined);
    setListHeaders(request, response, { total, ...query });
    response.json(rows.map((registry) => describeRegistry(registry, { credential: true })));
  });
  router.post("/registries", async (request, response) => {
    await requireSystemRight(services, request, "registry:create");
    const draft = draftOf(readBody(request, newRegistry));
    if (draft.enabled) await requireHealthy(services, draft);
    const { id } = await store.save(draft);
    response.status(201).location(`${request.baseUrl}/registries/${id}`).end();
  });
}

function addPing(router: Router, services: RegistriesServices): void {
  router.post("/registries/ping", async (request, response) => {
    await requireSystemRight(services, request, "registry:read");
    const { id, ...fields } = readBody(request, registryPing);
    if (id === 0) {
      response.status(200).end();
      return;
    }
    if (id === undefined || id === null) {
      if (!fields.url || !fields.type) throw new SlipwayError("BAD_REQUEST", { message: "type or url cannot be empty" });
      await requireHealthy(services, applyFields({ ...EMPTY_REGISTRY, name: "ping", url: "" }, { ...fields, name: "ping" }));
    } else {
      const registry = await requireRegistry(services, id);
      // The saved credential goes to the saved address only.
      const { credential_type, access_key, access_secret } = fields;
      await checkStored(services, registry, applyFields(registry, { credential_type, access_key, access_secret }));
    }
    response.status(200).end();
  });
}

function addOne(router: Router, services: RegistriesServices): void {
  const { store } = services;
  router.get("/registries/:id", async (request, response) => {
    await requireSystemRight(services, request, "registry:read");
    const id = readRegistryId(request);
    response.json(
      id === 0
        ? describeLocal(services.addresses.externalUrl(request))
        : describeRegistry(await requireRegistry(services, id), { credential: true }),
    );
  });
  router.get("/registries/:id/info", async (request, response) => {
    await requireSystemRight(services, request, "registry:read");
    const id = readRegistryId(request);
    response.json(describeInfo(id === 0 ? "harbor" : (await requireRegistry(services, id)).type, { local: id === 0 }));
  });
  router.put("/registries/:id", async (request, response) => {
    await requireSystemRight(services, request, "registry:update");
    await update(services, readRegistryId(request), request);
    response.status(200).end();
  });
  router.delete("/registries/:id", async (request, response) => {
    await requireSystemRight(services, request, "registry:delete");
    const registry = await requireRegistry(services, readRegistryId(request));
    if (registry.origin === "config" && registry.enabled) {
      throw new SlipwayError("PRECONDITION_FAILED", { message: `the registry ${registry.name} is kept by the configuration file` });
    }
    if (!(await store.remove(registry.id))) throw notFound(registry.id);
    response.status(200).end();
  });
}

async function update(services: RegistriesServices, id: number, request: Request): Promise<void> {
  const fields = readBody(request, registryChange);
  for (let attempt = 0; attempt < UPDATE_ATTEMPTS; attempt += 1) {
    const registry = await requireRegistry(services, id);
    if (registry.origin === "config") {
      throw new SlipwayError("CONFLICT", { message: `the registry ${registry.name} is kept by the configuration file: change it there` });
    }
    const changed = applyFields(registry, fields);
    // One that is down must be possible to switch off.
    if (changed.enabled) await requireHealthy(services, changed);
    if (await services.store.update(id, changed, registry.version)) return;
  }
  throw new SlipwayError("CONFLICT", { message: `registry ${id} is being changed by others` });
}

async function requireHealthy({ probe }: RegistriesServices, draft: RegistryDraft): Promise<void> {
  const result = await probe.probe(endpointOf(draft));
  if (result.healthy) return;
  throw new SlipwayError("BAD_REQUEST", {
    message: `the registry is unhealthy: ${describeReason(result.reason)}`,
    cause: result.reason,
  });
}

/** What a probe of the saved registry found is worth keeping. */
async function checkStored(services: RegistriesServices, registry: Registry, asked: RegistryDraft): Promise<void> {
  const isStored = asked.accessKey === registry.accessKey && asked.accessSecret === registry.accessSecret;
  try {
    await requireHealthy(services, asked);
    if (isStored) await services.store.saveStatus(registry.id, "healthy");
  } catch (error) {
    if (isStored) await services.store.saveStatus(registry.id, "unhealthy");
    throw error;
  }
}

async function requireRegistry({ store }: RegistriesServices, id: number): Promise<Registry> {
  const registry = id === 0 ? null : await store.find(id);
  if (!registry) throw notFound(id);
  return registry;
}

function readRegistryId(request: Request): number {
  return request.params["id"] === "0" ? 0 : readId(request, "id");
}

function notFound(id: number): SlipwayError {
  return new SlipwayError("NOT_FOUND", { message: `registry ${id} not found` });
}
