/**
 * The registry that Slipway itself is, in process: rows and storage instead of HTTP. Replication acts as a principal of its own that may do everything;
 * who may replicate was decided when the policy was made. What it writes says where it came from.
 */
import { Readable } from "node:stream";
import { ANONYMOUS } from "../../auth/principal.ts";
import type { Principal } from "../../auth/principal.ts";
import type { Catalog } from "../../catalog/open-catalog.ts";
import type { DeleteOptions, Project, ReferrerDescriptor } from "../../catalog/registry.ts";
import { SlipwayError } from "../../core/errors.ts";
import type { Queryable } from "../../db/pool.ts";
import { isDigest } from "../../oci/digests.ts";
import { requireRepositoryName } from "../../oci/names.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import type { Descriptor, Manifest, ManifestHead, MountResult, PutResult, UploadSession } from "../../upstream/types.ts";
import { LOCAL_REGISTRY_ID } from "../plan/policy.ts";
import type {
  AdapterCapabilities,
  ArtifactPage,
  BlobContent,
  BlobRequest,
  PrepareResult,
  RegistryAdapter,
  RepositoryPage,
  RepositoryQuery,
} from "./adapter.ts";
import { listLocalArtifacts, localTagsOf } from "./local-listing.ts";

export interface LocalAdapterOptions {
  readonly catalog: Catalog;
  readonly store: BlobStore;
  readonly database: Queryable;
  /** Where what is written comes from; null when nothing is written. */
  readonly originRegistry: number | null;
}

const PAGE = 1000;
const REFERRERS_PAGE = 1000;
/** An upload here has an id, not an address. */
const SESSION = "local:";

const PRINCIPAL: Principal = { ...ANONYMOUS, kind: "robot", key: "replication", name: "replication", sysadmin: true };

export class LocalAdapter implements RegistryAdapter {
  readonly registryId = LOCAL_REGISTRY_ID;
  readonly type = "local";
  readonly name = "Local";
  readonly host = "local";
  readonly honoursRanges = true;
  readonly referrersApi = true;
  readonly capabilities: AdapterCapabilities = {
    listsDigests: true,
    listsTimes: true,
    listsLabels: true,
    deletesTags: true,
    deletesManifests: true,
    mounts: true,
    resumesUploads: true,
    confirmsPuts: true,
    minPathElements: 2,
    maxPathElements: null,
  };
  readonly #catalog: Catalog;
  readonly #store: BlobStore;
  readonly #database: Queryable;
  readonly #cause: DeleteOptions;

  constructor(options: LocalAdapterOptions) {
    this.#catalog = options.catalog;
    this.#store = options.store;
    this.#database = options.database;
    const { originRegistry } = options;
    this.#cause = { principal: PRINCIPAL, origin: "replication", ...(originRegistry === null ? {} : { originRegistry }) };
  }

  async listRepositories(query: RepositoryQuery, cursor: string | null): Promise<RepositoryPage> {
    const among = { names: query.names, projects: query.namespaces };
    const page = await this.#catalog.repositories.listAmong(among, PAGE, cursor);
    return { repositories: page.names, next: page.next };
  }

  listArtifacts(repository: string, cursor: string | null): Promise<ArtifactPage> {
    return listLocalArtifacts(this.#database, repository, cursor);
  }

  tagsOf(repository: string, digest: string): Promise<readonly string[]> {
    return localTagsOf(this.#database, repository, digest);
  }

  async headManifest(repository: string, reference: string, signal: AbortSignal): Promise<ManifestHead> {
    const { digest, mediaType, bytes } = await this.getManifest(repository, reference, signal);
    return { digest, size: bytes.length, mediaType, etag: null, manifest: null };
  }

  async getManifest(repository: string, reference: string, signal: AbortSignal): Promise<Manifest> {
    signal.throwIfAborted();
    const found = await this.#catalog.reader.findManifest(repository, reference);
    if (!found) throw new SlipwayError("MANIFEST_UNKNOWN");
    return { ...found, etag: null, warnings: [] };
  }

  async listReferrers(repository: string, digest: string, signal: AbortSignal): Promise<readonly Descriptor[]> {
    const found: ReferrerDescriptor[] = [];
    let last: string | null = null;
    do {
      signal.throwIfAborted();
      const page = await this.#catalog.reader.listReferrers({ repository, digest, artifactType: null, limit: REFERRERS_PAGE, last });
      found.push(...page.manifests);
      last = page.next;
    } while (last !== null);
    return found;
  }

  async readBlob(repository: string, blob: BlobRequest, signal: AbortSignal): Promise<Readable> {
    // The bytes may be here for another repository: only a link says that they are this one's.
    const linked = await this.#catalog.blobs.findLinked(repository, blob.digest);
    if (!linked) throw new SlipwayError("BLOB_UNKNOWN");
    const range = blob.range && { start: blob.range.start, end: Math.min(blob.range.end ?? linked.size - 1, linked.size - 1) };
    return await this.#store.read(blob.digest, range, signal);
  }

  async prepare(repository: string, options: { readonly public: boolean | null }): Promise<PrepareResult> {
    const { project: name } = requireRepositoryName(repository);
    const { projects } = this.#catalog;
    const known = await projects.find(name);
    const project = known ?? (await projects.ensure({ name, public: options.public ?? false, ownerId: null }));
    return project.registryId === null
      ? { usable: true }
      : { usable: false, skip: true, message: `project ${name} of the destination is a proxy cache, which takes no pushes` };
  }

  async isPublic(repository: string): Promise<boolean | null> {
    return (await this.#catalog.projects.find(requireRepositoryName(repository).project))?.public ?? null;
  }

  async hasBlob(repository: string, digest: string): Promise<boolean> {
    return (await this.#catalog.blobs.findLinked(repository, digest)) !== null;
  }

  async mountBlob(repository: string, mount: { readonly digest: string; readonly from: string }): Promise<MountResult> {
    const project = await this.#project(repository);
    const request = { repository, project, ...mount, mayRead: () => Promise.resolve(true), principal: PRINCIPAL };
    const linked = await this.#catalog.writer.mountBlob(request);
    return linked ? { mounted: true } : { mounted: false, session: null };
  }

  async putBlob(repository: string, blob: BlobContent, session: UploadSession | null, signal: AbortSignal): Promise<PutResult> {
    const project = await this.#project(repository);
    const source = await blob.open(signal);
    const upload = { repository, project, digest: blob.digest, source, length: blob.size, principal: PRINCIPAL };
    try {
      if (session === null) await this.#catalog.writer.uploadBlob(upload, signal);
      else await this.#catalog.writer.finishUpload({ ...upload, id: idOf(session), start: session.offset }, signal);
    } finally {
      source.on("error", () => undefined).destroy();
    }
    return { digest: blob.digest, subject: null };
  }

  async startUpload(repository: string, digest: string): Promise<UploadSession> {
    const algorithm = digest.slice(0, digest.indexOf(":"));
    const { id } = await this.#catalog.writer.startUpload({ repository, principal: PRINCIPAL, algorithm });
    return this.#session(id, 0);
  }

  async uploadStatus(repository: string, session: UploadSession): Promise<UploadSession> {
    const found = await this.#catalog.writer.findUpload(idOf(session), repository);
    if (!found) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
    return this.#session(found.id, found.offset);
  }

  async uploadChunk(
    repository: string,
    chunk: { readonly session: UploadSession; readonly bytes: Buffer | Readable; readonly size: number },
    signal: AbortSignal,
  ): Promise<UploadSession> {
    const { session, bytes, size } = chunk;
    const source = Buffer.isBuffer(bytes) ? Readable.from([bytes]) : bytes;
    const append = { id: idOf(session), repository, source, start: session.offset, length: size, principal: PRINCIPAL };
    const { id, offset } = await this.#catalog.writer.appendUpload(append, signal);
    return this.#session(id, offset);
  }

  async finishUpload(
    repository: string,
    upload: { readonly session: UploadSession; readonly digest: string },
    signal: AbortSignal,
  ): Promise<PutResult> {
    const project = await this.#project(repository);
    const { session, digest } = upload;
    const rest = { source: Readable.from([]), start: null, length: 0, principal: PRINCIPAL };
    await this.#catalog.writer.finishUpload({ id: idOf(session), repository, project, digest, ...rest }, signal);
    return { digest, subject: null };
  }

  async cancelUpload(repository: string, session: UploadSession): Promise<void> {
    await this.#catalog.writer.cancelUpload(idOf(session), repository);
  }

  async putManifest(
    repository: string,
    manifest: { readonly reference: string; readonly bytes: Buffer; readonly mediaType: string; readonly digest: string },
    signal: AbortSignal,
  ): Promise<PutResult> {
    const project = await this.#project(repository);
    const { reference, bytes, mediaType: contentType, digest } = manifest;
    const tags = isDigest(reference) ? [] : [reference];
    const put = { repository, project, tags, digest, contentType, bytes, ...this.#cause };
    const result = await this.#catalog.writer.putManifest(put, signal);
    return { digest: result.digest, subject: result.subject };
  }

  deleteTag(repository: string, tag: string): Promise<boolean> {
    return this.#catalog.writer.deleteTag(repository, tag, this.#cause);
  }

  deleteManifest(repository: string, digest: string): Promise<boolean> {
    return this.#catalog.writer.deleteManifest(repository, digest, this.#cause);
  }

  async #project(repository: string): Promise<Project> {
    const { project: name } = requireRepositoryName(repository);
    const project = await this.#catalog.reader.findProject(name);
    if (!project) throw new SlipwayError("NAME_UNKNOWN", { message: `project ${name} was removed` });
    if (project.registryId !== null)
      throw new SlipwayError("DENIED", { message: `project ${name} is a proxy cache, which takes no pushes` });
    return project;
  }

  #session(id: string, offset: number): UploadSession {
    return { location: `${SESSION}${id}`, offset, minChunkBytes: this.#store.chunkMinBytes };
  }
}

function idOf(session: UploadSession): string {
  if (!session.location.startsWith(SESSION)) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
  return session.location.slice(SESSION.length);
}
