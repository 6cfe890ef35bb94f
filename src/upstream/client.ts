/** One registry, as the rest of Slipway sees it. */
import { ApiCaller } from "./api.ts";
import type { ApiCallerOptions } from "./api.ts";
import { BlobReader } from "./blobs.ts";
import type { BlobReaderOptions, GetBlobOptions } from "./blobs.ts";
import type { ResolvedEndpoint } from "./endpoint.ts";
import { ListingReader } from "./listings.ts";
import type { ListCatalogOptions, ListReferrersOptions, ListTagsOptions } from "./listings.ts";
import { ManifestReader } from "./manifests.ts";
import type { GetManifestOptions } from "./manifests.ts";
import type {
  ApiAnswer,
  ApiCall,
  BlobAnswer,
  BlobHead,
  CallOptions,
  CatalogPage,
  ManifestAnswer,
  ManifestHead,
  MountResult,
  PingResult,
  PutResult,
  ReferrersAnswer,
  TagPage,
  UploadSession,
} from "./types.ts";
import { BlobWriter } from "./uploads.ts";
import type { ChunkOptions, PutManifestOptions, UploadData } from "./uploads.ts";

export interface UpstreamClientOptions extends BlobReaderOptions, Pick<ApiCallerOptions, "authenticator"> {
  readonly resolved: ResolvedEndpoint;
  readonly onSecret: (value: string) => void;
}

const MAX_PING_BYTES = 64 * 1024;

export class UpstreamClient {
  readonly #options: UpstreamClientOptions;
  readonly #manifests: ManifestReader;
  readonly #blobs: BlobReader;
  readonly #listings: ListingReader;
  readonly #writer: BlobWriter;
  readonly #api: ApiCaller;

  constructor(options: UpstreamClientOptions) {
    this.#options = options;
    const { exchange, quirks, resolved } = options;
    const origin = resolved.bases[0]?.origin ?? "";
    this.#manifests = new ManifestReader({ exchange, quirks, origin });
    this.#blobs = new BlobReader(options);
    this.#listings = new ListingReader({ exchange, manifests: this.#manifests, quirks, origin });
    this.#writer = new BlobWriter(options);
    this.#api = new ApiCaller(options);
  }

  get name(): string {
    return this.#options.resolved.endpoint.name;
  }

  /** False when the registry was seen to send whole blobs instead of ranges: parallel ranges would only multiply the transfer. */
  get honoursRanges(): boolean {
    return !this.#options.resolved.bases.some((base) => this.#options.quirks.has(base.origin, "rangeIgnored"));
  }

  /** What was learnt about the referrers API; null before it was asked. */
  get referrersApi(): boolean | null {
    const { quirks, resolved } = this.#options;
    const origin = resolved.bases[0]?.origin ?? "";
    if (quirks.has(origin, "referrersUnsupported")) return false;
    return quirks.has(origin, "referrersSupported") ? true : null;
  }

  /** Reaches the registry and, where it asks for one, proves the credential. */
  async ping(call: CallOptions = {}): Promise<PingResult> {
    const answer = await this.#options.exchange.collect(
      { kind: "ping", method: "GET", target: { path: "/v2/" }, scopes: [], lane: "meta", absent: "NOT_FOUND", call, repeatable: true },
      MAX_PING_BYTES,
    );
    const { credential } = this.#options.resolved.endpoint;
    return { status: answer.status, authenticated: credential !== null && credential.type !== "none" };
  }

  headManifest(repository: string, reference: string, call?: CallOptions): Promise<ManifestHead> {
    return this.#manifests.head(repository, reference, call);
  }

  getManifest(repository: string, reference: string, options?: GetManifestOptions): Promise<ManifestAnswer> {
    return this.#manifests.get(repository, reference, options);
  }

  getBlob(repository: string, digest: string, options?: GetBlobOptions): Promise<BlobAnswer> {
    return this.#blobs.get(repository, digest, options);
  }

  headBlob(repository: string, digest: string, call?: CallOptions): Promise<BlobHead> {
    return this.#blobs.head(repository, digest, call);
  }

  /** A call to the API of the product behind the registry, with the credential. */
  api(call: ApiCall): Promise<ApiAnswer> {
    return this.#api.call(call);
  }

  /** Null when the registry asks for no token. */
  tokenOrigin(call: CallOptions = {}): Promise<string | null> {
    return this.#api.tokenOrigin(call);
  }

  /** Repositories by name; UNSUPPORTED where the registry lists none. */
  listCatalog(options?: ListCatalogOptions): Promise<CatalogPage> {
    return this.#listings.catalog(options);
  }

  listTags(repository: string, options?: ListTagsOptions): Promise<TagPage> {
    return this.#listings.tags(repository, options);
  }

  allTags(repository: string, options?: ListTagsOptions): AsyncGenerator<TagPage> {
    return this.#listings.allTags(repository, options);
  }

  listReferrers(repository: string, digest: string, options?: ListReferrersOptions): Promise<ReferrersAnswer> {
    return this.#listings.referrers(repository, digest, options);
  }

  startUpload(repository: string, call?: CallOptions & { readonly algorithm?: string | undefined }): Promise<UploadSession> {
    return this.#writer.start(repository, call);
  }

  uploadStatus(repository: string, session: UploadSession, call?: CallOptions): Promise<UploadSession> {
    return this.#writer.status(repository, session, call);
  }

  uploadChunk(repository: string, session: UploadSession, data: UploadData, options?: ChunkOptions): Promise<UploadSession> {
    return this.#writer.chunk(repository, session, data, options);
  }

  finishUpload(
    repository: string,
    session: UploadSession,
    digest: string,
    options?: CallOptions & { readonly lastChunk?: UploadData | undefined },
  ): Promise<PutResult> {
    return this.#writer.finish(repository, session, digest, options);
  }

  uploadMonolithic(
    repository: string,
    digest: string,
    data: UploadData,
    options?: CallOptions & { readonly singlePost?: boolean | undefined },
  ): Promise<PutResult> {
    return this.#writer.monolithic(repository, digest, data, options);
  }

  mountBlob(repository: string, digest: string, from: string, call?: CallOptions): Promise<MountResult> {
    return this.#writer.mount(repository, digest, from, call);
  }

  cancelUpload(repository: string, session: UploadSession, call?: CallOptions): Promise<void> {
    return this.#writer.cancel(repository, session, call);
  }

  putManifest(
    repository: string,
    reference: string,
    manifest: { readonly bytes: Buffer; readonly mediaType: string },
    options?: PutManifestOptions,
  ): Promise<PutResult> {
    return this.#writer.putManifest(repository, reference, manifest, options);
  }

  deleteManifest(repository: string, reference: string, call?: CallOptions): Promise<void> {
    return this.#writer.deleteManifest(repository, reference, call);
  }

  deleteBlob(repository: string, digest: string, call?: CallOptions): Promise<void> {
    return this.#writer.deleteBlob(repository, digest, call);
  }
}
