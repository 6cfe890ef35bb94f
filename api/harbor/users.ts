/** /users: accounts of people. */
import { Router } from "express";
import type { Request } from "express";
import { z } from "zod";
import { requireAcceptablePassword } from "../../src/auth/passwords.ts";
import type { Principal } from "../../src/auth/principal.ts";
import { rightsOf } from "../../src/auth/roles.ts";
import { USER_LIST_KEYS } from "../../src/auth/users.ts";
import type { User } from "../../src/auth/users.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { callerOf, refusal, requireLogin, requireSystemRight } from "./access.ts";
import { omitEmpty, readBody, readId, readQueryBoolean, readQueryText } from "./conventions.ts";
import { readListQuery, readPage, setListHeaders } from "./list-params.ts";
import type { HarborServices } from "./services.ts";

/** Separators of login forms and shells; Harbor refuses the same. */
const ILLEGAL = /[,~#$%]/;

const username = z
  .string()
  .min(1)
  .max(255)
  .refine((text) => !/[,~#$%:\s]/.test(text), "contains illegal characters");
const profile = z.object({
  email: z.email().max(255),
  realname: z
    .string()
    .min(1)
    .max(255)
    .refine((text) => !ILLEGAL.test(text), "contains illegal characters"),
  comment: z.string().max(255).default(""),
});
const newUser = profile.extend({ username, password: z.string() });
const sysadminFlag = z.object({ sysadmin_flag: z.boolean().default(false) });
const passwordChange = z.object({ old_password: z.string().default(""), new_password: z.string() });

export function createUsersRouter(services: HarborServices): Router {
  const router = Router();
  addCurrent(router, services);
  addLists(router, services);
  addOne(router, services);
  addCredentials(router, services);
  return router;
}

function addCurrent(router: Router, services: HarborServices): void {
  const { users, decisions } = services.auth;
  router.get("/users/current", async (request, response) => {
    const caller = requireLogin(request);
    if (caller.kind === "robot") throw new SlipwayError("PRECONDITION_FAILED", { message: "a robot is not a user" });
    const user = await users.find(caller.id);
    if (!user) throw refusal(caller);
    response.json(describeUser(user));
  });
  router.get("/users/current/permissions", async (request, response) => {
    const caller = requireLogin(request);
    const scope = readQueryText(request, "scope") ?? "";
    const relative = readQueryBoolean(request, "relative") ?? false;
    const match = /^\/project\/([1-9]\d{0,14})$/.exec(scope);
    const project = match ? await services.projects.findById(Number(match[1])) : null;
    if (project === null) {
      response.json([]);
      return;
    }
    const role = caller.sysadmin ? "system" : (await decisions.roleOf(caller, project)) || (project.public ? "public" : 0);
    const prefix = relative ? "" : `${scope}/`;
    response.json(rightsOf(role).map(({ resource, action }) => ({ resource: `${prefix}${resource}`, action })));
  });
}

function addLists(router: Router, services: HarborServices): void {
  const { users } = services.auth;
  router.get("/users", async (request, response) => {
    await requireSystemRight(services, request, "user:list");
    const query = readListQuery(request, USER_LIST_KEYS);
    const { rows, total } = await users.list(query);
    setListHeaders(request, response, { total, ...query });
    response.json(rows.map(describeUser));
  });
  router.get("/users/search", async (request, response) => {
    requireLogin(request);
    const value = readQueryText(request, "username") ?? "";
    if (value === "") throw new SlipwayError("UNPROCESSABLE", { message: "username in query is required" });
    const page = readPage(request);
    const { rows, total } = await users.list({ filters: [{ key: "username", kind: "contains", value }], sort: [], ...page });
    setListHeaders(request, response, { total, ...page });
    response.json(rows.map((user) => ({ user_id: user.id, username: user.username })));
  });
  router.post("/users", async (request, response) => {
    await requireSystemRight(services, request, "user:create");
    const body = readBody(request, newUser);
    requireAcceptablePassword(body.password);
    const passwordHash = await services.auth.passwords.hash(body.password);
    const user = await users.create({ ...body, passwordHash });
    response.status(201).location(`${request.baseUrl}/users/${user.id}`).end();
  });
}

function addOne(router: Router, services: HarborServices): void {
  const { users } = services.auth;
  router.get("/users/:id", async (request, response) => {
    const id = readId(request, "id");
    await requireSelfOrRight(services, request, { id, right: "user:read" });
    response.json(describeUser(requireUser(await users.find(id))));
  });
  router.put("/users/:id", async (request, response) => {
    const id = readId(request, "id");
    await requireSelfOrRight(services, request, { id, right: "user:update" });
    if (!(await users.updateProfile(id, readBody(request, profile)))) throw notFound();
    response.status(200).end();
  });
  router.delete("/users/:id", async (request, response) => {
    const id = readId(request, "id");
    const caller = await requireSystemRight(services, request, "user:delete");
    if (isSelf(caller, id)) throw new SlipwayError("FORBIDDEN", { message: "nobody deletes their own account" });
    if (!(await users.remove(id))) throw notFound();
    response.status(200).end();
  });
}

function addCredentials(router: Router, services: HarborServices): void {
  const { users, passwords } = services.auth;
  router.put("/users/:id/sysadmin", async (request, response) => {
    const id = readId(request, "id");
    await requireSystemRight(services, request, "user:update");
    if (!(await users.setSysadmin(id, readBody(request, sysadminFlag).sysadmin_flag))) throw notFound();
    response.status(200).end();
  });
  router.put("/users/:id/password", async (request, response) => {
    const id = readId(request, "id");
    const caller = await requireSelfOrRight(services, request, { id, right: "user:update" });
    const body = readBody(request, passwordChange);
    requireAcceptablePassword(body.new_password);
    const stored = await users.findPasswordHash(id);
    if (stored === null) throw notFound();
    if (isSelf(caller, id)) {
      if (body.old_password === "") throw new SlipwayError("BAD_REQUEST", { message: "old_password is required" });
      // Through the login, so that a stolen session cannot guess faster than a stranger.
      const origin = { remoteAddress: services.addresses.remoteAddress(request) };
      await services.auth.authenticator.login(caller.name, body.old_password, origin).catch((error: unknown) => {
        throw error instanceof SlipwayError && error.code === "UNAUTHORIZED"
          ? new SlipwayError("FORBIDDEN", { message: "old_password is not correct" })
          : error;
      });
    }
    if (await passwords.verify(body.new_password, stored)) {
      throw new SlipwayError("BAD_REQUEST", { message: "the new password must differ from the old one" });
    }
    if (!(await users.changePassword(id, await passwords.hash(body.new_password), stored))) throw new SlipwayError("CONFLICT");
    response.status(200).end();
  });
}

function isSelf(caller: Principal, id: number): boolean {
  return caller.kind === "user" && caller.id === id;
}

async function requireSelfOrRight(
  services: HarborServices,
  request: Request,
  { id, right }: { id: number; right: "user:read" | "user:update" },
): Promise<Principal> {
  const caller = callerOf(request);
  if (isSelf(caller, id)) return requireLogin(request);
  return await requireSystemRight(services, request, right);
}

function requireUser(user: User | null): User {
  if (user) return user;
  throw notFound();
}

function notFound(): SlipwayError {
  return new SlipwayError("NOT_FOUND", { message: "user not found" });
}

export function describeUser(user: User): object {
  return omitEmpty(
    {
      user_id: user.id,
      username: user.username,
      email: user.email,
      realname: user.realname,
      comment: user.comment,
      sysadmin_flag: user.sysadmin,
      admin_role_in_auth: false,
      creation_time: user.createdAt.toISOString(),
      update_time: user.updatedAt.toISOString(),
    },
    ["sysadmin_flag", "admin_role_in_auth"],
  );
}
