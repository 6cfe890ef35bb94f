/**
 * Any registry that speaks the distribution protocol, over the upstream client. What a product does in its own way (listing, projects, deleting a tag)
 * comes from its file as hooks; the transfer of content is the same for all.
 */
import type { Readable } from "node:stream";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import type { ErrorCode } from "../../core/errors.ts";
import type { UpstreamClient } from "../../upstream/client.ts";
import type { CallOptions, Descriptor, Manifest, ManifestHead, MountResult, PutResult, UploadSession } from "../../upstream/types.ts";
import type {
  AdapterCapabilities,
  Artifact,
  ArtifactPage,
  BlobContent,
  BlobRequest,
  PrepareResult,
  RegistryAdapter,
  RepositoryPage,
  RepositoryQuery,
} from "./adapter.ts";

/** What a product does in its own way; what is absent goes by the registry protocol. */
export interface ProductHooks {
  readonly capabilities?: Partial<AdapterCapabilities>;
  listRepositories?(query: RepositoryQuery, cursor: string | null, signal: AbortSignal): Promise<RepositoryPage>;
  listArtifacts?(repository: string, cursor: string | null, signal: AbortSignal): Promise<ArtifactPage>;
  prepare?(repository: string, options: { readonly public: boolean | null }, signal: AbortSignal): Promise<PrepareResult>;
  isPublic?(repository: string, signal: AbortSignal): Promise<boolean | null>;
  deleteTag?(repository: string, tag: string, signal: AbortSignal): Promise<boolean>;
}

export interface RemoteAdapterOptions {
  readonly registryId: number;
  readonly type: string;
  readonly name: string;
  readonly host: string;
  readonly client: UpstreamClient;
  readonly hooks: ProductHooks;
}

/** Of a registry of which nothing else is known; deleting a tag is tried, and answered with UNSUPPORTED by those that cannot. */
const PROTOCOL_CAPABILITIES: AdapterCapabilities = {
  listsDigests: false,
  listsTimes: false,
  listsLabels: false,
  deletesTags: true,
  deletesManifests: true,
  mounts: true,
  resumesUploads: true,
  confirmsPuts: true,
  minPathElements: 1,
  maxPathElements: null,
};

export class RemoteAdapter implements RegistryAdapter {
  readonly registryId: number;
  readonly type: string;
  readonly name: string;
  readonly host: string;
  readonly capabilities: AdapterCapabilities;
  readonly #client: UpstreamClient;
  readonly #hooks: ProductHooks;

  constructor(options: RemoteAdapterOptions) {
    this.registryId = options.registryId;
    this.type = options.type;
    this.name = options.name;
    this.host = options.host;
    this.#client = options.client;
    this.#hooks = options.hooks;
    this.capabilities = { ...PROTOCOL_CAPABILITIES, ...options.hooks.capabilities };
  }

  get honoursRanges(): boolean {
    return this.#client.honoursRanges;
  }

  get referrersApi(): boolean | null {
    return this.#client.referrersApi;
  }

  async listRepositories(query: RepositoryQuery, cursor: string | null, signal: AbortSignal): Promise<RepositoryPage> {
    // Names that are given need no listing; which of them exist is seen when their tags are asked for.
    if (query.names !== null) return { repositories: query.names, next: null };
    if (this.#hooks.listRepositories) return await this.#hooks.listRepositories(query, cursor, signal);
    return await this.#client.listCatalog({ ...calling(signal), ...(cursor === null ? {} : { cursor }) });
  }

  async listArtifacts(repository: string, cursor: string | null, signal: AbortSignal): Promise<ArtifactPage> {
    if (this.#hooks.listArtifacts) return await this.#hooks.listArtifacts(repository, cursor, signal);
    try {
      const page = await this.#client.listTags(repository, { ...calling(signal), ...(cursor === null ? {} : { cursor }) });
      return { artifacts: page.tags.map(bareTag), next: page.next === cursor ? null : page.next };
    } catch (error) {
      if (isSlipwayError(error, "NAME_UNKNOWN")) return { artifacts: [], next: null };
      throw error;
    }
  }

  headManifest(repository: string, reference: string, signal: AbortSignal): Promise<ManifestHead> {
    return this.#client.headManifest(repository, reference, calling(signal));
  }

  async getManifest(repository: string, reference: string, signal: AbortSignal): Promise<Manifest> {
    const answer = await this.#client.getManifest(repository, reference, calling(signal));
    if (answer.notModified) throw new SlipwayError("UPSTREAM_INVALID", { detail: { host: this.host, reason: "NOT_MODIFIED" } });
    return answer;
  }

  async listReferrers(repository: string, digest: string, signal: AbortSignal): Promise<readonly Descriptor[]> {
    return (await this.#client.listReferrers(repository, digest, calling(signal))).manifests;
  }

  async readBlob(repository: string, blob: BlobRequest, signal: AbortSignal): Promise<Readable> {
    const options = { ...calling(signal), expectedSize: blob.size, ...(blob.range === undefined ? {} : { range: blob.range }) };
    return (await this.#client.getBlob(repository, blob.digest, options)).body;
  }

  async prepare(repository: string, options: { readonly public: boolean | null }, signal: AbortSignal): Promise<PrepareResult> {
    return (await this.#hooks.prepare?.(repository, options, signal)) ?? { usable: true };
  }

  async isPublic(repository: string, signal: AbortSignal): Promise<boolean | null> {
    return (await this.#hooks.isPublic?.(repository, signal)) ?? null;
  }

  async hasBlob(repository: string, digest: string, signal: AbortSignal): Promise<boolean> {
    return await isThere(this.#client.headBlob(repository, digest, calling(signal)), "BLOB_UNKNOWN", "NAME_UNKNOWN");
  }

  mountBlob(repository: string, mount: { readonly digest: string; readonly from: string }, signal: AbortSignal): Promise<MountResult> {
    return this.#client.mountBlob(repository, mount.digest, mount.from, calling(signal));
  }

  async putBlob(repository: string, blob: BlobContent, session: UploadSession | null, signal: AbortSignal): Promise<PutResult> {
    const call = { ...calling(signal), algorithm: blob.digest.slice(0, blob.digest.indexOf(":")) };
    const first = session ?? (await this.#client.startUpload(repository, call));
    try {
      return await this.#send(repository, blob, first, signal);
    } catch (error) {
      // A body cannot be sent twice, so a token that ran out on the way costs a session; the next one begins with a new token.
      if (!isTokenLost(error)) throw error;
      return await this.#send(repository, blob, await this.#client.startUpload(repository, call), signal);
    }
  }

  startUpload(repository: string, digest: string, signal: AbortSignal): Promise<UploadSession> {
    return this.#client.startUpload(repository, { ...calling(signal), algorithm: digest.slice(0, digest.indexOf(":")) });
  }

  uploadStatus(repository: string, session: UploadSession, signal: AbortSignal): Promise<UploadSession> {
    return this.#client.uploadStatus(repository, session, calling(signal));
  }

  uploadChunk(
    repository: string,
    chunk: { readonly session: UploadSession; readonly bytes: Buffer | Readable; readonly size: number },
    signal: AbortSignal,
  ): Promise<UploadSession> {
    return this.#client.uploadChunk(repository, chunk.session, { bytes: chunk.bytes, size: chunk.size }, calling(signal));
  }

  finishUpload(
    repository: string,
    upload: { readonly session: UploadSession; readonly digest: string },
    signal: AbortSignal,
  ): Promise<PutResult> {
    return this.#client.finishUpload(repository, upload.session, upload.digest, calling(signal));
  }

  cancelUpload(repository: string, session: UploadSession, signal: AbortSignal): Promise<void> {
    return this.#client.cancelUpload(repository, session, calling(signal));
  }

  async putManifest(
    repository: string,
    manifest: { readonly reference: string; readonly bytes: Buffer; readonly mediaType: string; readonly digest: string },
    signal: AbortSignal,
  ): Promise<PutResult> {
    const { reference, bytes, mediaType, digest } = manifest;
    const result = await this.#client.putManifest(repository, reference, { bytes, mediaType }, calling(signal));
    // Put under a tag, the client cannot know what digest to expect.
    if (result.digest !== null && sameAlgorithm(result.digest, digest) && result.digest !== digest)
      throw new SlipwayError("DIGEST_MISMATCH", { detail: { host: this.host, expected: digest, actual: result.digest } });
    return result;
  }

  async deleteTag(repository: string, tag: string, signal: AbortSignal): Promise<boolean> {
    if (this.#hooks.deleteTag) return await this.#hooks.deleteTag(repository, tag, signal);
    if (!this.capabilities.deletesTags) throw unsupported("tag");
    return await isThere(this.#client.deleteManifest(repository, tag, calling(signal)), "MANIFEST_UNKNOWN", "NAME_UNKNOWN").catch(
      (error: unknown) => {
        // Older registries take a tag for a digest that is none.
        if (isSlipwayError(error, "DIGEST_INVALID", "UNSUPPORTED")) throw unsupported("tag", error);
        throw error;
      },
    );
  }

  async deleteManifest(repository: string, digest: string, signal: AbortSignal): Promise<boolean> {
    if (!this.capabilities.deletesManifests) throw unsupported("manifest");
    return await isThere(this.#client.deleteManifest(repository, digest, calling(signal)), "MANIFEST_UNKNOWN", "NAME_UNKNOWN");
  }

  async #send(repository: string, blob: BlobContent, session: UploadSession, signal: AbortSignal): Promise<PutResult> {
    const bytes = await blob.open(signal);
    try {
      const lastChunk = { bytes, size: blob.size };
      return await this.#client.finishUpload(repository, session, blob.digest, { ...calling(signal), lastChunk });
    } finally {
      // Where the registry answered before it had all of it.
      bytes.on("error", () => undefined).destroy();
    }
  }
}

/** A batch that is told to wait for longer gives its place to others. */
const LONGEST_BLOCK_MS = 3_000;

/** How every call of replication is made. */
export function calling(signal: AbortSignal): CallOptions {
  return { priority: "replication", blockWaitMs: LONGEST_BLOCK_MS, signal };
}

export function bareTag(tag: string): Artifact {
  return { tag, digest: null, mediaType: null, artifactType: null, pushedAt: null, labels: null };
}

export async function isThere(call: Promise<unknown>, ...absent: readonly ErrorCode[]): Promise<boolean> {
  try {
    await call;
    return true;
  } catch (error) {
    if (isSlipwayError(error, ...absent)) return false;
    throw error;
  }
}

function unsupported(what: "tag" | "manifest", cause?: unknown): SlipwayError {
  return new SlipwayError("UNSUPPORTED", { message: `the registry cannot delete a ${what}`, ...(cause === undefined ? {} : { cause }) });
}

function isTokenLost(error: unknown): boolean {
  return isSlipwayError(error, "UPSTREAM_UNAVAILABLE") && (error.detail as { part?: unknown } | undefined)?.part === "token";
}

function sameAlgorithm(a: string, b: string): boolean {
  return a.split(":")[0] === b.split(":")[0];
}
