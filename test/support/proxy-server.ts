/** A registry server with a proxy project in front of an upstream that the test controls. */
import type { Project } from "../../src/catalog/registry.ts";
import { EMPTY_REGISTRY } from "../../src/proxy/registry-store.ts";
import type { RegistryDraft } from "../../src/proxy/registry-store.ts";
import type { App } from "../../src/app.ts";
import { buildImage } from "./image.ts";
import type { BuiltImage } from "./image.ts";
import type { FakeRegistry } from "./fake-registry.ts";

export interface ProxyProjectOptions {
  readonly name: string;
  readonly url: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly registry?: Partial<RegistryDraft>;
  readonly public?: boolean;
}

export async function createProxyProject(app: App, options: ProxyProjectOptions): Promise<Project> {
  const { name, url, metadata = {}, registry = {} } = options;
  const saved = await app.proxy.registries.save({ ...EMPTY_REGISTRY, name: `upstream-${name}`, url, ...registry });
  return app.catalog.projects.create({ name, public: options.public ?? true, ownerId: null, registryId: saved.id, metadata });
}

/** Puts a built image into a scripted registry. */
export function serveImage(upstream: FakeRegistry, repository: string, tag: string, image: BuiltImage = buildImage()): BuiltImage {
  for (const bytes of image.blobs.values()) upstream.putBlob(repository, bytes);
  upstream.putManifest(repository, image.manifestBytes, { tag });
  return image;
}

/** How often each blob was asked for with GET. */
export function blobGets(upstream: FakeRegistry): Map<string, number> {
  const counts = new Map<string, number>();
  for (const call of upstream.calls) {
    const digest = call.kind === "blob-get" ? call.url.slice(call.url.lastIndexOf("/") + 1) : null;
    if (digest !== null) counts.set(digest, (counts.get(digest) ?? 0) + 1);
  }
  return counts;
}

export interface Answer {
  readonly status: number;
  readonly cache: string | null;
  readonly age: number | null;
  readonly digest: string | null;
  readonly retryAfter: string | null;
  readonly headers: Headers;
  readonly bytes: Buffer;
  readonly ms: number;
}

export async function ask(url: string, init: RequestInit = {}): Promise<Answer> {
  const startedAt = performance.now();
  const response = await fetch(url, { redirect: "manual", ...init });
  const bytes = Buffer.from(await response.arrayBuffer());
  const { headers } = response;
  const age = headers.get("age");
  return {
    status: response.status,
    cache: headers.get("x-cache"),
    age: age === null ? null : Number(age),
    digest: headers.get("docker-content-digest"),
    retryAfter: headers.get("retry-after"),
    headers,
    bytes,
    ms: performance.now() - startedAt,
  };
}

export async function eventually(what: string, check: () => Promise<boolean> | boolean, timeoutMs = 15_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
