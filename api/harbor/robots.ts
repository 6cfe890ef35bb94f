/** /robots: accounts of machines. */
import { Router } from "express";
import type { Request } from "express";
import { z } from "zod";
import { requireAcceptablePassword } from "../../src/auth/passwords.ts";
import { permissionsAllow } from "../../src/auth/roles.ts";
import type { Right, RobotPermission } from "../../src/auth/roles.ts";
import { ROBOT_LIST_KEYS } from "../../src/auth/robots.ts";
import type { Robot } from "../../src/auth/robots.ts";
import type { Project } from "../../src/catalog/registry.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { callerOf, requireFound, requireSystemRight } from "./access.ts";
import { omitEmpty, readBody, readId } from "./conventions.ts";
import { readListQuery, setListHeaders } from "./list-params.ts";
import type { HarborServices } from "./services.ts";

const DAY_MS = 24 * 3_600_000;
const NAME = /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/;
const word = z.string().regex(/^(?:\*|[a-z][a-z0-9-]{0,63})$/);
const permission = z.object({
  kind: z.enum(["project", "system"]),
  namespace: z.string().min(1).max(255),
  access: z
    .array(z.object({ resource: word, action: word, effect: z.enum(["allow", "deny"]).optional() }))
    .min(1)
    .max(256),
});
const shape = {
  description: z.string().max(1024).default(""),
  level: z.enum(["system", "project"]),
  duration: z
    .number()
    .int()
    .max(36_500)
    .refine((days) => days === -1 || days > 0, "must be -1 or greater than 0"),
  disable: z.boolean().default(false),
  permissions: z.array(permission).min(1).max(256),
};
const newRobot = z.object({ name: z.string().max(255).regex(NAME), ...shape });
const robotChange = z.object({ name: z.string().optional(), ...shape });
const secretRequest = z.object({ secret: z.string().default("") });

export function createRobotsRouter(services: HarborServices): Router {
  const router = Router();
  addList(router, services);
  addCreate(router, services);
  addOne(router, services);
  addUpdate(router, services);
  return router;
}

function addList(router: Router, services: HarborServices): void {
  router.get("/robots", async (request, response) => {
    const query = readListQuery(request, [...ROBOT_LIST_KEYS, "level", "projectid", "project_id"]);
    const find = (...keys: readonly string[]): string | undefined =>
      query.filters.flatMap((one) => (one.kind === "equals" && keys.includes(one.key.toLowerCase()) ? [one.value] : []))[0];
    let projectId: number | null = null;
    if (find("level") === "project") {
      projectId = Number(find("projectid", "project_id") ?? Number.NaN);
      if (!Number.isSafeInteger(projectId)) {
        throw new SlipwayError("BAD_REQUEST", { message: "project robots are listed with Level=project,ProjectID=<id>" });
      }
      const project = await services.projects.findById(projectId);
      await requireFound(services, request, { project, right: "robot:list", text: String(projectId) });
    } else await requireSystemRight(services, request, "robot:list");
    const { rows, total } = await services.auth.robots.list(projectId, query);
    setListHeaders(request, response, { total, ...query });
    response.json(rows.map((robot) => describeRobot(services, robot)));
  });
}

function addCreate(router: Router, services: HarborServices): void {
  const { robots, robotSecrets } = services.auth;
  router.post("/robots", async (request, response) => {
    const body = readBody(request, newRobot);
    const project = await requireScope(services, request, { level: body.level, permissions: body.permissions, right: "robot:create" });
    requireNoEscalation(services, request, body.permissions);
    // A secret in the body is not taken: one that we made has full strength.
    const { secret, hash } = robotSecrets.generate();
    const robot = await robots.create({
      loginName: project === null ? body.name : `${project.name}+${body.name}`,
      projectId: project?.id ?? null,
      description: body.description,
      permissions: body.permissions,
      durationDays: body.duration,
      disabled: body.disable,
      expiresAt: body.duration === -1 ? null : new Date(services.clock.now() + body.duration * DAY_MS),
      secretHash: hash,
    });
    const { auth } = services;
    response
      .status(201)
      .location(`${request.baseUrl}/robots/${robot.id}`)
      .json({
        id: robot.id,
        name: `${auth.robotPrefix}${robot.loginName}`,
        secret,
        creation_time: robot.createdAt.toISOString(),
        expires_at: expiryOf(robot),
      });
  });
}

function addOne(router: Router, services: HarborServices): void {
  const { robots, robotSecrets } = services.auth;
  router.get("/robots/:id", async (request, response) => {
    response.json(describeRobot(services, await requireRobot(services, request, "robot:read")));
  });
  router.delete("/robots/:id", async (request, response) => {
    const robot = await requireRobot(services, request, "robot:delete");
    if (!(await robots.remove(robot.id))) throw notFound();
    response.status(200).end();
  });
  router.patch("/robots/:id", async (request, response) => {
    const robot = await requireRobot(services, request, "robot:update");
    requireNoEscalation(services, request, robot.permissions);
    const { secret } = readBody(request, secretRequest);
    if (secret !== "") requireAcceptablePassword(secret);
    const made = secret === "" ? robotSecrets.generate() : { secret: undefined, hash: await robotSecrets.hashChosen(secret) };
    if (!(await robots.changeSecret(robot.id, made.hash))) throw notFound();
    response.json(made.secret === undefined ? {} : { secret: made.secret });
  });
}

function addUpdate(router: Router, services: HarborServices): void {
  const { robots, robotPrefix } = services.auth;
  router.put("/robots/:id", async (request, response) => {
    const robot = await requireRobot(services, request, "robot:update");
    const body = readBody(request, robotChange);
    const names = [undefined, robot.loginName, `${robotPrefix}${robot.loginName}`, robot.loginName.split("+").at(-1)];
    if (!names.includes(body.name) || body.level !== robot.level) {
      throw new SlipwayError("BAD_REQUEST", { message: "name and level of a robot cannot be changed" });
    }
    const project = await requireScope(services, request, { level: body.level, permissions: body.permissions, right: "robot:update" });
    if ((project?.id ?? null) !== robot.projectId) {
      throw new SlipwayError("BAD_REQUEST", { message: "a project robot stays with its project" });
    }
    requireNoEscalation(services, request, [...robot.permissions, ...body.permissions]);
    const expiresAt = body.duration === -1 ? null : new Date(robot.createdAt.getTime() + body.duration * DAY_MS);
    const change = {
      description: body.description,
      permissions: body.permissions,
      durationDays: body.duration,
      disabled: body.disable,
      expiresAt: body.duration === robot.durationDays ? robot.expiresAt : expiresAt,
    };
    if (!(await robots.update(robot, change))) throw new SlipwayError("CONFLICT", { message: "the robot was changed meanwhile" });
    response.status(200).end();
  });
}

async function requireRobot(services: HarborServices, request: Request, right: Right): Promise<Robot> {
  const id = readId(request, "id");
  const robot = await services.auth.robots.find(id);
  if (robot === null || robot.projectId === null) {
    await requireSystemRight(services, request, right);
    if (robot === null) throw notFound();
    return robot;
  }
  const project = await services.projects.findById(robot.projectId);
  await requireFound(services, request, { project, right, text: String(robot.projectId) });
  return robot;
}

/** The project of a project robot, null for a system robot, once the permissions fit the level and the caller has the right. */
async function requireScope(
  services: HarborServices,
  request: Request,
  { level, permissions, right }: { level: "system" | "project"; permissions: readonly RobotPermission[]; right: Right },
): Promise<Project | null> {
  if (level === "system") {
    await requireSystemRight(services, request, right);
    for (const { kind, namespace } of permissions) await checkNamespace(services, kind, namespace);
    return null;
  }
  const [only, ...others] = permissions;
  if (only === undefined || others.length > 0 || only.kind !== "project" || only.namespace === "*") {
    throw new SlipwayError("BAD_REQUEST", { message: "a project robot has exactly one permission, of kind project, for its project" });
  }
  const project = await services.projects.find(only.namespace);
  return await requireFound(services, request, { project, right, text: only.namespace });
}

async function checkNamespace(services: HarborServices, kind: "project" | "system", namespace: string): Promise<void> {
  if (kind === "system" ? namespace === "/" : namespace === "*") return;
  if (kind === "project" && (await services.projects.find(namespace)) !== null) return;
  throw new SlipwayError("BAD_REQUEST", { message: `there is no ${kind === "system" ? "system namespace" : "project"} ${namespace}` });
}

/** A robot that manages robots makes none that can do more than itself. */
function requireNoEscalation(services: HarborServices, request: Request, permissions: readonly RobotPermission[]): void {
  const caller = callerOf(request);
  if (caller.kind !== "robot") return;
  const own = services.auth.authenticator.permissionsOf(caller);
  for (const { kind, namespace, access } of permissions) {
    for (const { resource, action } of access) {
      if (!permissionsAllow(own, kind === "system" ? null : namespace, [`${resource}:${action}`])) {
        throw new SlipwayError("FORBIDDEN", { message: `this robot may not give the right ${resource}:${action}` });
      }
    }
  }
}

function describeRobot(services: HarborServices, robot: Robot): object {
  const fields = omitEmpty(
    {
      id: robot.id,
      name: `${services.auth.robotPrefix}${robot.loginName}`,
      description: robot.description,
      level: robot.level,
      duration: robot.durationDays,
      disable: robot.disabled,
      editable: true,
      expires_at: expiryOf(robot),
      creation_time: robot.createdAt.toISOString(),
      update_time: robot.updatedAt.toISOString(),
    },
    ["disable"],
  );
  return { ...fields, permissions: robot.permissions };
}

/** Seconds since the epoch; -1 for never. */
function expiryOf(robot: Robot): number {
  return robot.expiresAt === null ? -1 : Math.floor(robot.expiresAt.getTime() / 1000);
}

function notFound(): SlipwayError {
  return new SlipwayError("NOT_FOUND", { message: "robot not found" });
}
