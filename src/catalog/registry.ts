/**
 * What the registry's HTTP surface asks of the catalog: reading by name, and the writes of the OCI protocol. Repository names are full
 * names (project/path) and already valid; references are already parsed.
 */
import type { Readable } from "node:stream";
import type { Principal } from "../auth/principal.ts";

export interface Project {
  readonly id: number;
  readonly name: string;
  readonly public: boolean;
  readonly ownerId: number | null;
  readonly registryId: number | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly storageLimit: number;
  readonly repoCount: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** A manifest with its exact bytes. Immutable, so one object serves any number of requests. */
export interface StoredManifest {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

export interface StoredBlob {
  readonly digest: string;
  readonly size: number;
  /** Small blobs only. */
  readonly bytes: Buffer | null;
}

export interface TagPage {
  readonly tags: string[];
  /** Ask for the next page with this as `last`; null at the end. */
  readonly next: string | null;
}

export interface RepositoryPage {
  readonly names: string[];
  readonly next: string | null;
}

export interface ReferrerDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface ReferrersPage {
  readonly manifests: ReferrerDescriptor[];
  readonly next: string | null;
}

export interface ManifestPut {
  readonly repository: string;
  readonly project: Project;
  /** Tags that shall point to it: the reference when it is a tag, and those of ?tag=. */
  readonly tags: readonly string[];
  /** The digest in the reference or the parameters; null when pushed by tag only (then sha256). */
  readonly digest: string | null;
  readonly contentType: string | undefined;
  readonly bytes: Buffer;
  readonly principal: Principal;
  /** If-Match / If-None-Match of the request on the tag, as digests; `"*"` allowed. */
  readonly ifMatch?: string;
  readonly ifNoneMatch?: string;
  /** How the content came here; events tell it. A client's push when absent. */
  readonly origin?: ContentOrigin;
  /** Of a replication: the registry that it came from, to which no event policy carries it back. */
  readonly originRegistry?: number;
  /** Layers may be absent: a sparse image. The config may not, and what is here must have the size that the manifest tells. */
  readonly sparse?: boolean;
  /** Store it though blobs are not here yet (a fill stores the manifest first). */
  readonly allowMissingBlobs?: boolean;
}

export type ContentOrigin = "push" | "fill" | "replication";

export interface DeleteOptions {
  readonly principal: Principal;
  /** As of ManifestPut. */
  readonly origin?: ContentOrigin;
  readonly originRegistry?: number;
}

export interface ManifestPutResult {
  readonly digest: string;
  readonly subject: string | null;
  readonly tags: readonly string[];
}

export interface UploadState {
  readonly id: string;
  readonly repository: string;
  readonly offset: number;
}

export interface UploadAppend {
  readonly id: string;
  readonly repository: string;
  readonly source: Readable;
  /** First byte's position by Content-Range; null for a stream that continues wherever the upload is. */
  readonly start: number | null;
  /** Bytes announced by Content-Length or Content-Range; null when unknown. */
  readonly length: number | null;
  readonly principal: Principal;
}

export interface UploadFinish extends UploadAppend {
  readonly project: Project;
  readonly digest: string;
}

/** A whole blob in one request. */
export interface BlobUpload {
  readonly repository: string;
  readonly project: Project;
  readonly digest: string;
  readonly source: Readable;
  readonly length: number | null;
  readonly principal: Principal;
}

/** Tells every live process to drop what it knows of the scopes; resolves when they have. */
export interface Invalidator {
  publish(scopes: readonly string[]): Promise<void>;
}

export interface RegistryReader {
  /** Hot path: from memory only; undefined when memory does not know. */
  peekProject(name: string): Project | undefined;
  findProject(name: string, signal?: AbortSignal): Promise<Project | null>;
  peekManifest(repository: string, reference: string): StoredManifest | undefined;
  findManifest(repository: string, reference: string, signal?: AbortSignal): Promise<StoredManifest | null>;
  peekBlob(repository: string, digest: string): StoredBlob | undefined;
  findBlob(repository: string, digest: string, signal?: AbortSignal): Promise<StoredBlob | null>;
  repositoryExists(repository: string, signal?: AbortSignal): Promise<boolean>;
  listTags(repository: string, limit: number, last: string | null): Promise<TagPage>;
  listRepositories(limit: number, last: string | null): Promise<RepositoryPage>;
  listReferrers(options: {
    repository: string;
    digest: string;
    artifactType: string | null;
    limit: number;
    last: string | null;
  }): Promise<ReferrersPage>;
}

export interface RegistryWriter {
  /** Creates a local project on push; idempotent. */
  createProject(name: string, options: { public: boolean; ownerId: number | null }): Promise<Project>;
  putManifest(put: ManifestPut, signal?: AbortSignal): Promise<ManifestPutResult>;
  /** False when it was not there. `ifMatch` is a digest or "*". */
  deleteTag(repository: string, tag: string, options: DeleteOptions & { readonly ifMatch?: string }): Promise<boolean>;
  deleteManifest(repository: string, digest: string, options: DeleteOptions): Promise<boolean>;
  /** Removes the repository's link; the bytes go by collection. */
  deleteBlob(repository: string, digest: string, options: { principal: Principal }): Promise<boolean>;
  /**
   * Links a stored blob into the repository without a transfer. `sources` are the repositories that the caller may read: a list (mount
   * with from), or a predicate over project names (mount without from, where any readable holder will do).
   */
  mountBlob(options: {
    repository: string;
    project: Project;
    digest: string;
    from: string | null;
    mayRead: (project: Project) => Promise<boolean>;
    principal: Principal;
  }): Promise<StoredBlob | null>;

  startUpload(options: { repository: string; principal: Principal; algorithm: string | null }): Promise<UploadState>;
  findUpload(id: string, repository: string): Promise<UploadState | null>;
  /** RANGE_INVALID when `start` is not where the upload stands; SIZE_INVALID (bytes kept) when the body was cut. */
  appendUpload(append: UploadAppend, signal?: AbortSignal): Promise<UploadState>;
  /** Appends what is in the body, verifies, stores, links. DIGEST_INVALID when the content is another. */
  finishUpload(finish: UploadFinish, signal?: AbortSignal): Promise<StoredBlob>;
  cancelUpload(id: string, repository: string): Promise<boolean>;
  /** Start and finish in one; nothing of it is left when it fails. */
  uploadBlob(upload: BlobUpload, signal?: AbortSignal): Promise<StoredBlob>;
  /** Removes a repository with everything in it; false when it was not there. */
  deleteRepository(repository: string, options: DeleteOptions): Promise<boolean>;
}

/** Told after a write took effect here; each process drops what it knows of the scopes. */
export const cacheScopes = {
  /** Tags and manifests. */
  repository: (name: string): string => `repository:${name}`,
  /** Blob links: apart, so that a pushed blob does not cool the manifests. */
  blobs: (repository: string): string => `blobs:${repository}`,
  project: (name: string): string => `project:${name}`,
  principal: (key: string): string => `principal:${key}`,
  /** Every decision about one project (members, visibility). */
  rights: (project: string): string => `rights:${project}`,
} as const;
