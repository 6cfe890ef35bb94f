/** /projects/{p}/members and /metadatas. */
import { Router } from "express";
import { z } from "zod";
import type { Member } from "../../src/auth/members.ts";
import { isRoleId, roleName } from "../../src/auth/roles.ts";
import type { RoleId } from "../../src/auth/roles.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { requireProject } from "./access.ts";
import { readBody, readId, readQueryText } from "./conventions.ts";
import { readPage, setListHeaders } from "./list-params.ts";
import { METADATA_KEYS, metadataOf, projectMetadata, splitMetadata } from "./project-mapping.ts";
import type { HarborServices } from "./services.ts";

const role = z
  .number()
  .int()
  .refine((id): id is RoleId => isRoleId(id), "is not a role: 1 to 5");
const newMember = z.object({
  role_id: role,
  member_user: z.object({ user_id: z.number().int().optional(), username: z.string().optional() }).optional(),
  member_group: z.unknown().optional(),
});
const roleRequest = z.object({ role_id: role });

export function createMembersRouter(services: HarborServices): Router {
  const router = Router();
  const { members } = services.auth;
  router.get("/projects/:project/members", async (request, response) => {
    const project = await requireProject(services, request, "member:list");
    const page = readPage(request);
    const { rows, total } = await members.list(project.id, readQueryText(request, "entityname") ?? "", page);
    setListHeaders(request, response, { total, ...page });
    response.json(rows.map(describeMember));
  });
  router.post("/projects/:project/members", async (request, response) => {
    const project = await requireProject(services, request, "member:create");
    const body = readBody(request, newMember);
    const userId = await findUserId(services, body.member_user);
    const id = await members.create(project, userId, body.role_id);
    response.status(201).location(`${request.baseUrl}/projects/${project.id}/members/${id}`).end();
  });
  router.get("/projects/:project/members/:member", async (request, response) => {
    const project = await requireProject(services, request, "member:read");
    const member = await members.find(project.id, readId(request, "member"));
    if (!member) throw notFound();
    response.json(describeMember(member));
  });
  router.put("/projects/:project/members/:member", async (request, response) => {
    const project = await requireProject(services, request, "member:update");
    if (!(await members.update(project, readId(request, "member"), readBody(request, roleRequest).role_id))) throw notFound();
    response.status(200).end();
  });
  router.delete("/projects/:project/members/:member", async (request, response) => {
    const project = await requireProject(services, request, "member:delete");
    if (!(await members.remove(project, readId(request, "member")))) throw notFound();
    response.status(200).end();
  });
  return router;
}

async function findUserId(services: HarborServices, user: z.output<typeof newMember>["member_user"]): Promise<number> {
  const { users } = services.auth;
  if (user?.user_id !== undefined && user.user_id > 0) return user.user_id;
  if (user?.username === undefined || user.username === "") {
    throw new SlipwayError("BAD_REQUEST", { message: "member_user needs user_id or username; groups are not supported" });
  }
  const found = await users.findByName(user.username);
  if (!found) throw new SlipwayError("NOT_FOUND", { message: "user not found" });
  return found.id;
}

function describeMember(member: Member): object {
  return {
    id: member.id,
    project_id: member.projectId,
    entity_name: member.username,
    role_name: roleName(member.role),
    role_id: member.role,
    entity_id: member.userId,
    entity_type: "u",
  };
}

function notFound(): SlipwayError {
  return new SlipwayError("NOT_FOUND", { message: "member not found" });
}

export function createMetadatasRouter(services: HarborServices): Router {
  const router = Router();
  const { projects } = services;
  router.get("/projects/:project/metadatas", async (request, response) => {
    response.json(metadataOf(await requireProject(services, request, "metadata:list")));
  });
  router.post("/projects/:project/metadatas", async (request, response) => {
    const project = await requireProject(services, request, "metadata:create");
    const [name, value] = readOneKey(request.body);
    if (metadataOf(project)[name] !== undefined && name !== "public") {
      throw new SlipwayError("CONFLICT", { message: `metadata ${name} exists` });
    }
    await projects.update(project.id, changeOf(name, value));
    response.status(201).location(`${request.baseUrl}/projects/${project.id}/metadatas/${name}`).end();
  });
  router.get("/projects/:project/metadatas/:name", async (request, response) => {
    const project = await requireProject(services, request, "metadata:read");
    const value = metadataOf(project)[request.params.name];
    if (value === undefined) throw new SlipwayError("NOT_FOUND", { message: `metadata ${request.params.name} not found` });
    response.json({ [request.params.name]: value });
  });
  router.put("/projects/:project/metadatas/:name", async (request, response) => {
    const project = await requireProject(services, request, "metadata:update");
    const [name, value] = readOneKey(request.body);
    if (name !== request.params.name) throw new SlipwayError("BAD_REQUEST", { message: "the key in the body is another than in the path" });
    await projects.update(project.id, changeOf(name, value));
    response.status(200).end();
  });
  router.delete("/projects/:project/metadatas/:name", async (request, response) => {
    const project = await requireProject(services, request, "metadata:delete");
    const { name } = request.params;
    if (name === "public") throw new SlipwayError("BAD_REQUEST", { message: "public cannot be removed" });
    if (project.metadata[name] === undefined) throw new SlipwayError("NOT_FOUND", { message: `metadata ${name} not found` });
    await projects.update(project.id, { metadataRemove: [name] });
    response.status(200).end();
  });
  return router;
}

/** One key for each write, as in Harbor. */
function readOneKey(body: unknown): readonly [string, string] {
  const keys = typeof body === "object" && body !== null ? Object.keys(body) : [];
  const name = keys[0];
  if (keys.length !== 1 || name === undefined) throw new SlipwayError("BAD_REQUEST", { message: "exactly one key is expected" });
  if (!METADATA_KEYS.includes(name)) throw new SlipwayError("BAD_REQUEST", { message: `${name} is not a metadata key` });
  const parsed = projectMetadata.safeParse(body);
  const value: unknown = parsed.success ? (parsed.data as Record<string, unknown>)[name] : undefined;
  if (typeof value !== "string") throw new SlipwayError("BAD_REQUEST", { message: `the value of ${name} is not valid` });
  return [name, value];
}

function changeOf(name: string, value: string): { public: boolean } | { metadataMerge: Record<string, string> } {
  return name === "public" ? { public: value === "true" } : { metadataMerge: splitMetadata({ [name]: value }).rest };
}
