/** Work that keeps the cache whole without a client waiting: fills that no process holds any more, hot tags, and warm-up lists. */
import type { Queryable } from "../db/pool.ts";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { isDigest } from "../oci/digests.ts";
import { parseManifest } from "../oci/manifest.ts";
import { isNonDistributable } from "../oci/media-types.ts";
import type { StoredManifest } from "../catalog/registry.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { FillKey, FillLeases } from "./fill/fill-lease.ts";
import type { Prefetcher } from "./prefetch.ts";
import type { ProxyBlobs } from "./proxy-blobs.ts";
import type { ProxyManifests, ProxyName } from "./proxy-manifests.ts";
import type { NameResolver, ResolvedName } from "./resolver.ts";
import type { TagHeat } from "./tag-heat.ts";

export interface UpkeepOptions {
  readonly db: Queryable;
  readonly leases: FillLeases;
  readonly blobs: ProxyBlobs;
  readonly manifests: ProxyManifests;
  readonly prefetcher: Pick<Prefetcher, "complete">;
  readonly heat: Pick<TagHeat, "listOutdated">;
  readonly resolver: NameResolver;
  readonly logger: Logger;
}

export interface UpkeepResult {
  readonly done: number;
  readonly failed: number;
}

const FILLS = 20;
const HOT_TAGS = 50;
const FORGOTTEN = 10_000;

/** What is known of names and lists that nobody asked about for long. Content is not among it: that is for eviction. */
const OLD = [
  "SELECT ctid FROM proxy_tags WHERE digest IS NULL AND fresh_until < now() - interval '1 hour'",
  "SELECT ctid FROM proxy_lists WHERE fresh_until < now() - interval '30 days'",
  "SELECT ctid FROM proxy_platforms WHERE asked_at < now() - interval '60 days'",
  "SELECT ctid FROM fills WHERE lease_until IS NULL AND updated_at < now() - interval '7 days'",
] as const;

export class CacheUpkeep {
  readonly #options: UpkeepOptions;

  constructor(options: UpkeepOptions) {
    this.#options = options;
  }

  /** Fills whose owner died and for which nobody came back. */
  async completeFills(signal: AbortSignal): Promise<UpkeepResult> {
    return this.#each(
      await this.#options.leases.listAbandoned(FILLS),
      "a fill that was left behind could not be completed",
      async (fill) => {
        try {
          await this.#completeFill(fill, signal);
        } catch (error) {
          if (!isSlipwayError(error, "BLOB_UNKNOWN", "NAME_UNKNOWN")) throw error;
          await this.#options.leases.forget(fill.digest);
        }
        signal.throwIfAborted();
      },
    );
  }

  /** Tags that clients pull often and that may be out of date are checked, and what moved is fetched, before the next client asks. */
  async refreshHotTags(signal: AbortSignal): Promise<UpkeepResult> {
    return this.#each(await this.#options.heat.listOutdated(HOT_TAGS), "a hot tag could not be refreshed", async ({ repository, tag }) => {
      signal.throwIfAborted();
      const name = await this.#resolve(repository, signal);
      if (!name) return;
      const { manifest, cache } = await this.#options.manifests.refresh(name, tag);
      if (cache === "MISS") await this.#options.prefetcher.complete(name, manifest, signal);
    });
  }

  /** References such as docker.io/library/alpine:3.20, with everything that they name. */
  async warmUp(references: readonly string[], signal: AbortSignal): Promise<UpkeepResult> {
    return this.#each(references, "a reference could not be warmed up", async (reference) => {
      signal.throwIfAborted();
      const { repository, tag } = splitReference(reference);
      const name = await this.#resolve(repository, signal);
      if (!name) throw new SlipwayError("NAME_UNKNOWN", { detail: { reference } });
      const { manifest } = isDigest(tag)
        ? await this.#options.manifests.get(name, tag, signal)
        : await this.#options.manifests.refresh(name, tag);
      await this.#fetchAll(name, manifest, signal);
    });
  }

  /** Drops rows that are of no use any more. */
  async forgetOld(signal: AbortSignal): Promise<number> {
    let forgotten = 0;
    for (const rows of OLD) {
      signal.throwIfAborted();
      const table = /FROM (\w+)/.exec(rows)?.[1] ?? "";
      const { rowCount } = await this.#options.db.query(`DELETE FROM ${table} WHERE ctid IN (${rows} LIMIT ${FORGOTTEN})`);
      forgotten += rowCount ?? 0;
    }
    return forgotten;
  }

  /** One failure does not keep the others from their turn; many of them are one line in the log. */
  async #each<Item>(items: readonly Item[], failure: string, work: (item: Item) => Promise<void>): Promise<UpkeepResult> {
    const failures: { item: Item; error: unknown }[] = [];
    for (const item of items) {
      try {
        await work(item);
      } catch (error) {
        if (isSlipwayError(error, "CANCELLED") || (error as Error).name === "AbortError") throw error;
        failures.push({ item, error });
      }
    }
    const [first] = failures;
    if (first) this.#options.logger.warn({ failures: failures.length, of: items.length, first: first.item, error: first.error }, failure);
    return { done: items.length - failures.length, failed: failures.length };
  }

  async #completeFill({ repository, digest }: FillKey, signal: AbortSignal): Promise<void> {
    const name = await this.#resolve(repository, signal);
    if (name) await this.#options.blobs.complete(name, digest, signal);
    else await this.#options.leases.forget(digest);
  }

  async #resolve(repository: string, signal: AbortSignal): Promise<ProxyName | null> {
    return proxied(await this.#options.resolver.resolve({ requested: repository, namespace: null }, signal));
  }

  async #fetchAll(name: ProxyName, manifest: StoredManifest, signal: AbortSignal): Promise<void> {
    const { manifests, config, layers } = parseManifest(manifest.bytes, manifest.mediaType);
    for (const child of manifests) {
      const { manifest: found } = await this.#options.manifests.get(name, child.digest, signal);
      await this.#fetchAll(name, found, signal);
    }
    for (const blob of [...(config ? [config] : []), ...layers.filter((layer) => !isNonDistributable(layer.mediaType))]) {
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
