/**
 * Reads by name for the registry. The peek methods are the hot path: memory only, no promise, one key built per look. Everything known is
 * kept until a write says otherwise or its time is over; shortly before that it is loaded anew behind the answer.
 */
import { LIMITS } from "../core/limits.ts";
import { subjectPrefixOfTag } from "../oci/digests.ts";
import { BlobRecordStore } from "./blob-record-store.ts";
import type { CatalogContext } from "./catalog-context.ts";
import type { ReaderCaches } from "./reader-caches.ts";
import { ManifestStore } from "./manifest-store.ts";
import { ProjectStore } from "./project-store.ts";
import { Referrers, type ReferrersRequest } from "./referrers.ts";
import {
  type Project,
  type ReferrersPage,
  type RegistryReader,
  type RepositoryPage,
  type StoredBlob,
  type StoredManifest,
  type TagPage,
  cacheScopes,
} from "./registry.ts";
import { RepositoryStore } from "./repository-store.ts";
import { TagStore } from "./tag-store.ts";

const COLON = ":";

export class CatalogReader implements RegistryReader {
  readonly #context: CatalogContext;
  readonly #caches: ReaderCaches;
  readonly #projects: ProjectStore;
  readonly #repositories: RepositoryStore;
  readonly #manifests: ManifestStore;
  readonly #tags: TagStore;
  readonly #blobs: BlobRecordStore;
  readonly #referrers: Referrers;

  constructor(context: CatalogContext, caches: ReaderCaches) {
    const { database } = context;
    this.#context = context;
    this.#caches = caches;
    this.#projects = new ProjectStore(database, context.invalidator);
    this.#repositories = new RepositoryStore(database);
    this.#manifests = new ManifestStore(database);
    this.#tags = new TagStore(database);
    this.#blobs = new BlobRecordStore(database);
    this.#referrers = new Referrers(database, (repository, tag) => this.#findTagged(repository, tag));
  }

  peekProject(name: string): Project | undefined {
    return this.#caches.projects.peek(name) ?? undefined;
  }

  async findProject(name: string): Promise<Project | null> {
    return this.#caches.projects.load(name, cacheScopes.project(name), () => this.#projects.find(name));
  }

  peekManifest(repository: string, reference: string): StoredManifest | undefined {
    let digest = reference;
    if (!reference.includes(COLON)) {
      const known = this.#caches.tags.peek(`${repository}:${reference}`);
      if (!known) return undefined;
      digest = known;
    }
    return this.#caches.manifests.peek(`${repository}@${digest}`) ?? undefined;
  }

  async findManifest(repository: string, reference: string): Promise<StoredManifest | null> {
    if (reference.includes(COLON)) return this.#findByDigest(repository, reference);
    return (await this.#findTagged(repository, reference)) ?? this.#findReferrersIndex(repository, reference);
  }

  peekBlob(repository: string, digest: string): StoredBlob | undefined {
    return this.#caches.blobs.peek(`${repository}@${digest}`) ?? undefined;
  }

  async findBlob(repository: string, digest: string): Promise<StoredBlob | null> {
    return this.#caches.blobs.load(`${repository}@${digest}`, cacheScopes.blobs(repository), async (signal) => {
      const linked = await this.#blobs.findLinked(repository, digest);
      if (!linked) return null;
      const small = linked.size <= LIMITS.smallBlobBytes;
      const bytes = small ? await this.#context.store.readAll(digest, LIMITS.smallBlobBytes, signal) : null;
      return { digest, size: linked.size, bytes };
    });
  }

  async repositoryExists(repository: string): Promise<boolean> {
    return (await this.#repositories.findId(repository)) !== null;
  }

  async listTags(repository: string, limit: number, last: string | null): Promise<TagPage> {
    return (await this.#tags.listNames(repository, limit, last)) ?? { tags: [], next: null };
  }

  listRepositories(limit: number, last: string | null): Promise<RepositoryPage> {
    return this.#repositories.listNames(limit, last);
  }

  listReferrers(options: ReferrersRequest): Promise<ReferrersPage> {
    return this.#referrers.list(options);
  }

  /** By a tag that somebody pushed. */
  async #findTagged(repository: string, tag: string): Promise<StoredManifest | null> {
    const digest = await this.#caches.tags.load(`${repository}:${tag}`, cacheScopes.repository(repository), () =>
      this.#tags.findDigest(repository, tag),
    );
    return digest === null ? null : this.#findByDigest(repository, digest);
  }

  #findByDigest(repository: string, digest: string): Promise<StoredManifest | null> {
    return this.#caches.manifests.load(`${repository}@${digest}`, cacheScopes.repository(repository), async (signal) => {
      const row = await this.#manifests.find(repository, digest);
      if (!row) return this.#referrers.findIndex(repository, digest);
      const bytes = row.bytes ?? (await this.#context.store.readAll(digest, LIMITS.manifestBytes, signal));
      return { digest, mediaType: row.mediaType, bytes };
    });
  }

  async #findReferrersIndex(repository: string, tag: string): Promise<StoredManifest | null> {
    if (subjectPrefixOfTag(tag) === null) return null;
    const index = await this.#referrers.indexOfTag(repository, tag);
    if (!index) return null;
    const key = `${repository}@${index.digest}`;
    if (this.#caches.manifests.peek(key)) return index;
    await this.#referrers.keepIndex(repository, tag, index);
    return index;
  }
}
