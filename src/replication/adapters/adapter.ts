/**
 * One registry as replication sees it, whatever stands behind: a registry of the distribution protocol, a product with an API of its own for
 * listing and creating, or the local catalog in process. Listing is paged with cursors that may be kept; everything takes a signal; failures are
 * errors of the catalogue (NAME_UNKNOWN, MANIFEST_UNKNOWN, BLOB_UNKNOWN, UPSTREAM_*, UNSUPPORTED, DENIED).
 */
import type { Readable } from "node:stream";
import type { ByteRange, Descriptor, Manifest, ManifestHead, MountResult, PutResult, UploadSession } from "../../upstream/types.ts";

export interface AdapterCapabilities {
  /** Listing of artifacts tells digests, so that nothing has to be asked per tag. */
  readonly listsDigests: boolean;
  readonly listsTimes: boolean;
  readonly listsLabels: boolean;
  readonly deletesTags: boolean;
  readonly deletesManifests: boolean;
  readonly mounts: boolean;
  /** Uploads in several chunks, of which the confirmed offset can be asked for. */
  readonly resumesUploads: boolean;
  /** False for registries that answer 201 for what they do not have. */
  readonly confirmsPuts: boolean;
  /** Path elements of a repository name. */
  readonly minPathElements: number;
  readonly maxPathElements: number | null;
}

export interface RepositoryQuery {
  /** The only names that can match; null: whatever the registry lists. */
  readonly names: readonly string[] | null;
  /** First path elements that can match; null: any. Lets a registry with projects list only these. */
  readonly namespaces: readonly string[] | null;
}

export interface RepositoryPage {
  readonly repositories: readonly string[];
  readonly next: string | null;
}

export interface Artifact {
  /** Null: content without a tag. */
  readonly tag: string | null;
  readonly digest: string | null;
  readonly mediaType: string | null;
  readonly artifactType: string | null;
  readonly pushedAt: Date | null;
  readonly labels: readonly string[] | null;
  /** Of a signature or the like: the digest of what it belongs to, where listing tells it. */
  readonly subject?: string | null;
  /** Digests of what refers to it, where listing tells them. */
  readonly referrers?: readonly string[];
}

export interface ArtifactPage {
  readonly artifacts: readonly Artifact[];
  readonly next: string | null;
}

export interface BlobRequest {
  readonly digest: string;
  readonly size: number;
  readonly range?: ByteRange;
}

export interface BlobContent {
  readonly digest: string;
  readonly size: number;
  /** Opened when the registry wants the bytes, and possibly again for a second try. */
  open(signal: AbortSignal): Promise<Readable>;
}

/** `skip`: nothing may be written there (a proxy project), which is no failure. */
export type PrepareResult = { readonly usable: true } | { readonly usable: false; readonly skip: boolean; readonly message: string };

export interface RegistryAdapter {
  readonly registryId: number;
  readonly type: string;
  readonly name: string;
  /** Name of the host, or "local": for fairness, logs and metrics. */
  readonly host: string;
  readonly capabilities: AdapterCapabilities;

  listRepositories(query: RepositoryQuery, cursor: string | null, signal: AbortSignal): Promise<RepositoryPage>;
  /** An absent repository is an empty page. */
  listArtifacts(repository: string, cursor: string | null, signal: AbortSignal): Promise<ArtifactPage>;
  /** Tags of the digest, and of what it is a part of or refers to; absent where that cannot be asked. */
  tagsOf?(repository: string, digest: string, signal: AbortSignal): Promise<readonly string[]>;
  headManifest(repository: string, reference: string, signal: AbortSignal): Promise<ManifestHead>;
  getManifest(repository: string, reference: string, signal: AbortSignal): Promise<Manifest>;
  listReferrers(repository: string, digest: string, signal: AbortSignal): Promise<readonly Descriptor[]>;
  /** Whether it has the referrers API; null until it was asked. Where it has none, its referrers are tags that listing shows. */
  readonly referrersApi: boolean | null;
  /** False where whole blobs come whatever range is asked for. */
  readonly honoursRanges: boolean;
  readBlob(repository: string, blob: BlobRequest, signal: AbortSignal): Promise<Readable>;

  /** Makes what must exist before the first push into the repository: a project, a namespace. Called once per repository and run. */
  prepare(repository: string, options: { readonly public: boolean | null }, signal: AbortSignal): Promise<PrepareResult>;
  /** Whether the source's project is public; null where there is no such thing. */
  isPublic(repository: string, signal: AbortSignal): Promise<boolean | null>;
  hasBlob(repository: string, digest: string, signal: AbortSignal): Promise<boolean>;
  mountBlob(repository: string, mount: { readonly digest: string; readonly from: string }, signal: AbortSignal): Promise<MountResult>;
  /** The whole blob in one go; `session` is one that a refused mount opened. */
  putBlob(repository: string, blob: BlobContent, session: UploadSession | null, signal: AbortSignal): Promise<PutResult>;
  startUpload(repository: string, digest: string, signal: AbortSignal): Promise<UploadSession>;
  /** What the registry has of it; BLOB_UPLOAD_UNKNOWN when it is gone, UNSUPPORTED when it does not tell. */
  uploadStatus(repository: string, session: UploadSession, signal: AbortSignal): Promise<UploadSession>;
  uploadChunk(
    repository: string,
    chunk: { readonly session: UploadSession; readonly bytes: Buffer | Readable; readonly size: number },
    signal: AbortSignal,
  ): Promise<UploadSession>;
  finishUpload(
    repository: string,
    upload: { readonly session: UploadSession; readonly digest: string },
    signal: AbortSignal,
  ): Promise<PutResult>;
  cancelUpload(repository: string, session: UploadSession, signal: AbortSignal): Promise<void>;
  putManifest(
    repository: string,
    manifest: { readonly reference: string; readonly bytes: Buffer; readonly mediaType: string; readonly digest: string },
    signal: AbortSignal,
  ): Promise<PutResult>;
  /** False when it was not there. */
  deleteTag(repository: string, tag: string, signal: AbortSignal): Promise<boolean>;
  deleteManifest(repository: string, digest: string, signal: AbortSignal): Promise<boolean>;
}

export interface AdapterFactory {
  /** The adapter of a registry row, or of the local registry (id 0). NOT_FOUND when there is none. Asked anew for each batch: credentials change. */
  open(registryId: number, signal: AbortSignal): Promise<RegistryAdapter>;
  /** The same as a target: what is written says where it came from, so that events of the local registry carry nothing back. */
  openTarget(target: { readonly registryId: number; readonly sourceRegistryId: number }, signal: AbortSignal): Promise<RegistryAdapter>;
}
