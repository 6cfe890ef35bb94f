/** Who calls, and whether they may. Refusals never tell whether a project exists, except to system administrators. */
import type { Request, RequestHandler, Response } from "express";
import { ANONYMOUS } from "../../src/auth/principal.ts";
import type { Principal } from "../../src/auth/principal.ts";
import { API_BOUND, boundAllows } from "../../src/auth/scopes.ts";
import type { Right } from "../../src/auth/roles.ts";
import type { Project } from "../../src/catalog/registry.ts";
import { isSlipwayError, SlipwayError } from "../../src/core/errors.ts";
import type { HarborServices } from "./services.ts";

const callers = new WeakMap<Request, Principal>();

/** Wrong credentials are no error by themselves: the caller is anonymous, and is refused where that is not enough. */
export function identify(services: Pick<HarborServices, "auth" | "addresses">): RequestHandler {
  return async (request: Request, response: Response, next) => {
    const origin = { remoteAddress: services.addresses.remoteAddress(request) };
    const principal = await services.auth.authenticator.authenticate(request.headers.authorization, origin).catch((error: unknown) => {
      if (isSlipwayError(error, "UNAUTHORIZED")) return ANONYMOUS;
      throw error;
    });
    callers.set(request, principal);
    response.locals["principal"] = principal.name;
    next();
  };
}

export function callerOf(request: Request): Principal {
  return callers.get(request) ?? ANONYMOUS;
}

/** Anybody who is logged in. */
export function requireLogin(request: Request): Principal {
  const caller = callerOf(request);
  if (caller.kind === "anonymous") throw refusal(caller);
  if (!boundAllows(caller, API_BOUND)) {
    throw new SlipwayError("FORBIDDEN", { message: `this token is not for the API; ask for the scope ${API_BOUND}:*` });
  }
  return caller;
}

export async function requireSystemRight(services: Pick<HarborServices, "auth">, request: Request, right: Right): Promise<Principal> {
  const caller = callerOf(request);
  if (await services.auth.decisions.may(caller, null, right)) return caller;
  // Harbor's whole text here is who was refused.
  throw caller.kind === "anonymous" ? refusal(caller) : new SlipwayError("FORBIDDEN", { message: caller.name });
}

export async function requireRight(
  services: Pick<HarborServices, "auth">,
  request: Request,
  { project, right }: { project: Project; right: Right },
): Promise<void> {
  const caller = callerOf(request);
  if (!(await services.auth.decisions.may(caller, project, right))) throw refusal(caller);
}

/** The project that the path names, for a caller with the right. */
export async function requireProject(
  services: Pick<HarborServices, "auth" | "projects">,
  request: Request,
  right: Right,
): Promise<Project> {
  const text = String(request.params["project"] ?? "");
  const byName = request.get("x-is-resource-name")?.toLowerCase() === "true" || !/^\d{1,15}$/.test(text);
  const project = byName ? await services.projects.find(text) : await services.projects.findById(Number(text));
  return await requireFound(services, request, { project, right, text });
}

export async function requireFound(
  services: Pick<HarborServices, "auth">,
  request: Request,
  { project, right, text }: { project: Project | null; right: Right; text: string },
): Promise<Project> {
  const caller = callerOf(request);
  if (project === null) {
    if (caller.sysadmin && boundAllows(caller, API_BOUND)) throw new SlipwayError("NOT_FOUND", { message: `project ${text} not found` });
    throw refusal(caller);
  }
  await requireRight(services, request, { project, right });
  return project;
}

export function refusal(caller: Principal): SlipwayError {
  return caller.kind === "anonymous" ? new SlipwayError("UNAUTHORIZED", { message: "unauthorized" }) : new SlipwayError("FORBIDDEN");
}
