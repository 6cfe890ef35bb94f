/**
 * The one listening server of a process: the hot handler first, then the registry's own router, then express with whatever the roles
 * mount. Nothing that a request does ends the process, and no client holds a connection without moving.
 */
import http from "node:http";
import https from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { LIMITS } from "../src/core/limits.ts";
import { SlipwayError } from "../src/core/errors.ts";
import { createMountApp } from "./http/mounts.ts";
import type { Mount, MountApp } from "./http/mounts.ts";
import { invitesBody, markExpectContinue } from "./http/body.ts";
import { ConnectionGuard } from "./http/connection-guard.ts";
import { faultRecord } from "./http/observer.ts";
import type { HttpObserver } from "./http/observer.ts";
import { loadTls, reloadTls } from "./http/tls.ts";
import type { TlsFiles } from "./http/tls.ts";

/** Answers at once, or returns false and has touched nothing. */
export type HotHandler = (req: IncomingMessage, res: ServerResponse) => boolean;
export type RawHandler = (req: IncomingMessage, res: ServerResponse) => void | Promise<void>;

export type { Mount } from "./http/mounts.ts";

export interface ServerLimits {
  /** A request's head must be complete after this time. */
  readonly headersTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly maxConnections: number;
  /** A client that moves less than minBytesPerWindow in idleTimeoutMs while we wait for it is cut. */
  readonly idleTimeoutMs: number;
  readonly minBytesPerWindow: number;
  readonly maxHeaderBytes: number;
  readonly maxHeaderCount: number;
}

export const DEFAULT_SERVER_LIMITS: ServerLimits = {
  headersTimeoutMs: 20_000,
  keepAliveTimeoutMs: 75_000,
  maxConnections: 16_384,
  idleTimeoutMs: 60_000,
  minBytesPerWindow: 1_024,
  maxHeaderBytes: LIMITS.requestHeaderBytes,
  maxHeaderCount: LIMITS.requestHeaderCount,
};

export interface ServerOptions {
  readonly host: string;
  readonly port: number;
  /** Several processes listen on the same port and the kernel spreads connections. */
  readonly reusePort?: boolean;
  readonly tls?: TlsFiles | null;
  readonly tlsReloadMs?: number;
  readonly hot?: HotHandler;
  /** Everything below /v2. */
  readonly registry?: RawHandler;
  readonly mounts?: readonly Mount[];
  readonly limits?: Partial<ServerLimits>;
  readonly observer: HttpObserver;
}

export interface ServerStats {
  readonly connections: number;
  readonly active: number;
}

export interface RunningServer {
  readonly host: string;
  readonly port: number;
  /** http(s)://host:port as this machine reaches it. */
  readonly url: string;
  readonly draining: boolean;
  stats(): ServerStats;
  /** Stops accepting, lets running transfers end for at most `graceMs`, then cuts them. */
  drain(graceMs?: number): Promise<{ readonly cut: number }>;
  close(): Promise<void>;
}

export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const limits: ServerLimits = { ...DEFAULT_SERVER_LIMITS, ...options.limits };
  const guard = new ConnectionGuard({
    windowMs: limits.idleTimeoutMs,
    minBytes: limits.minBytesPerWindow,
    onCut: () => options.observer.onLimit?.("idle_client"),
  });
  const state = { draining: false };
  const server = await createBare(options, limits);
  const dispatch = createDispatch({ options, limits, guard, state, app: createMountApp(options.mounts ?? [], options.observer) });
  server.on("request", dispatch);
  server.on("checkContinue", (req: IncomingMessage, res: ServerResponse) => {
    markExpectContinue(req);
    dispatch(req, res);
  });
  server.on("clientError", (error: Error & { code?: string }, socket: Duplex) => answerClientError(error, socket, guard));
  server.on("drop", () => options.observer.onLimit?.("connections"));
  const stopReload = options.tls
    ? reloadTls(server as https.Server, options.tls, {
        intervalMs: options.tlsReloadMs ?? 5_000,
        onError: (error) => reportError(options.observer, error),
      })
    : (): void => undefined;
  const sockets = trackConnections(server, Boolean(options.tls));
  await listen(server, options);

  const { port } = server.address() as AddressInfo;
  return {
    host: options.host,
    port,
    url: `${options.tls ? "https" : "http"}://${urlHost(options.host)}:${port}`,
    get draining() {
      return state.draining;
    },
    stats: () => ({ connections: sockets.size, active: guard.active }),
    async drain(graceMs = 60_000) {
      state.draining = true;
      guard.announceClose();
      const cut = await closeWithin({ server, guard, sockets }, graceMs);
      guard.stop();
      stopReload();
      return { cut };
    },
    async close() {
      state.draining = true;
      guard.stop();
      stopReload();
      await closeWithin({ server, guard, sockets }, 0);
    },
  };
}

async function createBare(options: ServerOptions, limits: ServerLimits): Promise<http.Server> {
  const settings: http.ServerOptions = {
    headersTimeout: limits.headersTimeoutMs,
    // A push may take hours; the connection guard sees to it that it moves.
    requestTimeout: 0,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    connectionsCheckingInterval: Math.min(2_000, Math.max(50, limits.headersTimeoutMs / 4)),
    maxHeaderSize: limits.maxHeaderBytes,
    noDelay: true,
  };
  const server = options.tls
    ? https.createServer({ ...settings, ...(await loadTls(options.tls)), minVersion: "TLSv1.2", handshakeTimeout: limits.headersTimeoutMs })
    : http.createServer(settings);
  server.maxConnections = limits.maxConnections;
  // Node drops what is above silently; one more lets the dispatcher see the excess and refuse the request.
  server.maxHeadersCount = limits.maxHeaderCount + 1;
  server.timeout = 0;
  return server;
}

interface DispatchParts {
  readonly options: ServerOptions;
  readonly limits: ServerLimits;
  readonly guard: ConnectionGuard;
  readonly state: { draining: boolean };
  readonly app: MountApp;
}

function createDispatch({ options, limits, guard, state, app }: DispatchParts): (req: IncomingMessage, res: ServerResponse) => void {
  const { hot, registry, observer } = options;
  const maxRawHeaders = limits.maxHeaderCount * 2;
  return (req, res) => {
    try {
      if (req.rawHeaders.length > maxRawHeaders) {
        observer.onLimit?.("header_count");
        refuseHeaders(res);
        return;
      }
      if (hot !== undefined && !state.draining && hot(req, res)) return;
      if (state.draining) res.shouldKeepAlive = false;
      guard.watch(req, res);
      // An answer to a connection that is gone must not become an uncaught error.
      res.on("error", ignore);
      req.on("error", ignore);
      const url = req.url ?? "/";
      if (registry !== undefined && (url.startsWith("/v2/") || url === "/v2" || url.startsWith("/v2?"))) {
        const pending = registry(req, res);
        if (pending !== undefined) pending.catch((error: unknown) => abandon(observer, res, error));
      } else {
        invitesBody(req, res);
        app(req, res);
      }
    } catch (error) {
      abandon(observer, res, error);
    }
  };
}

function ignore(): void {
  // The close of the response tells the handler.
}

/** The last resort: a handler threw past its own error mapping. */
function abandon(observer: HttpObserver, res: ServerResponse, error: unknown): void {
  reportError(observer, error);
  if (res.headersSent) {
    res.destroy();
    return;
  }
  res.writeHead(500, ["Content-Type", "application/json", "Content-Length", "2", "Connection", "close"]);
  res.end("{}");
}

function reportError(observer: HttpObserver, error: unknown): void {
  observer.onResponse(faultRecord(error));
}

const TOO_MANY_HEADERS = JSON.stringify({ errors: [{ code: "UNSUPPORTED", message: "too many header fields" }] });

function refuseHeaders(res: ServerResponse): void {
  res.writeHead(431, [
    "Content-Type",
    "application/json",
    "Content-Length",
    String(Buffer.byteLength(TOO_MANY_HEADERS)),
    "Connection",
    "close",
  ]);
  res.end(TOO_MANY_HEADERS);
}

/** Requests that the parser refuses never reach a handler. */
function answerClientError(error: Error & { code?: string }, socket: Duplex, guard: ConnectionGuard): void {
  if (error.code !== "ECONNRESET" && socket.writable && guard.closeAfterAnswers(socket)) return;
  // Bytes of a running answer may be on the way already: a second head would look like content.
  if (error.code === "ECONNRESET" || !socket.writable || guard.isActive(socket)) {
    socket.destroy();
    return;
  }
  const status =
    error.code === "HPE_HEADER_OVERFLOW"
      ? "431 Request Header Fields Too Large"
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? "408 Request Timeout"
        : "400 Bad Request";
  const body = JSON.stringify({ errors: [{ code: "UNSUPPORTED", message: status.slice(4).toLowerCase() }] });
  const head = `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
  socket.end(head + body, () => socket.destroy());
}

function listen(server: http.Server, options: ServerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: options.host, port: options.port, reusePort: options.reusePort ?? false, backlog: 1_024 }, () => {
      server.off("error", reject);
      server.on("error", (error) => reportError(options.observer, new SlipwayError("INTERNAL", { cause: error })));
      resolve();
    });
  });
}

function trackConnections(server: http.Server, encrypted: boolean): ReadonlySet<Socket> {
  const open = new Set<Socket>();
  server.on(encrypted ? "secureConnection" : "connection", (socket: Socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
  });
  return open;
}

interface Closing {
  readonly server: http.Server;
  readonly guard: ConnectionGuard;
  readonly sockets: ReadonlySet<Socket>;
}

async function closeWithin({ server, guard, sockets }: Closing, graceMs: number): Promise<number> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  // Node counts a connection that has not asked for anything as busy, and one that was busy turns idle later.
  const endIdle = (): void => {
    for (const socket of sockets) if (!guard.isActive(socket) && socket.writableLength === 0) socket.destroy();
  };
  const sweep = setInterval(endIdle, 100);
  let cut = 0;
  const deadline = setTimeout(() => {
    cut = guard.active;
    for (const socket of sockets) socket.destroy();
    server.closeAllConnections();
  }, graceMs);
  await closed;
  clearInterval(sweep);
  clearTimeout(deadline);
  return cut;
}

function urlHost(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  if (host === "::") return "[::1]";
  return host.includes(":") ? `[${host}]` : host;
}
