/**
 * What will be asked for next. When a client takes a manifest, its config and layers begin to fill; when it takes an index, the manifests of the platforms that
 * this project's clients asked for before are fetched, and their blobs with them.
 */
import { LRUCache } from "lru-cache";
import type { StoredManifest } from "../catalog/registry.ts";
import type { Queryable } from "../db/pool.ts";
import { parseManifest } from "../oci/manifest.ts";
import type { Descriptor, ParsedManifest } from "../oci/manifest.ts";
import { isNonDistributable } from "../oci/media-types.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { ProxyBlobs } from "./proxy-blobs.ts";
import type { ProxyManifests, ProxyName } from "./proxy-manifests.ts";

export interface PrefetcherOptions {
  readonly blobs: ProxyBlobs;
  readonly manifests: () => ProxyManifests;
  readonly isOn: (name: ProxyName) => boolean;
  readonly db: Queryable;
  readonly logger: Logger;
}

const REMEMBERED = 20_000;
const PLATFORMS_FRESH_MS = 60_000;
const MAX_CHILDREN = 4;
const PLATFORM_AGE = "30 days";

export class Prefetcher {
  readonly #options: PrefetcherOptions;
  /** Manifests that were looked at lately. */
  readonly #seen = new LRUCache<string, true>({ max: REMEMBERED, ttl: 10 * 60_000 });
  /** Platform of a child, by repository and digest, from the index that named it. */
  readonly #platformOf = new LRUCache<string, string>({ max: REMEMBERED });
  readonly #platforms = new LRUCache<number, Set<string>>({ max: 1_000, ttl: PLATFORMS_FRESH_MS });
  #started = 0;

  constructor(options: PrefetcherOptions) {
    this.#options = options;
  }

  get started(): number {
    return this.#started;
  }

  /** Never fails: a client's answer does not depend on it. Resolves when upstream was asked for the blobs. `known`: what is read out of the manifest already. */
  async onServed(name: ProxyName, manifest: StoredManifest, known?: ParsedManifest): Promise<void> {
    const key = `${name.repository}@${manifest.digest}`;
    if (this.#seen.get(key) || !this.#options.isOn(name)) return;
    this.#seen.set(key, true);
    const noteFailure = (error: unknown): void => {
      this.#options.logger.debug({ repository: name.repository, digest: manifest.digest, error }, "prefetch failed");
    };
    try {
      const parsed = known ?? parseManifest(manifest.bytes, manifest.mediaType);
      // First of all: their client asks for them as soon as it has the manifest.
      const asking = this.#begin(name, blobsOf(parsed));
      this.#follow(name, manifest.digest, parsed).catch(noteFailure);
      await asking;
    } catch (error) {
      noteFailure(error);
    }
  }

  /** Fetches to the end what clients will ask for after this manifest; for work that nobody waits for. */
  async complete(name: ProxyName, manifest: StoredManifest, signal: AbortSignal): Promise<void> {
    const parsed = parseManifest(manifest.bytes, manifest.mediaType);
    for (const child of await this.#wantedChildren(name, parsed)) {
      signal.throwIfAborted();
      const { manifest: found } = await this.#options.manifests().get(name, child.digest, signal);
      await this.complete(name, found, signal);
    }
    for (const { digest } of blobsOf(parsed)) await this.#options.blobs.complete(name, digest, signal);
  }

  async #begin(name: ProxyName, blobs: readonly Descriptor[]): Promise<void> {
    this.#started += blobs.length;
    if (blobs.length > 0) await this.#options.blobs.prefetch(name, blobs);
  }

  async #follow(name: ProxyName, digest: string, parsed: ParsedManifest): Promise<void> {
    await this.#learnPlatform(name, digest);
    for (const child of await this.#wantedChildren(name, parsed)) await this.#options.manifests().get(name, child.digest);
  }

  /** Of an index, those of the platforms that this project's clients take. */
  async #wantedChildren(name: ProxyName, { manifests }: ParsedManifest): Promise<Descriptor[]> {
    if (manifests.length === 0) return [];
    const wanted = await this.#wantedPlatforms(name.project.id);
    for (const child of manifests) {
      const platform = platformText(child.platform);
      if (platform !== null) this.#platformOf.set(`${name.repository}@${child.digest}`, platform);
    }
    return manifests.filter((child) => wanted.has(platformText(child.platform) ?? "")).slice(0, MAX_CHILDREN);
  }

  async #learnPlatform(name: ProxyName, digest: string): Promise<void> {
    const platform = this.#platformOf.get(`${name.repository}@${digest}`);
    if (platform === undefined || (await this.#wantedPlatforms(name.project.id)).has(platform)) return;
    this.#platforms.get(name.project.id)?.add(platform);
    await this.#options.db.query(
      "INSERT INTO proxy_platforms (project_id, platform) VALUES ($1, $2) ON CONFLICT (project_id, platform) DO UPDATE SET asked_at = now()",
      [name.project.id, platform],
    );
  }

  async #wantedPlatforms(projectId: number): Promise<Set<string>> {
    const known = this.#platforms.get(projectId);
    if (known) return known;
    const { rows } = await this.#options.db.query<{ platform: string }>(
      `SELECT platform FROM proxy_platforms WHERE project_id = $1 AND asked_at > now() - interval '${PLATFORM_AGE}' LIMIT 20`,
      [projectId],
    );
    const platforms = new Set(rows.map((row) => row.platform));
    this.#platforms.set(projectId, platforms);
    return platforms;
  }
}

/** What a client of this manifest takes besides. */
export function blobsOf({ config, layers }: ParsedManifest): Descriptor[] {
  return [...(config ? [config] : []), ...layers.filter((layer) => !isNonDistributable(layer.mediaType))];
}

function platformText(platform: unknown): string | null {
  const { os, architecture, variant } = (platform ?? {}) as { os?: unknown; architecture?: unknown; variant?: unknown };
  if (typeof os !== "string" || typeof architecture !== "string") return null;
  return [os, architecture, ...(typeof variant === "string" ? [variant] : [])].join("/");
}
