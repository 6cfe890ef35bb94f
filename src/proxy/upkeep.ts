/** Work that keeps the cache whole without a client waiting: fills that no process holds any more, hot tags, and warm-up lists. */
import type { Queryable } from "../db/pool.ts";
import { isSlipwayError } from "../core/errors.ts";
import { parseManifest } from "../oci/manifest.ts";
import type { RegistryReader } from "../catalog/registry.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { FillLeases } from "./fill/fill-lease.ts";
import type { ProxyBlobs } from "./proxy-blobs.ts";
import type { ProxyManifests, ProxyName } from "./proxy-manifests.ts";
import type { NameResolver, ResolvedName } from "./resolver.ts";

export interface UpkeepOptions {
  readonly db: Queryable;
  readonly reader: RegistryReader;
  readonly leases: FillLeases;
  readonly blobs: ProxyBlobs;
  readonly manifests: ProxyManifests;
  readonly resolver: NameResolver;
  readonly logger: Logger;
}

export interface UpkeepResult {
  readonly done: number;
  readonly failed: number;
}

const FILLS = 20;
const HOT_TAGS = 50;

export class CacheUpkeep {
  readonly #options: UpkeepOptions;

  constructor(options: UpkeepOptions) {
    this.#options = options;
  }

  /** Fills whose owner died and for which nobody came back. */
  async completeFills(signal: AbortSignal): Promise<UpkeepResult> {
    const { leases, resolver, blobs, logger } = this.#options;
    let done = 0;
    let failed = 0;
    for (const fill of await leases.listAbandoned(FILLS)) {
      signal.throwIfAborted();
      try {
        const name = proxied(await resolver.resolve({ requested: fill.repository, namespace: null }, signal));
        if (name) await blobs.complete(name, fill.digest, signal);
        done += 1;
      } catch (error) {
        failed += 1;
        logger.warn({ digest: fill.digest, repository: fill.repository, error }, "an abandoned fill could not be completed");
      }
    }
    return { done, failed };
  }

  /** Tags that are pulled often and about to grow old are checked, and what moved is fetched, before the next client asks. */
  async refreshHotTags(signal: AbortSignal): Promise<UpkeepResult> {
    const { rows } = await this.#options.db.query<{ repository: string; tag: string }>(
      `SELECT repository, tag FROM proxy_tags WHERE heat > 2 AND digest IS NOT NULL AND fresh_until < now() ORDER BY heat DESC LIMIT $1`,
      [HOT_TAGS],
    );
    return this.#warmAll(
      rows.map((row) => `${row.repository}:${row.tag}`),
      signal,
    );
  }

  /** References such as docker.io/library/alpine:3.20, with everything that they name. */
  async warmUp(references: readonly string[], signal: AbortSignal): Promise<UpkeepResult> {
    return this.#warmAll(references, signal);
  }

  async #warmAll(references: readonly string[], signal: AbortSignal): Promise<UpkeepResult> {
    let done = 0;
    let failed = 0;
    for (const reference of references) {
      signal.throwIfAborted();
      try {
        await this.#warm(reference, signal);
        done += 1;
      } catch (error) {
        if (isSlipwayError(error, "CANCELLED")) throw error;
        failed += 1;
        this.#options.logger.warn({ reference, error }, "a reference could not be warmed up");
      }
    }
    return { done, failed };
  }

  async #warm(reference: string, signal: AbortSignal): Promise<void> {
    const { repository, tag } = splitReference(reference);
    const name = proxied(await this.#options.resolver.resolve({ requested: repository, namespace: null }, signal));
    if (!name) return;
    await this.#fetch(name, tag, signal);
  }

  async #fetch(name: ProxyName, reference: string, signal: AbortSignal): Promise<void> {
    const { manifest } = await this.#options.manifests.get(name, reference, signal);
    const parsed = parseManifest(manifest.bytes, manifest.mediaType);
    for (const child of parsed.manifests) await this.#fetch(name, child.digest, signal);
    for (const blob of [...(parsed.config ? [parsed.config] : []), ...parsed.layers]) {
      if (!(await this.#options.reader.findBlob(name.repository, blob.digest)))
        await this.#options.blobs.complete(name, blob.digest, signal);
    }
  }
}

function proxied(found: ResolvedName): ProxyName | null {
  if (found.kind !== "proxy" || found.project === null) return null;
  return { project: found.project, repository: found.repository, upstreamRepository: found.upstreamRepository };
}

function splitReference(reference: string): { repository: string; tag: string } {
  const at = reference.indexOf("@");
  if (at >= 0) return { repository: reference.slice(0, at), tag: reference.slice(at + 1) };
  const colon = reference.lastIndexOf(":");
  return colon > reference.lastIndexOf("/")
    ? { repository: reference.slice(0, colon), tag: reference.slice(colon + 1) }
    : { repository: reference, tag: "latest" };
}
