/** The writes that the registry's HTTP surface asks for; each is a part of its own. */
import type { Principal } from "../auth/principal.ts";
import type { BlobWriter } from "./blob-writer.ts";
import type { CatalogContext } from "./catalog-context.ts";
import { Deleter } from "./deletes.ts";
import { ManifestPusher } from "./manifest-push.ts";
import { type MountRequest, Mounter } from "./mount.ts";
import { ProjectStore } from "./project-store.ts";
import type {
  BlobUpload,
  DeleteOptions,
  ManifestPut,
  ManifestPutResult,
  Project,
  RegistryWriter,
  StoredBlob,
  UploadAppend,
  UploadFinish,
  UploadState,
} from "./registry.ts";
import { Uploads } from "./uploads.ts";

export interface WriterStats {
  readonly hashers: number;
  readonly hashersDropped: number;
  readonly rehashedBytes: number;
  readonly deduplicatedBlobs: number;
}

export class CatalogWriter implements RegistryWriter {
  readonly #blobs: BlobWriter;
  readonly #projects: ProjectStore;
  readonly #manifests: ManifestPusher;
  readonly #deleter: Deleter;
  readonly #mounter: Mounter;
  readonly #uploads: Uploads;

  constructor(context: CatalogContext, blobs: BlobWriter) {
    this.#blobs = blobs;
    this.#projects = new ProjectStore(context.database, context.invalidator);
    this.#manifests = new ManifestPusher(context, blobs);
    this.#deleter = new Deleter(context);
    this.#mounter = new Mounter(context, blobs);
    this.#uploads = new Uploads(context, blobs);
  }

  createProject(name: string, options: { public: boolean; ownerId: number | null }): Promise<Project> {
    return this.#projects.ensure({ name, public: options.public, ownerId: options.ownerId });
  }

  putManifest(put: ManifestPut, signal?: AbortSignal): Promise<ManifestPutResult> {
    return this.#manifests.put(put, signal);
  }

  deleteTag(repository: string, tag: string, options: DeleteOptions & { readonly ifMatch?: string }): Promise<boolean> {
    return this.#deleter.tag(repository, tag, options);
  }

  deleteManifest(repository: string, digest: string, options: DeleteOptions): Promise<boolean> {
    return this.#deleter.manifest(repository, digest, options);
  }

  deleteBlob(repository: string, digest: string): Promise<boolean> {
    return this.#deleter.blob(repository, digest);
  }

  deleteRepository(repository: string, options: DeleteOptions): Promise<boolean> {
    return this.#deleter.repository(repository, options);
  }

  mountBlob(options: MountRequest): Promise<StoredBlob | null> {
    return this.#mounter.mount(options);
  }

  startUpload(options: { repository: string; principal: Principal; algorithm: string | null }): Promise<UploadState> {
    return this.#uploads.start(options);
  }

  findUpload(id: string, repository: string): Promise<UploadState | null> {
    return this.#uploads.find(id, repository);
  }

  appendUpload(append: UploadAppend, signal?: AbortSignal): Promise<UploadState> {
    return this.#uploads.append(append, signal);
  }

  finishUpload(finish: UploadFinish, signal?: AbortSignal): Promise<StoredBlob> {
    return this.#uploads.finish(finish, signal);
  }

  cancelUpload(id: string, repository: string): Promise<boolean> {
    return this.#uploads.cancel(id, repository);
  }

  uploadBlob(upload: BlobUpload, signal?: AbortSignal): Promise<StoredBlob> {
    return this.#uploads.whole(upload, signal);
  }

  stats(): WriterStats {
    return { ...this.#uploads.stats(), deduplicatedBlobs: this.#blobs.deduplicated };
  }
}
