/**
 * A registry on a real socket whose behaviour a test scripts: it keeps content like a real one, asks for tokens if told to, and any call
 * can be answered by the script instead. Calls are counted by kind.
 */
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { fail, send, sendRange, sha256 } from "./fake-answers.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export type FakeCallKind =
  | "ping"
  | "manifest-head"
  | "manifest-get"
  | "manifest-put"
  | "blob-head"
  | "blob-get"
  | "tags"
  | "referrers"
  | "catalog"
  | "upload"
  | "token"
  | "delete"
  | "other";

export interface FakeCall {
  readonly kind: FakeCallKind;
  readonly method: string;
  /** Path with query. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
}

export type Script = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void | Promise<void>;

export interface ScriptOptions {
  readonly method?: string;
  readonly path: RegExp | string;
  /** How often it answers; for ever when absent. */
  readonly times?: number;
}

export interface FakeAuth {
  readonly type: "basic" | "bearer";
  readonly username?: string;
  readonly password?: string;
  readonly refreshToken?: string;
  readonly expiresIn?: number;
  /** Where the challenge sends clients; this registry's own token service when absent. */
  readonly realm?: string;
}

export interface FakeRegistryOptions {
  readonly host?: string;
  readonly tls?: { readonly key: string; readonly cert: string };
  readonly auth?: FakeAuth;
  /** The name that clients use, when it is not the address. */
  readonly publicHost?: string;
}

export interface FakeManifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
}

interface FakeRepository {
  readonly manifests: Map<string, FakeManifest>;
  readonly tags: Map<string, string>;
  readonly blobs: Map<string, Buffer>;
}

export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";

export class FakeRegistry {
  readonly #repositories = new Map<string, FakeRepository>();
  readonly #scripts: { options: ScriptOptions; left: number; run: Script }[] = [];
  readonly #uploads = new Map<string, Buffer>();
  readonly #tokens = new Map<string, { until: number }>();
  readonly #sockets = new Set<Socket>();
  readonly #options: FakeRegistryOptions;
  readonly #server;
  readonly calls: FakeCall[] = [];
  connections = 0;
  auth: FakeAuth | null;
  headSupported = true;
  digestHeader = true;
  referrersApi = true;
  ranges = true;

  constructor(options: FakeRegistryOptions = {}) {
    this.#options = options;
    this.auth = options.auth ?? null;
    const handle = (request: IncomingMessage, response: ServerResponse): void => {
      this.#handle(request, response).catch(() => response.destroy());
    };
    this.#server = options.tls ? createTlsServer(options.tls, handle) : createServer(handle);
    this.#server.on(options.tls ? "secureConnection" : "connection", (socket: Socket) => {
      this.connections += 1;
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => this.#sockets.delete(socket));
    });
  }

  async start(port = 0): Promise<this> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, this.#options.host ?? "127.0.0.1", resolve);
    });
    return this;
  }

  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.dropConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get host(): string {
    return `${this.#options.publicHost ?? this.#options.host ?? "127.0.0.1"}:${this.port}`;
  }

  get url(): string {
    return `${this.#options.tls ? "https" : "http"}://${this.host}`;
  }

  repository(name: string): FakeRepository {
    let found = this.#repositories.get(name);
    if (!found) {
      found = { manifests: new Map(), tags: new Map(), blobs: new Map() };
      this.#repositories.set(name, found);
    }
    return found;
  }

  remove(name: string): void {
    this.#repositories.delete(name);
  }

  putBlob(name: string, bytes: Buffer): string {
    const digest = sha256(bytes);
    this.repository(name).blobs.set(digest, bytes);
    return digest;
  }

  putManifest(name: string, bytes: Buffer | object, options: { tag?: string; mediaType?: string } = {}): string {
    const content = Buffer.isBuffer(bytes) ? bytes : Buffer.from(JSON.stringify(bytes));
    const digest = sha256(content);
    const repository = this.repository(name);
    repository.manifests.set(digest, { bytes: content, mediaType: options.mediaType ?? OCI_MANIFEST });
    if (options.tag) repository.tags.set(options.tag, digest);
    return digest;
  }

  /** An image of the given layers; returns the digest of its manifest. */
  putImage(name: string, tag: string, layers: readonly Buffer[] = [Buffer.from(`layer of ${name}:${tag}`)]): string {
    const config = Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", name, tag }));
    const describe = (bytes: Buffer, mediaType: string): object => ({ mediaType, digest: this.putBlob(name, bytes), size: bytes.length });
    return this.putManifest(
      name,
      {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: describe(config, "application/vnd.oci.image.config.v1+json"),
        layers: layers.map((layer) => describe(layer, "application/vnd.oci.image.layer.v1.tar+gzip")),
      },
      { tag },
    );
  }

  /** Answers matching calls instead of the registry; the newest script is asked first. */
  on(options: ScriptOptions, run: Script): void {
    this.#scripts.unshift({ options, left: options.times ?? Number.POSITIVE_INFINITY, run });
  }

  clearScripts(): void {
    this.#scripts.length = 0;
  }

  count(kind: FakeCallKind, method?: string): number {
    return this.calls.filter((call) => call.kind === kind && (method === undefined || call.method === method)).length;
  }

  resetCalls(): void {
    this.calls.length = 0;
  }

  /** Every token that was given out stops working. */
  revokeTokens(): void {
    this.#tokens.clear();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://registry");
    const method = request.method ?? "GET";
    this.calls.push({ kind: kindOf(method, url.pathname), method, url: request.url ?? "/", headers: request.headers });
    const body = await readBody(request);
    const script = this.#scripts.find(
      ({ options, left }) => left > 0 && (options.method ?? method) === method && matches(options.path, request.url ?? "/"),
    );
    if (script) {
      script.left -= 1;
      await script.run(request, response, body);
      return;
    }
    if (url.pathname === "/token") return this.#token(request, response, { url, body });
    if (!this.#authorized(request)) return this.#challenge(response, url.pathname);
    if (url.pathname === "/v2/" || url.pathname === "/v2") return send(response, 200, {}, "{}");
    this.#route(request, response, { url, body });
  }

  #route(request: IncomingMessage, response: ServerResponse, call: { url: URL; body: Buffer }): void {
    const { pathname } = call.url;
    const method = request.method ?? "GET";
    if (pathname === "/v2/_catalog") return this.#catalog(response, call.url);
    const manifest = /^\/v2\/(.+)\/manifests\/([^/]+)$/.exec(pathname);
    if (manifest?.[1] && manifest[2]) return this.#manifest(request, response, { name: manifest[1], reference: manifest[2], ...call });
    const upload = /^\/v2\/(.+)\/blobs\/uploads\/([^/]*)$/.exec(pathname);
    if (upload?.[1]) return this.#upload(request, response, { name: upload[1], id: upload[2] ?? "", ...call });
    const blob = /^\/v2\/(.+)\/blobs\/([^/]+)$/.exec(pathname);
    if (blob?.[1] && blob[2]) return this.#blob(request, response, blob[1], blob[2]);
    const tags = /^\/v2\/(.+)\/tags\/list$/.exec(pathname);
    if (tags?.[1] && method === "GET") return this.#tags(response, tags[1], call.url);
    const referrers = /^\/v2\/(.+)\/referrers\/([^/]+)$/.exec(pathname);
    if (referrers?.[1] && referrers[2] && this.referrersApi)
      return this.#referrers(response, referrers[1], { digest: referrers[2], url: call.url });
    fail(response, 404, "NAME_UNKNOWN");
  }

  #manifest(request: IncomingMessage, response: ServerResponse, call: { name: string; reference: string; body: Buffer }): void {
    const { name, reference, body } = call;
    const repository = this.#repositories.get(name);
    if (request.method === "PUT") {
      const mediaType = request.headers["content-type"] ?? OCI_MANIFEST;
      const digest = this.putManifest(name, body, reference.includes(":") ? { mediaType } : { tag: reference, mediaType });
      return send(response, 201, { location: `/v2/${name}/manifests/${digest}`, "docker-content-digest": digest });
    }
    const digest = reference.includes(":") ? reference : repository?.tags.get(reference);
    const found = digest ? repository?.manifests.get(digest) : undefined;
    if (!digest || !found || !repository) return fail(response, 404, "MANIFEST_UNKNOWN");
    if (request.method === "DELETE") {
      if (reference.includes(":")) repository.manifests.delete(digest);
      else repository.tags.delete(reference);
      return send(response, 202, {});
    }
    if (request.method === "HEAD" && !this.headSupported) return send(response, 405, {});
    const etag = `"${digest}"`;
    if (request.headers["if-none-match"] === etag) return send(response, 304, { etag });
    const headers = {
      "content-type": found.mediaType,
      "content-length": found.bytes.length,
      etag,
      ...(this.digestHeader ? { "docker-content-digest": digest } : {}),
    };
    send(response, 200, headers, request.method === "HEAD" ? undefined : found.bytes);
  }

  #blob(request: IncomingMessage, response: ServerResponse, name: string, digest: string): void {
    const bytes = this.#repositories.get(name)?.blobs.get(digest);
    if (!bytes) return fail(response, 404, "BLOB_UNKNOWN");
    if (request.method === "DELETE") {
      this.repository(name).blobs.delete(digest);
      return send(response, 202, {});
    }
    const headers = { "content-type": "application/octet-stream", ...(this.digestHeader ? { "docker-content-digest": digest } : {}) };
    if (request.method === "HEAD") return send(response, 200, { ...headers, "content-length": bytes.length });
    sendRange(response, bytes, this.ranges ? request.headers.range : undefined, headers);
  }

  #catalog(response: ServerResponse, url: URL): void {
    const n = Number(url.searchParams.get("n") ?? 1000);
    const last = url.searchParams.get("last") ?? "";
    const all = [...this.#repositories.keys()].sort().filter((name) => name > last);
    const repositories = all.slice(0, n);
    const link: Record<string, string> =
      repositories.length < all.length
        ? { link: `</v2/_catalog?n=${n}&last=${encodeURIComponent(repositories.at(-1) ?? "")}>; rel="next"` }
        : {};
    send(response, 200, { "content-type": "application/json", ...link }, JSON.stringify({ repositories }));
  }

  #tags(response: ServerResponse, name: string, url: URL): void {
    const repository = this.#repositories.get(name);
    if (!repository) return fail(response, 404, "NAME_UNKNOWN");
    const n = Number(url.searchParams.get("n") ?? 1000);
    const last = url.searchParams.get("last");
    const all = [...repository.tags.keys()].sort().filter((tag) => last === null || tag > last);
    const tags = all.slice(0, n);
    const link: Record<string, string> =
      tags.length < all.length ? { link: `</v2/${name}/tags/list?n=${n}&last=${encodeURIComponent(tags.at(-1) ?? "")}>; rel="next"` } : {};
    send(response, 200, { "content-type": "application/json", ...link }, JSON.stringify({ name, tags }));
  }

  #referrers(response: ServerResponse, name: string, call: { digest: string; url: URL }): void {
    const manifests = [...(this.#repositories.get(name)?.manifests ?? [])].flatMap(([digest, { bytes, mediaType }]) => {
      const document = JSON.parse(bytes.toString("utf8")) as { subject?: { digest?: string }; artifactType?: string };
      return document.subject?.digest === call.digest
        ? [{ mediaType, digest, size: bytes.length, artifactType: document.artifactType }]
        : [];
    });
    send(response, 200, { "content-type": OCI_INDEX }, JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
  }

  #upload(request: IncomingMessage, response: ServerResponse, call: { name: string; id: string; url: URL; body: Buffer }): void {
    const { name, id, url, body } = call;
    const digest = url.searchParams.get("digest");
    if (request.method === "POST") {
      const mount = url.searchParams.get("mount");
      const from = this.#repositories.get(url.searchParams.get("from") ?? "")?.blobs.get(mount ?? "");
      if (mount && from) {
        this.putBlob(name, from);
        return send(response, 201, { location: `/v2/${name}/blobs/${mount}`, "docker-content-digest": mount });
      }
      if (digest) return this.#commit(response, name, { digest, bytes: body });
      const fresh = randomUUID();
      this.#uploads.set(fresh, Buffer.alloc(0));
      return this.#progress(response, 202, name, fresh);
    }
    const held = this.#uploads.get(id);
    if (!held) return fail(response, 404, "BLOB_UPLOAD_UNKNOWN");
    if (request.method === "GET") return this.#progress(response, 204, name, id);
    if (request.method === "DELETE") {
      this.#uploads.delete(id);
      return send(response, 204, {});
    }
    const start = /^(\d+)-/.exec(request.headers["content-range"] ?? "")?.[1];
    if (start !== undefined && Number(start) !== held.length) return this.#progress(response, 416, name, id);
    const bytes = Buffer.concat([held, body]);
    if (request.method === "PATCH") {
      this.#uploads.set(id, bytes);
      return this.#progress(response, 202, name, id);
    }
    this.#uploads.delete(id);
    if (!digest) return fail(response, 400, "DIGEST_INVALID");
    this.#commit(response, name, { digest, bytes });
  }

  #progress(response: ServerResponse, status: number, name: string, id: string): void {
    const size = this.#uploads.get(id)?.length ?? 0;
    const location = `/v2/${name}/blobs/uploads/${id}?_state=${Buffer.from(id).toString("base64url")}%3D`;
    send(response, status, { location, range: `0-${Math.max(0, size - 1)}`, "docker-upload-uuid": id });
  }

  #commit(response: ServerResponse, name: string, blob: { digest: string; bytes: Buffer }): void {
    if (sha256(blob.bytes) !== blob.digest) return fail(response, 400, "DIGEST_INVALID");
    this.putBlob(name, blob.bytes);
    send(response, 201, { location: `/v2/${name}/blobs/${blob.digest}`, "docker-content-digest": blob.digest });
  }

  #authorized(request: IncomingMessage): boolean {
    const { auth } = this;
    if (!auth) return true;
    const header = request.headers.authorization ?? "";
    if (auth.type === "basic") return header === basic(auth);
    const token = this.#tokens.get(header.replace(/^Bearer /, ""));
    return token !== undefined && token.until > Date.now();
  }

  #challenge(response: ServerResponse, pathname: string): void {
    const name = /^\/v2\/(.+)\/(?:manifests|blobs|tags|referrers)\//.exec(pathname)?.[1];
    const scope = name ? `,scope="repository:${name}:pull"` : "";
    const header =
      this.auth?.type === "basic"
        ? 'Basic realm="fake"'
        : `Bearer realm="${this.auth?.realm ?? `${this.url}/token`}",service="fake"${scope}`;
    fail(response, 401, "UNAUTHORIZED", { "www-authenticate": header });
  }

  #token(request: IncomingMessage, response: ServerResponse, call: { url: URL; body: Buffer }): void {
    const { auth } = this;
    const form = new URLSearchParams(call.body.toString("utf8"));
    const ok =
      request.method === "POST"
        ? auth?.refreshToken !== undefined && form.get("refresh_token") === auth.refreshToken
        : auth?.username === undefined || request.headers.authorization === basic(auth);
    if (!ok) return fail(response, 401, "UNAUTHORIZED");
    const token = `token-${randomUUID()}`;
    this.#tokens.set(token, { until: Date.now() + (auth?.expiresIn ?? 300) * 1000 });
    send(response, 200, { "content-type": "application/json" }, JSON.stringify({ token, expires_in: auth?.expiresIn ?? 300 }));
  }
}

export async function startFakeRegistry(t: Cleanable, options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const registry = await new FakeRegistry(options).start();
  t.after(() => registry.stop());
  return registry;
}

function basic(auth: FakeAuth): string {
  return `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString("base64")}`;
}

function matches(path: RegExp | string, url: string): boolean {
  return typeof path === "string" ? url.split("?")[0] === path : path.test(url);
}

function kindOf(method: string, path: string): FakeCallKind {
  if (path === "/token") return "token";
  if (path === "/v2/" || path === "/v2") return "ping";
  if (method === "DELETE" && !path.includes("/blobs/uploads/")) return "delete";
  if (path.includes("/blobs/uploads/")) return "upload";
  if (path.includes("/manifests/")) return method === "HEAD" ? "manifest-head" : method === "PUT" ? "manifest-put" : "manifest-get";
  if (path.includes("/blobs/")) return method === "HEAD" ? "blob-head" : "blob-get";
  if (path.endsWith("/tags/list")) return "tags";
  if (path === "/v2/_catalog") return "catalog";
  return path.includes("/referrers/") ? "referrers" : "other";
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}
