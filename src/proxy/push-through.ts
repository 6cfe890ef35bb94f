/**
 * A push to a proxy that passes pushes on: blobs are received and kept like those of a local project; with the manifest everything that upstream
 * lacks goes there, and only when upstream has accepted the manifest is it stored here and the client told. A push that fails half way is repeated
 * by the client and sends only what is still missing.
 */
import { createHash } from "node:crypto";
import type { ManifestPut, ManifestPutResult, RegistryWriter } from "../catalog/registry.ts";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { DEFAULT_DIGEST_ALGORITHM, requireDigest } from "../oci/digests.ts";
import { parseManifest } from "../oci/manifest.ts";
import type { Descriptor } from "../oci/manifest.ts";
import { isNonDistributable } from "../oci/media-types.ts";
import type { BlobStore } from "../storage/blob-store.ts";
import type { UpstreamClient } from "../upstream/client.ts";
import type { TagPolicy } from "./plan/freshness.ts";
import type { ProxyName } from "./proxy-manifests.ts";
import { ReferrerLists } from "./push-referrers.ts";
import type { TagFreshnessStore } from "./tag-freshness.ts";

export interface PushThroughOptions {
  readonly writer: Pick<RegistryWriter, "putManifest">;
  readonly store: BlobStore;
  readonly findLinked: (repository: string, digest: string) => Promise<{ size: number } | null>;
  readonly clientOf: (project: ProxyName["project"]) => Promise<UpstreamClient>;
  readonly policyOf: (project: ProxyName["project"]) => TagPolicy;
  readonly freshness: TagFreshnessStore;
}

/** Blobs of one push that are on their way at the same time. */
const PARALLEL = 4;
const CALL = { priority: "interactive" } as const;

export class PushThrough {
  readonly #options: PushThroughOptions;
  readonly #lists = new ReferrerLists();

  constructor(options: PushThroughOptions) {
    this.#options = options;
  }

  async putManifest(name: ProxyName, put: ManifestPut, signal?: AbortSignal): Promise<ManifestPutResult> {
    if (put.ifMatch !== undefined || put.ifNoneMatch !== undefined) {
      throw new SlipwayError("UNSUPPORTED", { message: "conditional pushes do not pass through to the upstream registry" });
    }
    const parsed = parseManifest(put.bytes, put.contentType);
    const algorithm = put.digest === null ? DEFAULT_DIGEST_ALGORITHM : requireDigest(put.digest).algorithm;
    const digest = `${algorithm}:${createHash(algorithm).update(put.bytes).digest("hex")}`;
    if (put.digest !== null && put.digest !== digest)
      throw new SlipwayError("DIGEST_INVALID", { detail: { digest: put.digest, computed: digest } });
    const client = await this.#options.clientOf(name.project);
    const layers = parsed.layers.filter((layer) => !isNonDistributable(layer.mediaType));
    await this.#sendBlobs(name, client, { blobs: [...(parsed.config ? [parsed.config] : []), ...layers], signal });
    const manifest = { bytes: put.bytes, mediaType: parsed.mediaType };
    let isListed = false;
    for (const reference of put.tags.length > 0 ? put.tags : [digest]) {
      const { subject } = await client.putManifest(name.upstreamRepository, reference, manifest, { ...CALL, signal });
      isListed ||= subject !== null;
    }
    const { subject, artifactType, annotations, mediaType } = parsed;
    if (subject !== null && !isListed) {
      const described = {
        ...(artifactType === null ? {} : { artifactType }),
        ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
      };
      const referrer = { mediaType, digest, size: put.bytes.length, ...described };
      await this.#lists.add({ client, repository: name.upstreamRepository, subject: subject.digest, referrer, signal });
    }
    const result = await this.#options.writer.putManifest({ ...put, allowMissingBlobs: true });
    const { ttlMs } = this.#options.policyOf(name.project);
    for (const tag of put.tags) {
      const key = { projectId: name.project.id, repository: name.repository, tag };
      await this.#options.freshness.confirm(key, { digest, mediaType, size: put.bytes.length, etag: null, freshMs: ttlMs, status: 200 });
    }
    return result;
  }

  async #sendBlobs(
    name: ProxyName,
    client: UpstreamClient,
    { blobs, signal }: { blobs: readonly Descriptor[]; signal: AbortSignal | undefined },
  ): Promise<void> {
    const waiting = [...new Map(blobs.map((blob) => [blob.digest, blob])).values()];
    const failure = new AbortController();
    const stop = signal ? AbortSignal.any([signal, failure.signal]) : failure.signal;
    const workers = Array.from({ length: PARALLEL }, async () => {
      for (let blob = waiting.shift(); blob; blob = waiting.shift()) {
        stop.throwIfAborted();
        await this.#sendBlob(name, client, { blob, signal: stop });
      }
    });
    try {
      await Promise.all(workers);
    } catch (error) {
      failure.abort(error);
      await Promise.allSettled(workers);
      throw error;
    }
  }

  async #sendBlob(name: ProxyName, client: UpstreamClient, { blob, signal }: { blob: Descriptor; signal: AbortSignal }): Promise<void> {
    const { digest, size } = blob;
    const held = await this.#options.findLinked(name.repository, digest);
    if (held && held.size !== size) throw wrongSize(blob, held.size);
    const there = await client.headBlob(name.upstreamRepository, digest, { ...CALL, signal }).catch((error: unknown) => {
      if (isSlipwayError(error, "BLOB_UNKNOWN", "NAME_UNKNOWN")) return null;
      throw error;
    });
    if (there) {
      if (there.size !== null && there.size !== size) throw wrongSize(blob, there.size);
      return;
    }
    // Only what was pushed into this repository may be sent: a name alone is no right to the bytes.
    if (!held) throw new SlipwayError("MANIFEST_BLOB_UNKNOWN", { detail: { digests: [digest] } });
    const bytes = await this.#options.store.read(digest, undefined, signal);
    try {
      await client.uploadMonolithic(name.upstreamRepository, digest, { bytes, size }, { ...CALL, signal });
    } finally {
      bytes.destroy();
    }
  }
}

function wrongSize({ digest, size }: Descriptor, stored: number): SlipwayError {
  return new SlipwayError("MANIFEST_INVALID", {
    message: "a descriptor tells another size than its content has",
    detail: { digest, size, stored },
  });
}
