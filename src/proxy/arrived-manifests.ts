/**
 * Manifests that just came from upstream: known to be right, and on their way into the catalog. A client has its answer while they are stored; who relies on them being
 * stored waits for that.
 */
import type { Principal } from "../auth/principal.ts";
import type { RegistryWriter, StoredManifest } from "../catalog/registry.ts";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { parseManifest } from "../oci/manifest.ts";
import type { ParsedManifest } from "../oci/manifest.ts";
import type { Manifest } from "../upstream/types.ts";
import type { ProxyName } from "./proxy-manifests.ts";
import type { TagFreshnessStore, TagKey } from "./tag-freshness.ts";

export const FILLER: Principal = { kind: "user", key: "system:proxy", id: 0, name: "proxy", sysadmin: true, scopes: null };

export interface Arrival {
  readonly manifest: StoredManifest;
  readonly parsed: ParsedManifest;
  /** Rejects when it could not be stored. */
  readonly stored: Promise<void>;
}

export interface ArrivedManifestsOptions {
  readonly writer: Pick<RegistryWriter, "putManifest">;
  readonly freshness: Pick<TagFreshnessStore, "confirm">;
  /** Told first of what it brings: resolves when what it names is asked for, and only then it is stored. */
  readonly onArrived: (name: ProxyName, arrived: Pick<Arrival, "manifest" | "parsed">) => Promise<void>;
}

/** What asked for it: a tag, or the digest that it must have. */
export type Asked = { readonly key: TagKey; readonly freshMs: number } | { readonly digest: string };

export class ArrivedManifests {
  readonly #options: ArrivedManifestsOptions;
  readonly #arriving = new Map<string, Arrival>();

  constructor(options: ArrivedManifestsOptions) {
    this.#options = options;
  }

  /** One that is just being stored. */
  find(repository: string, digest: string): Arrival | undefined {
    return this.#arriving.get(`${repository}@${digest}`);
  }

  /** Throws when upstream sent what nobody may have. */
  take(name: ProxyName, manifest: Manifest, asked: Asked): Arrival {
    if ("digest" in asked && manifest.digest !== asked.digest)
      throw new SlipwayError("DIGEST_MISMATCH", { detail: { expected: asked.digest, found: manifest.digest } });
    const parsed = contentOf(manifest);
    const { digest, mediaType, bytes } = manifest;
    const arrived = { manifest: { digest, mediaType, bytes }, parsed };
    const store = (): Promise<void> => this.#store(name, manifest, asked);
    const arrival = { ...arrived, stored: this.#options.onArrived(name, arrived).then(store, store) };
    const key = `${name.repository}@${digest}`;
    this.#arriving.set(key, arrival);
    const leave = (): void => {
      if (this.#arriving.get(key) === arrival) this.#arriving.delete(key);
    };
    arrival.stored.then(leave, leave);
    return arrival;
  }

  /** When all that has arrived so far is stored, or could not be. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#arriving.values()].map(({ stored }) => stored));
  }

  async #store(name: ProxyName, manifest: Manifest, asked: Asked): Promise<void> {
    const { writer, freshness } = this.#options;
    const put = {
      repository: name.repository,
      project: name.project,
      tags: "key" in asked ? [asked.key.tag] : [],
      digest: manifest.digest,
      contentType: manifest.mediaType,
      bytes: manifest.bytes,
      principal: FILLER,
      origin: "fill" as const,
      allowMissingBlobs: true,
    };
    await writer.putManifest(put).catch((error: unknown) => {
      throw asUpstreamFault(error);
    });
    if (!("key" in asked)) return;
    const { digest, mediaType, bytes, etag } = manifest;
    await freshness.confirm(asked.key, { digest, mediaType, size: bytes.length, etag, freshMs: asked.freshMs, status: 200 });
  }
}

function contentOf({ bytes, mediaType }: Manifest): ParsedManifest {
  try {
    return parseManifest(bytes, mediaType);
  } catch (error) {
    throw asUpstreamFault(error);
  }
}

/** Bad content is upstream's fault here, not the client's. */
function asUpstreamFault(error: unknown): unknown {
  if (!isSlipwayError(error, "MANIFEST_INVALID", "DIGEST_INVALID", "UNSUPPORTED")) return error;
  return new SlipwayError("UPSTREAM_INVALID", { message: "the upstream registry sent a manifest that is not valid", cause: error });
}
