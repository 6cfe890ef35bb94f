/**
 * The distribution API below /v2: path and method decide the operation, then who may, then the handlers of the target's kind. Small and
 * exact; no middleware, so that nothing touches bodies or headers unasked.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { SlipwayError } from "../../src/core/errors.ts";
import { authorize } from "./access.ts";
import { serveBase } from "./base.ts";
import { serveCatalog } from "./catalog.ts";
import { sendError, withHeaders } from "./errors.ts";
import { Exchange } from "./exchange.ts";
import { createLocalContent } from "./local-content.ts";
import { parseRoute } from "./routes/parse.ts";
import type { Route } from "./routes/parse.ts";
import { BlobSender } from "./send-blob.ts";
import type { ContentByKind, RegistryServices } from "./services.ts";
import { OPERATIONS } from "./target.ts";
import type { Operation, Target } from "./target.ts";

export interface RegistryRouter {
  readonly handle: (req: IncomingMessage, res: ServerResponse) => Promise<void>;
  readonly content: ContentByKind;
  readonly sender: BlobSender;
}

/** `proxy` is given the sender, so that all kinds share one pool of blocks. */
export function createRegistryRouter(
  services: RegistryServices,
  createProxyContent?: (sender: BlobSender, local: ContentByKind["local"]) => NonNullable<ContentByKind["proxy"]>,
): RegistryRouter {
  const sender = new BlobSender({ store: services.store, redirectMinBytes: services.settings.redirectMinBytes });
  const local = createLocalContent(services, sender);
  const content: ContentByKind = { local, proxy: createProxyContent?.(sender, local) ?? null };
  return {
    content,
    sender,
    async handle(req, res) {
      const exchange = new Exchange(req, res);
      res.once("close", () => report(exchange, services));
      try {
        exchange.route = parseRoute(req.url ?? "/");
        await serve(exchange, services, content);
      } catch (error) {
        sendError(exchange, error);
      }
    },
  };
}

async function serve(exchange: Exchange, services: RegistryServices, content: ContentByKind): Promise<void> {
  const { route } = exchange;
  if (!route) throw new SlipwayError("INTERNAL");
  const method = exchange.req.method ?? "";
  if (route.kind === "base" || route.kind === "catalog") {
    if (method !== "GET" && method !== "HEAD") throw unsupported("GET, HEAD");
    await (route.kind === "base" ? serveBase(exchange, services) : serveCatalog(exchange, services));
    return;
  }
  const operation = operationOf(route.kind, method);
  const target = await authorize(exchange, services, operation);
  await perform(exchange, { target, operation, content });
}

async function perform(
  exchange: Exchange,
  { target, operation, content }: { target: Target; operation: Operation; content: ContentByKind },
): Promise<void> {
  if (target.kind === "local") {
    await content.local.operations[operation](exchange, target);
    return;
  }
  if (content.proxy === null) throw new SlipwayError("UNSUPPORTED");
  await content.proxy.operations[operation](exchange, target);
}

function operationOf(kind: Exclude<Route["kind"], "base" | "catalog">, method: string): Operation {
  const methods: Readonly<Partial<Record<string, Operation>>> = OPERATIONS[kind];
  const operation = Object.hasOwn(methods, method) ? methods[method] : undefined;
  if (operation === undefined) throw unsupported(Object.keys(methods).join(", "));
  return operation;
}

function unsupported(allow: string): SlipwayError {
  return withHeaders(new SlipwayError("UNSUPPORTED"), ["Allow", allow]);
}

function report(exchange: Exchange, services: RegistryServices): void {
  const { req, res, route } = exchange;
  services.observer.onResponse({
    requestId: exchange.requestId,
    method: req.method ?? "",
    route: route?.kind ?? "invalid",
    repository: route?.repository,
    reference: route?.reference,
    status: res.statusCode,
    bytesSent: exchange.bytes,
    bytesReceived: exchange.bytesReceived,
    durationMs: performance.now() - exchange.startedAt,
    firstByteMs: exchange.firstByteMs,
    cache: exchange.cache,
    principal: exchange.principal.key,
    remote: services.addresses.remoteAddress(req),
    userAgent: req.headers["user-agent"],
    aborted: !res.writableFinished,
    error: exchange.error,
  });
}
