/**
 * The hot path: manifests and small blobs that are in memory, for principals and decisions that are too. One synchronous run from the
 * request to the end of its answer; whatever is not known or not plain falls through to the router with nothing touched.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Principal } from "../../src/auth/principal.ts";
import { scopeAllows } from "../../src/auth/principal.ts";
import type { StoredBlob, StoredManifest } from "../../src/catalog/registry.ts";
import { isSlipwayError } from "../../src/core/errors.ts";
import { isDigest } from "../../src/oci/digests.ts";
import { parseReference } from "../../src/oci/references.ts";
import { sendReady } from "../http/ready-answer.ts";
import type { ReadyAnswer } from "../http/ready-answer.ts";
import { nextRequestId } from "../http/request-id.ts";
import { blobHeaders } from "./blobs.ts";
import { manifestHeaders } from "./manifests.ts";
import { parseRoute } from "./routes/parse.ts";
import type { ContentByKind, RegistryServices } from "./services.ts";
import type { Target, TargetResolver } from "./target.ts";

interface HotRoute {
  readonly kind: "manifest" | "blob";
  readonly requested: string;
  readonly reference: string;
  readonly findTarget: () => Target | undefined;
}

/** Twice as many routes may be remembered: the older half goes when the younger is full. */
const ROUTES_PER_GENERATION = 8_192;

class RouteCache {
  #young = new Map<string, HotRoute | null>();
  #old = new Map<string, HotRoute | null>();
  readonly #resolver: TargetResolver;

  constructor(resolver: TargetResolver) {
    this.#resolver = resolver;
  }

  /** Null for what is never served here. */
  get(url: string): HotRoute | null {
    let route = this.#young.get(url);
    if (route !== undefined) return route;
    route = this.#old.get(url) ?? parseHotRoute(url, this.#resolver);
    if (this.#young.size >= ROUTES_PER_GENERATION) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(url, route);
    return route;
  }
}

function parseHotRoute(url: string, resolver: TargetResolver): HotRoute | null {
  let route;
  try {
    route = parseRoute(url);
  } catch (error) {
    if (isSlipwayError(error)) return null;
    throw error;
  }
  const { kind, requested, reference } = route;
  if (route.search !== "") return null;
  if (kind !== "manifest" && kind !== "blob") return null;
  const isPlain = kind === "manifest" ? parseReference(reference) !== null : isDigest(reference);
  return isPlain ? { kind, requested, reference, findTarget: resolver.lookup({ requested, namespace: null }) } : null;
}

/** What the raw list of headers said; filled anew by each request, which is over before the next begins. */
const seen: { authorization: string | undefined; userAgent: string | undefined } = { authorization: undefined, userAgent: undefined };

/**
 * False when a header asks for more than the plain answer. Read from the raw list: building the object of all headers costs more than the
 * rest of the request.
 */
function readPlainHeaders(raw: readonly string[]): boolean {
  seen.authorization = undefined;
  seen.userAgent = undefined;
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index] as string;
    switch (name.length) {
      case 10:
        if (name.toLowerCase() === "user-agent") seen.userAgent = raw[index + 1];
        break;
      case 13:
        if (name.toLowerCase() !== "authorization") {
          if (name.toLowerCase() === "if-none-match") return false;
        } else seen.authorization ??= raw[index + 1];
        break;
      case 5:
      case 6:
      case 12:
      case 14:
      case 17:
        if (NOT_PLAIN.has(name.toLowerCase())) return false;
        break;
      default:
    }
  }
  return true;
}

/** Their lengths are the cases above. */
const NOT_PLAIN: ReadonlySet<string> = new Set(["range", "expect", "x-request-id", "content-length", "transfer-encoding"]);

/** A connection repeats its Authorization header: the text of before has its hash already, which for a token costs as much as all other look-ups. */
class ConnectionLogins {
  readonly #last = new WeakMap<Socket, string>();

  same(socket: Socket, authorization: string): string {
    const last = this.#last.get(socket);
    if (last === authorization) return last;
    this.#last.set(socket, authorization);
    return authorization;
  }
}

/** The answers of objects in memory; made at the first request and gone with the object. */
class ReadyAnswers {
  readonly #known = new WeakMap<StoredManifest | StoredBlob, ReadyAnswer>();
  readonly #content: ContentByKind;

  constructor(content: ContentByKind) {
    this.#content = content;
  }

  find(route: HotRoute, target: Target): ReadyAnswer | undefined {
    const { reference } = route;
    if (route.kind === "manifest") return this.#manifest(this.#peekManifest(target, reference));
    return this.#blob(this.#peekBlob(target, reference), reference);
  }

  #peekManifest(target: Target, reference: string): StoredManifest | undefined {
    return target.kind === "local"
      ? this.#content.local.peekManifest(target, reference)
      : this.#content.proxy?.peekManifest(target, reference);
  }

  #peekBlob(target: Target, digest: string): StoredBlob | undefined {
    return target.kind === "local" ? this.#content.local.peekBlob(target, digest) : this.#content.proxy?.peekBlob(target, digest);
  }

  #manifest(manifest: StoredManifest | undefined): ReadyAnswer | undefined {
    if (manifest === undefined) return undefined;
    return this.#known.get(manifest) ?? this.#prepare(manifest, manifestHeaders(manifest), manifest.bytes);
  }

  #blob(blob: StoredBlob | undefined, requested: string): ReadyAnswer | undefined {
    // Another algorithm's name for the same bytes gets its own headers on the ordinary path.
    if (blob === undefined || blob.bytes === null || blob.digest !== requested) return undefined;
    return this.#known.get(blob) ?? this.#prepare(blob, blobHeaders(blob.digest), blob.bytes);
  }

  #prepare(key: StoredManifest | StoredBlob, specific: readonly string[], bytes: Buffer): ReadyAnswer {
    const headers = ["Docker-Distribution-Api-Version", "registry/2.0", ...specific, "Content-Length", String(bytes.length)];
    const answer = { headers, bytes };
    this.#known.set(key, answer);
    return answer;
  }
}

export function createHotHandler(
  services: RegistryServices,
  content: ContentByKind,
): (req: IncomingMessage, res: ServerResponse) => boolean {
  const routes = new RouteCache(services.resolver);
  const answers = new ReadyAnswers(content);
  const { auth, observer, addresses } = services;
  const logins = new ConnectionLogins();

  function mayRead(principal: Principal, route: HotRoute, target: Target): boolean {
    if (target.project === null) return false;
    return scopeAllows(principal, route.requested, "pull") && auth.peekDecision(principal, target.project, "pull") === true;
  }

  return (req, res) => {
    const { method, url } = req;
    if ((method !== "GET" && method !== "HEAD") || url === undefined || !url.startsWith("/v2/")) return false;
    const startedAt = performance.now();
    const route = routes.get(url);
    if (route === null || !readPlainHeaders(req.rawHeaders)) return false;
    const { authorization, userAgent } = seen;
    const principal = auth.peekPrincipal(authorization && logins.same(req.socket, authorization));
    if (principal === undefined) return false;
    const target = route.findTarget();
    if (target === undefined || !mayRead(principal, route, target)) return false;
    const answer = answers.find(route, target);
    if (answer === undefined) return false;
    const isHead = method === "HEAD";
    sendReady(res, answer, { lines: target.kind === "proxy" ? (content.proxy?.peekLines?.() ?? "") : "", isHead });
    observer.onResponse({
      requestId: nextRequestId(),
      method,
      route: route.kind,
      repository: target.repository,
      reference: route.reference,
      status: 200,
      bytesSent: isHead ? 0 : answer.bytes.length,
      bytesReceived: 0,
      durationMs: performance.now() - startedAt,
      principal: principal.key,
      remote: addresses.remoteAddress(req),
      userAgent,
      cache: target.kind === "proxy" ? "HIT" : undefined,
    });
    return true;
  };
}
