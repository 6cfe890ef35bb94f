/** Where a redirect leads and what may be taken along. */
import { SlipwayError } from "../core/errors.ts";
import type { Method } from "./request.ts";

export const MAX_REDIRECTS = 6;

const REDIRECT_STATUSES: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

export function isRedirect(status: number, location: string | undefined): location is string {
  return REDIRECT_STATUSES.has(status) && location !== undefined;
}

export interface Hop {
  readonly url: URL;
  readonly method: Method;
  readonly headers: Readonly<Record<string, string>>;
}

/** Resolves what an answer names; https never leads to http, and a URL that carries its own credentials is refused. */
export function resolveNamed(location: string, from: URL): URL {
  let url: URL;
  try {
    url = new URL(location, from);
  } catch {
    throw new SlipwayError("UPSTREAM_INVALID", { detail: { host: from.host, reason: "LOCATION" } });
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new SlipwayError("UPSTREAM_INVALID", { detail: { host: from.host, reason: "LOCATION" } });
  }
  if ((from.protocol === "https:" && url.protocol === "http:") || url.username || url.password) {
    throw new SlipwayError("UPSTREAM_FORBIDDEN_ADDRESS", { detail: { host: from.host, reason: "INSECURE_LOCATION" } });
  }
  url.hash = "";
  return url;
}

/** Storage services refuse a request that carries both a signature and our Authorization, and they have no business seeing it. */
function withoutCredentials(headers: Readonly<Record<string, string>>): Record<string, string> {
  const dropped = new Set(["authorization", "cookie", "proxy-authorization"]);
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !dropped.has(name.toLowerCase())));
}

export function nextHop(from: Hop, status: number, location: string): Hop {
  const url = resolveNamed(location, from.url);
  const method = status === 303 && from.method !== "HEAD" ? "GET" : from.method;
  const headers = url.origin === from.url.origin ? from.headers : withoutCredentials(from.headers);
  return { url, method, headers };
}
