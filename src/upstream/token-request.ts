/**
 * Asks a token service for a token: GET with Basic or nothing, POST with a refresh token, and GET where POST is not known. The realm is
 * named by the registry, so it goes through the address rules, and a credential goes to it only over TLS or where it would go anyway.
 */
import type { Readable } from "node:stream";
import { z } from "zod";
import { SlipwayError } from "../core/errors.ts";
import { discard, readBounded } from "./body.ts";
import { basicHeader } from "./credentials.ts";
import { transportFailure } from "./failure.ts";
import { parseRetryAfter } from "./retry-after.ts";
import type { FreshToken } from "./token-cache.ts";
import type { UpstreamCredential } from "./types.ts";

export interface TokenWireRequest {
  readonly url: URL;
  readonly method: "GET" | "POST";
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

export interface TokenWireAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Readable;
}

export interface TokenRequest {
  readonly realm: URL;
  readonly service: string | null;
  readonly scopes: readonly string[];
  readonly credential: UpstreamCredential | null;
  readonly now: () => number;
  readonly send: (request: TokenWireRequest) => Promise<TokenWireAnswer>;
}

export interface TokenGrant extends FreshToken {
  /** A new refresh token that replaces ours. */
  readonly refreshToken: string | null;
}

const MAX_TOKEN_BYTES = 256 * 1024;
const CLIENT_ID = "slipway";

/** `expires_in` is a number by the book and a string in the wild; anything else counts as absent. */
const TokenDocument = z.object({
  token: z.string().nullish(),
  access_token: z.string().nullish(),
  refresh_token: z.string().nullish(),
  expires_in: z.coerce.number().positive().nullish().catch(null),
});

/** The service refused; whether a credential was part of it decides what that means. */
export class TokenRefused extends Error {
  override readonly name = "TokenRefused";
  readonly status: number;

  constructor(status: number) {
    super(`token service answered ${status}`);
    this.status = status;
  }
}

export async function requestToken(request: TokenRequest): Promise<TokenGrant> {
  const { credential } = request;
  if (credential?.type === "identity") {
    const grant = await postRefresh(request, credential.token);
    if (grant) return grant;
    return await read(request, await send(request, getRequest(request, basicHeader(credential.username ?? "<token>", credential.token))));
  }
  const authorization = credential?.type === "basic" ? basicHeader(credential.username, credential.password) : null;
  return await read(request, await send(request, getRequest(request, authorization)));
}

function getRequest(request: TokenRequest, authorization: string | null): TokenWireRequest {
  const url = new URL(request.realm);
  if (request.service !== null) url.searchParams.set("service", request.service);
  for (const scope of request.scopes) url.searchParams.append("scope", scope);
  return { url, method: "GET", headers: authorization === null ? {} : { authorization } };
}

/** Null when the service does not know this way. */
async function postRefresh(request: TokenRequest, refreshToken: string): Promise<TokenGrant | null> {
  const form = new URLSearchParams({ grant_type: "refresh_token", client_id: CLIENT_ID, refresh_token: refreshToken });
  if (request.service !== null) form.set("service", request.service);
  if (request.scopes.length > 0) form.set("scope", request.scopes.join(" "));
  const answer = await send(request, {
    url: request.realm,
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: Buffer.from(form.toString()),
  });
  if (answer.status === 404 || answer.status === 405 || answer.status === 501) {
    await discard(answer.body);
    return null;
  }
  return await read(request, answer);
}

async function send(request: TokenRequest, wire: TokenWireRequest): Promise<TokenWireAnswer> {
  try {
    return await request.send(wire);
  } catch (error) {
    throw transportFailure(error, request.realm.host).error;
  }
}

async function read(request: TokenRequest, answer: TokenWireAnswer): Promise<TokenGrant> {
  const detail = { host: request.realm.host, status: answer.status, part: "token" };
  if (answer.status !== 200) {
    await discard(answer.body);
    const header = answer.headers["retry-after"];
    const wait = parseRetryAfter(Array.isArray(header) ? header[0] : header, request.now());
    const retry = wait === null ? {} : { retryAfterSeconds: Math.max(1, Math.ceil(wait / 1000)) };
    if (answer.status === 429) throw new SlipwayError("UPSTREAM_LIMITED", { detail, ...retry });
    if (answer.status >= 500) throw new SlipwayError("UPSTREAM_UNAVAILABLE", { detail, ...retry });
    if (answer.status === 401 || answer.status === 403 || answer.status === 400) throw new TokenRefused(answer.status);
    throw new SlipwayError("UPSTREAM_INVALID", { detail });
  }
  const bytes = await readBounded(answer.body, MAX_TOKEN_BYTES).catch((error: unknown) => {
    throw transportFailure(error, request.realm.host).error;
  });
  const document = parse(bytes);
  const token = document?.token || document?.access_token;
  // A token goes into a header: anything that could end the header is no token.
  if (!document || !token || !/^[\x21-\x7e]+$/.test(token)) throw new SlipwayError("UPSTREAM_INVALID", { detail });
  return { token, expiresInSeconds: document.expires_in ?? null, refreshToken: document.refresh_token || null };
}

function parse(bytes: Buffer): z.infer<typeof TokenDocument> | null {
  try {
    return TokenDocument.safeParse(JSON.parse(bytes.toString("utf8"))).data ?? null;
  } catch {
    return null;
  }
}
