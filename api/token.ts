/** /service/token: the docker token flow, by GET with Basic and by POST with a form. */
import express, { Router } from "express";
import type { Request, Response } from "express";
import type { ProjectIdentity } from "../src/auth/principal.ts";
import type { TokenAnswer, TokenRequest, TokenService } from "../src/auth/token-service.ts";
import { SlipwayError, toSlipwayError } from "../src/core/errors.ts";
import type { ClientAddresses } from "./http/client-address.ts";

export interface TokenRouterServices {
  readonly tokenService: TokenService;
  readonly addresses: Pick<ClientAddresses, "remoteAddress">;
  /** The project that a repository's name leads to, by the same rules as a request for it; null when there is none. */
  resolveProject(repository: string): Promise<ProjectIdentity | null>;
}

const form = express.urlencoded({ extended: false, limit: "64kb", parameterLimit: 100 });

export function createTokenRouter(services: TokenRouterServices): Router {
  const router = Router();
  const { tokenService, addresses } = services;
  router.get("/", async (request, response) => {
    const offline = textOf(request.query["offline_token"]) === "true" || textOf(request.query["access_type"]) === "offline";
    const wanted = readRequest(services, request.query, offline);
    const origin = { remoteAddress: addresses.remoteAddress(request) };
    send(response, await tokenService.issueForHeader(request.headers.authorization, wanted, origin));
  });
  router.post("/", form, async (request, response) => {
    const fields = (request.body ?? {}) as Record<string, unknown>;
    const wanted = readRequest(services, fields, textOf(fields["access_type"]) === "offline");
    send(response, await issueForForm(services, request, { fields, wanted }));
  });
  router.all("/", () => {
    throw new SlipwayError("UNSUPPORTED");
  });
  router.use((thrown: unknown, _request: Request, response: Response, next: (error: unknown) => void) => {
    const error = toSlipwayError(thrown);
    if (error.status !== 401 || response.headersSent) {
      next(thrown);
      return;
    }
    response.set("WWW-Authenticate", 'Basic realm="slipway"');
    response.status(401).json({ errors: [{ code: "UNAUTHORIZED", message: error.message }] });
  });
  return router;
}

async function issueForForm(
  services: TokenRouterServices,
  request: Request,
  { fields, wanted }: { fields: Record<string, unknown>; wanted: TokenRequest },
): Promise<TokenAnswer> {
  const { tokenService, addresses } = services;
  const origin = { remoteAddress: addresses.remoteAddress(request) };
  switch (textOf(fields["grant_type"])) {
    case "password": {
      const username = textOf(fields["username"]) ?? "";
      const password = textOf(fields["password"]) ?? "";
      if (username === "") throw new SlipwayError("BAD_REQUEST", { message: "username is required" });
      return await tokenService.issueForPassword({ username, password }, wanted, origin);
    }
    case "refresh_token":
      return await tokenService.issueForRefreshToken(textOf(fields["refresh_token"]) ?? "", wanted);
    default:
      throw new SlipwayError("BAD_REQUEST", { message: "grant_type must be password or refresh_token" });
  }
}

function readRequest(services: TokenRouterServices, fields: Record<string, unknown>, offline: boolean): TokenRequest {
  const scope = fields["scope"];
  const scopes = (Array.isArray(scope) ? scope : [scope]).filter((item) => typeof item === "string");
  return { service: textOf(fields["service"]), scopes, offline, resolveProject: (name) => services.resolveProject(name) };
}

function textOf(value: unknown): string | undefined {
  const first: unknown = Array.isArray(value) ? value[0] : value;
  return typeof first === "string" ? first : undefined;
}

function send(response: Response, answer: TokenAnswer): void {
  response.set("Cache-Control", "no-store").json({
    // Old clients read one name, OAuth2 clients the other.
    token: answer.token,
    access_token: answer.token,
    token_type: "Bearer",
    expires_in: answer.expiresInSeconds,
    issued_at: answer.issuedAt.toISOString(),
    scope: answer.access
      .filter((entry) => entry.actions.length > 0)
      .map((entry) => `${entry.type}:${entry.name}:${entry.actions.join(",")}`)
      .join(" "),
    ...(answer.refreshToken === null ? {} : { refresh_token: answer.refreshToken }),
  });
}
