/**
 * Who may do what. A token's scope is an upper bound and never grants; the right is that of the principal on the project that the name
 * resolves to. A private project and one that does not exist are the same to somebody without rights.
 */
import { challengeFor } from "../../src/auth/challenge.ts";
import type { ChallengeScope } from "../../src/auth/challenge.ts";
import { ANONYMOUS, scopeAllows } from "../../src/auth/principal.ts";
import type { Principal, RegistryAction } from "../../src/auth/principal.ts";
import { SlipwayError, isSlipwayError } from "../../src/core/errors.ts";
import type { Project } from "../../src/catalog/registry.ts";
import { isRepositoryName } from "../../src/oci/names.ts";
import { withHeaders } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import type { RegistryServices } from "./services.ts";
import type { LocalTarget, Operation, Target } from "./target.ts";

const ACTION: Readonly<Record<Operation, RegistryAction>> = {
  "manifest.read": "pull",
  "manifest.put": "push",
  "manifest.delete": "delete",
  "blob.read": "pull",
  "blob.delete": "delete",
  "upload.start": "push",
  "upload.status": "push",
  "upload.append": "push",
  "upload.finish": "push",
  "upload.cancel": "push",
  "tags.list": "pull",
  "referrers.list": "pull",
};

/** What a client should ask a token for. Clients that push also read. */
const SCOPE_ACTIONS: Readonly<Record<RegistryAction, readonly RegistryAction[]>> = {
  pull: ["pull"],
  push: ["pull", "push"],
  delete: ["delete"],
};

export interface Challenge {
  readonly scopes: readonly ChallengeScope[];
  /** Why a presented token was not enough. */
  readonly error?: "invalid_token" | "insufficient_scope";
}

export function unauthorized(exchange: Exchange, services: RegistryServices, challenge: Challenge): SlipwayError {
  const header = challengeFor(services.addresses.externalUrl(exchange.req), challenge.scopes, challenge.error);
  return withHeaders(new SlipwayError("UNAUTHORIZED"), ["WWW-Authenticate", header]);
}

/** Who asks; credentials that are no good are answered with a challenge for the scopes. */
export async function identify(exchange: Exchange, services: RegistryServices, scopes: readonly ChallengeScope[]): Promise<Principal> {
  const { authorization } = exchange.req.headers;
  const { auth } = services;
  try {
    exchange.principal =
      auth.peekPrincipal(authorization) ??
      (await auth.authenticate(authorization, { remoteAddress: services.addresses.remoteAddress(exchange.req) }, exchange.signal));
    return exchange.principal;
  } catch (error) {
    if (!isSlipwayError(error, "UNAUTHORIZED")) throw error;
    const isToken = authorization?.slice(0, 7).toLowerCase() === "bearer ";
    throw unauthorized(exchange, services, isToken ? { scopes, error: "invalid_token" } : { scopes });
  }
}

/** The target of an operation that the principal may perform. */
export async function authorize(exchange: Exchange, services: RegistryServices, operation: Operation): Promise<Target> {
  const { route } = exchange;
  if (!route) throw new SlipwayError("INTERNAL");
  const action = ACTION[operation];
  const scopes = [{ repository: route.requested, actions: SCOPE_ACTIONS[action] }, ...mountScope(exchange, operation)];
  const principal = await identify(exchange, services, scopes);
  const request = { requested: route.requested, namespace: namespaceOf(exchange, services), isWrite: action !== "pull" };
  const target = services.resolver.peek(request) ?? (await services.resolver.resolve(request, exchange.signal));
  const allowed =
    target.project === null
      ? mayKnowAbsence(principal, services) || (action === "push" && services.auth.mayCreateProject(principal))
      : await mayDo(principal, target.project, { action, services, signal: exchange.signal });
  if (!allowed) {
    if (principal.kind === "anonymous") throw unauthorized(exchange, services, { scopes });
    throw new SlipwayError("DENIED");
  }
  // The right is there and the token is too narrow for it: the client can get a wider one.
  if (!scopeAllows(principal, route.requested, action)) {
    throw unauthorized(exchange, services, { scopes, error: "insufficient_scope" });
  }
  return target;
}

/** The registry that a client means by ?ns=; our own name says nothing new. */
function namespaceOf(exchange: Exchange, services: RegistryServices): string | null {
  const namespace = exchange.parameter("ns");
  if (namespace === null || namespace === "") return null;
  return namespace === exchange.req.headers.host || namespace === new URL(services.addresses.externalUrl(exchange.req)).host
    ? null
    : namespace;
}

/** A mount reads its source as well: told whether or not there is such a repository. */
function mountScope(exchange: Exchange, operation: Operation): ChallengeScope[] {
  if (operation !== "upload.start" || exchange.parameter("mount") === null) return [];
  const from = exchange.parameter("from");
  return from !== null && isRepositoryName(from) ? [{ repository: from, actions: ["pull"] }] : [];
}

interface RightQuestion {
  readonly action: RegistryAction;
  readonly services: RegistryServices;
  readonly signal: AbortSignal;
}

export async function mayDo(principal: Principal, project: Project, question: RightQuestion): Promise<boolean> {
  const { action, services, signal } = question;
  return services.auth.peekDecision(principal, project, action) ?? services.auth.decide(principal, project, action, signal);
}

function mayKnowAbsence(principal: Principal, services: RegistryServices): boolean {
  return principal.sysadmin || services.auth.mode === "open";
}

/** The project that a write goes to; created when that is allowed. */
export async function projectForWrite(exchange: Exchange, target: LocalTarget, services: RegistryServices): Promise<Project> {
  if (target.project !== null) return target.project;
  const { principal } = exchange;
  if (!services.auth.mayCreateProject(principal)) throw new SlipwayError("NAME_UNKNOWN");
  return services.writer.createProject(target.projectName, { public: false, ownerId: principal.kind === "user" ? principal.id : null });
}

/**
 * Whether a mount may take from a project's repositories. A token names the repositories that it may touch; without the source's name
 * (an automatic mount) a bounded token reaches only what everybody may read.
 */
export async function mayMountFrom(
  exchange: Exchange,
  project: Project,
  question: { from: string | null; services: RegistryServices },
): Promise<boolean> {
  const { from, services } = question;
  const { principal } = exchange;
  const bounded = principal.scopes !== null && (from === null || !scopeAllows(principal, from, "pull"));
  return mayDo(bounded ? ANONYMOUS : principal, project, { action: "pull", services, signal: exchange.signal });
}
