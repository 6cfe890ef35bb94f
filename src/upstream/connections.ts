/**
 * The only file that opens connections to other registries. One pool per origin, reach and TLS setting; HTTP/1.1, because over HTTP/2 all
 * blobs of a host would share one congestion window. A call here is a single exchange: no redirect, no retry, no credentials of its own. Calls go
 * through undici; long bodies come over lines of their own (bulk/).
 */
import { isIP } from "node:net";
import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import { rootCertificates } from "node:tls";
import { LRUCache } from "lru-cache";
import type { buildConnector, Dispatcher } from "undici";
import type * as undiciModule from "undici";
import type { AddressGuard, Reach } from "./address-guard.ts";
import { forbidden } from "./address-guard.ts";
import { Lines } from "./bulk/lines.ts";
import type { Place } from "./bulk/lines.ts";
import { keep, recycleWritten, reusedReads } from "./read-memory.ts";
import type { Method } from "./request.ts";

export interface TlsSettings {
  readonly ca: string | null;
  readonly insecure: boolean;
}

export interface WireRequest {
  readonly url: URL;
  readonly method: Method;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Buffer | Readable | undefined;
  /** A long body is expected: a GET that asks for one. */
  readonly isBulk?: boolean | undefined;
  /** So many of these will probably follow: connections for them are opened meanwhile. */
  readonly bulkToFollow?: number | undefined;
  readonly reach: Reach;
  readonly tls: TlsSettings;
  readonly firstByteMs: number;
  readonly idleBodyMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface WireAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Readable;
}

export interface ConnectionsOptions {
  readonly guard: AddressGuard;
  readonly connectMs?: number | undefined;
  readonly connectionsPerOrigin?: number | undefined;
  readonly maxOrigins?: number | undefined;
}

/**
 * Long, because an origin that was reached in public must not become internal by changing its name's address; each new connection
 * renews it.
 */
const CLASS_TTL_MS = 24 * 3_600_000;

/** Of a body that is not read at once: more than one read of a socket, so that not every chunk stops the socket. */
const BUFFER_BYTES = 256 * 1024;

type Undici = typeof undiciModule;

/** With the first call to another registry: a process that only serves its own content does without it, which saves 25 MB. */
let loading: Promise<Undici> | undefined;

function loadUndici(): Promise<Undici> {
  loading ??= import("undici");
  return loading;
}

export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #pools: LRUCache<string, Dispatcher>;
  readonly #lines = new Lines();
  /** One for all connections of a key: it remembers TLS sessions. */
  readonly #connectors: LRUCache<string, buildConnector.connector>;
  readonly #classes = new LRUCache<string, "private" | "public">({ max: 2000, ttl: CLASS_TTL_MS });

  constructor(options: ConnectionsOptions) {
    this.#options = options;
    this.#connectors = new LRUCache({ max: options.maxOrigins ?? 256 });
    this.#pools = new LRUCache<string, Dispatcher>({
      max: options.maxOrigins ?? 256,
      // Calls under way finish; the pool takes no new ones.
      dispose: (pool) => void pool.close().catch(() => undefined),
    });
  }

  async send(request: WireRequest): Promise<WireAnswer> {
    const undici = await loadUndici();
    if (request.isBulk && request.method === "GET" && request.body === undefined) {
      return this.#lines.get({ ...request, ...this.#place(request, undici) });
    }
    const pool = this.#pool(request, undici);
    const asked = pool.request({
      path: request.url.pathname + request.url.search,
      method: request.method,
      headers: request.headers,
      body: request.body ?? null,
      headersTimeout: request.firstByteMs,
      bodyTimeout: request.idleBodyMs,
      signal: request.signal ?? null,
      highWaterMark: BUFFER_BYTES,
      // undici closes a connection after each HEAD, for servers that wrongly send a body. A handshake for every tag that is looked at costs more than
      // the connection that such a server breaks; what was asked on it is asked again.
      ...(request.method === "HEAD" ? { reset: false } : {}),
    });
    if (request.bulkToFollow) void this.#lines.prepare(this.#place(request, undici), request.bulkToFollow);
    const answer = await asked;
    return { status: answer.statusCode, headers: answer.headers, body: answer.body };
  }

  /** Where an origin is: where it was reached (in public, if ever), else where its name points. */
  async classOf(url: URL): Promise<"private" | "public"> {
    const known = this.#classes.get(url.origin);
    if (known) return known;
    return await this.#options.guard.classifyHost(url.hostname);
  }

  #noteClass(origin: string, found: "private" | "public"): void {
    this.#classes.set(origin, this.#classes.get(origin) === "public" ? "public" : found);
  }

  #pool(request: WireRequest, undici: Undici): Dispatcher {
    const { origin } = request.url;
    const key = keyOf(request);
    const known = this.#pools.get(key);
    if (known) return known;
    const bare = new undici.Pool(origin, {
      connections: this.#options.connectionsPerOrigin ?? 256,
      pipelining: 1,
      allowH2: false,
      keepAliveTimeout: 15_000,
      keepAliveMaxTimeout: 60_000,
      connect: this.#connectorOf(request, undici),
    });
    const pool = bare.compose(keepChunked);
    this.#pools.set(key, pool);
    return pool;
  }

  #place(request: WireRequest, undici: Undici): Place {
    return { key: keyOf(request), connect: () => this.#connect(request, undici) };
  }

  #connect(request: WireRequest, undici: Undici): Promise<Socket> {
    const { url } = request;
    const { host, protocol, port } = url;
    const hostname = url.hostname.replace(/^\[|\]$/g, "");
    return new Promise((resolve, reject) => {
      const connect = this.#connectorOf(request, undici);
      connect({ hostname, host, protocol, port }, (...[error, socket]) => (error ? reject(error) : resolve(socket)));
    });
  }

  #connectorOf(request: WireRequest, undici: Undici): buildConnector.connector {
    const key = keyOf(request);
    const known = this.#connectors.get(key);
    if (known) return known;
    const connector = this.#connector(request.url.origin, request, undici);
    this.#connectors.set(key, connector);
    return connector;
  }

  #connector(origin: string, { reach, tls }: Pick<WireRequest, "reach" | "tls">, undici: Undici): buildConnector.connector {
    const { guard } = this.#options;
    const connect = undici.buildConnector({
      allowH2: false,
      timeout: this.#options.connectMs ?? 5000,
      autoSelectFamily: true,
      onread: reusedReads,
      lookup: guard.lookup(reach),
      rejectUnauthorized: !tls.insecure,
      // An additional authority: what a registry redirects to is often signed by a public one.
      ...(tls.ca ? { ca: [...rootCertificates, tls.ca] } : {}),
    } as buildConnector.BuildOptions);
    return (options, callback) => {
      const literal = options.hostname.replace(/^\[|\]$/g, "");
      // No lookup is made for an address that is written out.
      if (isIP(literal) !== 0 && !guard.allows(literal, reach)) {
        callback(forbidden(literal), null);
        return;
      }
      connect(options, (...args) => {
        const [error, socket] = args;
        if (error) return callback(error, null);
        const refusal = this.#inspect(origin, reach, socket);
        if (!refusal) {
          recycleWritten(socket);
          return callback(null, socket);
        }
        socket.destroy();
        return callback(refusal, null);
      });
    };
  }

  #inspect(origin: string, reach: Reach, socket: Socket): Error | null {
    const address = socket.remoteAddress;
    if (address === undefined) return null;
    const found = this.#options.guard.classify(address);
    if (found === "denied" || !this.#options.guard.allows(address, reach)) return forbidden(new URL(origin).hostname);
    this.#noteClass(origin, found);
    return null;
  }

  async close(): Promise<void> {
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    this.#lines.close();
    await Promise.all(pools.map((pool) => pool.destroy().catch(() => undefined)));
  }
}

/** What makes connections interchangeable. */
function keyOf({ url, reach, tls }: Pick<WireRequest, "url" | "reach" | "tls">): string {
  return JSON.stringify([url.origin, reach, tls.insecure, tls.ca]);
}

/** The pieces of a chunked body that came with one read share its memory: it is left to the garbage collector. */
function keepChunked(dispatch: Dispatcher.Dispatch): Dispatcher.Dispatch {
  return (options, handler) => {
    let isWhole = false;
    return dispatch(options, {
      onRequestStart: (...args) => handler.onRequestStart?.(...args),
      onRequestUpgrade: (...args) => handler.onRequestUpgrade?.(...args),
      onResponseStart(controller, status, headers, message) {
        isWhole = headers["content-length"] !== undefined && headers["transfer-encoding"] === undefined;
        handler.onResponseStart?.(controller, status, headers, message);
      },
      onResponseData(controller, chunk) {
        if (!isWhole) keep(chunk);
        handler.onResponseData?.(controller, chunk);
      },
      onResponseEnd: (...args) => handler.onResponseEnd?.(...args),
      onResponseError: (...args) => handler.onResponseError?.(...args),
    });
  };
}
