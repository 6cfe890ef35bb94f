/** Reads the addresses of an endpoint once: base URLs, origins that may see the credential, and what its host does with absent content. */
import { SlipwayError } from "../core/errors.ts";
import type { UpstreamEndpoint } from "./types.ts";

export interface ResolvedEndpoint {
  readonly endpoint: UpstreamEndpoint;
  /** Without a trailing slash and without `/v2`. */
  readonly bases: readonly URL[];
  readonly origins: ReadonlySet<string>;
  readonly credentialOrigins: ReadonlySet<string>;
}

const MAX_URLS = 10;

/** Docker Hub answers the registry protocol on one host only, and people write all of these. */
const HUB_NAMES: ReadonlySet<string> = new Set([
  "docker.io",
  "index.docker.io",
  "hub.docker.com",
  "registry.hub.docker.com",
  "www.docker.com",
]);

export function parseBase(text: string, literal = false): URL {
  let url: URL;
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `https://${text}`);
  } catch (cause) {
    throw new SlipwayError("CONFIG_INVALID", { message: "an upstream has an address that is no URL", cause });
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new SlipwayError("CONFIG_INVALID", { message: "an upstream address must be http or https" });
  }
  if (url.username || url.password) {
    throw new SlipwayError("CONFIG_INVALID", { message: "an upstream address must not hold a user or a password" });
  }
  if (!literal && HUB_NAMES.has(url.hostname)) return new URL("https://registry-1.docker.io");
  url.search = "";
  url.hash = "";
  url.pathname = url.pathname.replace(/\/+$/, "").replace(/\/v2$/, "");
  return url;
}

export function resolveEndpoint(endpoint: UpstreamEndpoint): ResolvedEndpoint {
  const bases = endpoint.urls.slice(0, MAX_URLS).map((text) => parseBase(text, endpoint.literal));
  const first = bases[0];
  if (!first) throw new SlipwayError("CONFIG_INVALID", { message: "an upstream has no address" });
  const named = endpoint.credentialOrigins?.map((text) => parseBase(text, endpoint.literal).origin) ?? [first.origin];
  return {
    endpoint,
    bases,
    origins: new Set(bases.map((base) => base.origin)),
    credentialOrigins: new Set(named),
  };
}

export function urlUnder(base: URL, path: string): URL {
  return new URL(base.pathname.replace(/\/$/, "") + path, base.origin);
}

interface HostHabit {
  readonly host: RegExp;
  readonly statuses: readonly number[];
}

/** Registries that do not tell an absent repository from a hidden one. */
const ABSENT_HABITS: readonly HostHabit[] = [
  { host: /(^|\.)docker\.io$/, statuses: [401, 403] },
  { host: /^ghcr\.io$/, statuses: [401, 403] },
  { host: /^quay\.io$/, statuses: [401, 403] },
  { host: /(^|\.)gcr\.io$|\.pkg\.dev$/, statuses: [403] },
  { host: /^public\.ecr\.aws$|\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$/, statuses: [403] },
  { host: /\.jfrog\.io$/, statuses: [403] },
  { host: /^registry\.gitlab\.com$/, statuses: [401, 403] },
];

export function meansAbsent(endpoint: UpstreamEndpoint, host: string, status: number): boolean {
  if (endpoint.absentStatuses) return endpoint.absentStatuses.includes(status);
  return ABSENT_HABITS.some((habit) => habit.host.test(host) && habit.statuses.includes(status));
}
