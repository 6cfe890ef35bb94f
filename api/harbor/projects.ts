/** /projects: what holds repositories, and to whom it belongs. */
import { Router } from "express";
import type { Visibility } from "../../src/auth/project-list.ts";
import { PROJECT_LIST_KEYS } from "../../src/auth/project-list.ts";
import type { Principal } from "../../src/auth/principal.ts";
import { permissionsAllow, ROLE_IDS } from "../../src/auth/roles.ts";
import { API_BOUND, boundAllows } from "../../src/auth/scopes.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { callerOf, refusal, requireLogin, requireProject } from "./access.ts";
import { omitEmpty, readBody, readQueryBoolean, readQueryText } from "./conventions.ts";
import { readListQuery, setListHeaders } from "./list-params.ts";
import { describeCounts, describeProject, newProject, projectChange, splitMetadata } from "./project-mapping.ts";
import type { HarborServices } from "./services.ts";

export function createProjectsRouter(services: HarborServices): Router {
  const router = Router();
  addCollection(router, services);
  addCreate(router, services);
  addOne(router, services);
  addDetails(router, services);
  return router;
}

function addCollection(router: Router, services: HarborServices): void {
  router.head("/projects", async (request, response) => {
    requireLogin(request);
    const name = readQueryText(request, "project_name") ?? "";
    if (name === "") throw new SlipwayError("UNPROCESSABLE", { message: "project_name in query is required" });
    response.status((await services.projects.find(name)) === null ? 404 : 200).end();
  });
  router.get("/projects", async (request, response) => {
    const caller = callerOf(request);
    const query = readListQuery(request, PROJECT_LIST_KEYS);
    const isPublic = readQueryBoolean(request, "public");
    const nameContains = readQueryText(request, "name");
    const owner = readQueryText(request, "owner");
    const listed = await services.auth.projectList.list({
      visibility: visibilityOf(services, caller),
      userId: caller.kind === "user" ? caller.id : null,
      query,
      ...(isPublic === undefined ? {} : { public: isPublic }),
      ...(nameContains === undefined || nameContains === "" ? {} : { nameContains }),
      ...(owner === undefined || owner === "" ? {} : { owner }),
    });
    setListHeaders(request, response, { total: listed.total, ...query });
    const detail = readQueryBoolean(request, "with_detail") ?? true;
    response.json(listed.rows.map((project) => describeProject(project, { ownerName: project.ownerName, role: project.role, detail })));
  });
}

export function visibilityOf(services: Pick<HarborServices, "auth">, caller: Principal): Visibility {
  // A token for the registry shows nothing that anybody could not see.
  if (caller.kind === "anonymous" || !boundAllows(caller, API_BOUND)) {
    if (services.auth.config.mode === "required") throw refusal(caller);
    return { kind: "public" };
  }
  if (caller.sysadmin) return { kind: "all" };
  if (caller.kind === "user") return { kind: "member", userId: caller.id };
  const permissions = services.auth.authenticator.permissionsOf(caller);
  if (permissionsAllow(permissions, null, ["project:list"]) || permissions.some((one) => one.namespace === "*")) return { kind: "all" };
  return { kind: "named", names: permissions.filter((one) => one.kind === "project").map((one) => one.namespace) };
}

function addCreate(router: Router, services: HarborServices): void {
  const { auth, projects } = services;
  router.post("/projects", async (request, response) => {
    const caller = requireLogin(request);
    if (!auth.decisions.mayCreateProject(caller)) throw refusal(caller);
    const body = readBody(request, newProject);
    const registryId = await readRegistryId(services, caller, body.registry_id);
    const metadata = splitMetadata(body.metadata);
    const project = await projects.create({
      name: body.project_name,
      public: metadata.public ?? body.public ?? false,
      ownerId: caller.kind === "user" ? caller.id : null,
      registryId,
      metadata: metadata.rest,
      // What a project may use is not for its owner to say.
      storageLimit: caller.sysadmin ? (body.storage_limit ?? -1) : -1,
    });
    if (caller.kind === "user") await auth.members.create(project, caller.id, ROLE_IDS.projectAdmin);
    const byName = request.get("x-resource-name-in-location")?.toLowerCase() === "true";
    response
      .status(201)
      .location(`${request.baseUrl}/projects/${byName ? project.name : project.id}`)
      .end();
  });
}

async function readRegistryId(services: HarborServices, caller: Principal, id: number | null | undefined): Promise<number | null> {
  if (id === null || id === undefined) return null;
  if (!caller.sysadmin) throw new SlipwayError("FORBIDDEN", { message: "only system administrators make proxy projects" });
  if (id <= 0) throw new SlipwayError("BAD_REQUEST", { message: "registry_id must be greater than 0" });
  if (services.registries === null || !(await services.registries.exists(id))) {
    throw new SlipwayError("BAD_REQUEST", { message: `registry ${id} not found` });
  }
  return id;
}

function addOne(router: Router, services: HarborServices): void {
  const { auth, projects } = services;
  router.get("/projects/:project", async (request, response) => {
    const project = await requireProject(services, request, "project:read");
    const owner = project.ownerId === null ? "" : ((await auth.users.listNames([project.ownerId])).get(project.ownerId) ?? "");
    const role = await auth.decisions.roleOf(callerOf(request), project);
    response.json(describeProject(project, { ownerName: owner, role, detail: true }));
  });
  router.put("/projects/:project", async (request, response) => {
    const project = await requireProject(services, request, "project:update");
    const body = readBody(request, projectChange);
    const caller = callerOf(request);
    const metadata = splitMetadata(body.metadata);
    const isPublic = metadata.public ?? body.public ?? undefined;
    if (body.registry_id !== undefined && body.registry_id !== null && body.registry_id !== project.registryId) {
      throw new SlipwayError("BAD_REQUEST", { message: "the registry of a project cannot be changed" });
    }
    const updated = await projects.update(project.id, {
      metadataMerge: metadata.rest,
      ...(isPublic === undefined ? {} : { public: isPublic }),
      ...(caller.sysadmin && typeof body.storage_limit === "number" ? { storageLimit: body.storage_limit } : {}),
    });
    if (updated === null) throw new SlipwayError("NOT_FOUND", { message: "project not found" });
    response.status(200).end();
  });
  router.delete("/projects/:project", async (request, response) => {
    const project = await requireProject(services, request, "project:delete");
    if (!(await projects.remove(project.id))) throw new SlipwayError("NOT_FOUND", { message: "project not found" });
    response.status(200).end();
  });
}

function addDetails(router: Router, services: HarborServices): void {
  const { auth } = services;
  router.get("/projects/:project/_deletable", async (request, response) => {
    const project = await requireProject(services, request, "project:delete");
    const deletable = project.repoCount === 0;
    response.json(deletable ? { deletable } : { deletable, message: "the project contains repositories, can not be deleted" });
  });
  router.get("/projects/:project/summary", async (request, response) => {
    const project = await requireProject(services, request, "project:read");
    const caller = callerOf(request);
    const showMembers = await auth.decisions.may(caller, project, "member:list");
    const showQuota = await auth.decisions.may(caller, project, "quota:read");
    const counts = showMembers ? describeCounts(await auth.members.countRoles(project.id)) : {};
    const quota = showQuota ? await quotaOf(services, project) : undefined;
    const registry = project.registryId === null ? null : await services.registries?.describe(project.registryId);
    response.json({ ...omitEmpty({ repo_count: project.repoCount, ...counts }, ["repo_count"]), quota, registry: registry ?? undefined });
  });
}

async function quotaOf(services: HarborServices, project: { id: number; storageLimit: number }): Promise<object> {
  return { hard: { storage: project.storageLimit }, used: { storage: await services.auth.projectList.usedStorage(project.id) } };
}
