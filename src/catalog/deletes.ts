/** Deletes of tags, manifests, links and repositories: guarded rows and their records in one transaction, bytes later by collection. */
import type { Queryable } from "../db/pool.ts";
import { BlobRecordStore } from "./blob-record-store.ts";
import { type CatalogContext, announce, timestamp } from "./catalog-context.ts";
import { eventRecord, linkRecord } from "./content-records.ts";
import type { EventFacts } from "./content-records.ts";
import { ManifestStore } from "./manifest-store.ts";
import { Outbox } from "./outbox.ts";
import { checkPreconditions } from "./preconditions.ts";
import { cacheScopes } from "./registry.ts";
import type { DeleteOptions } from "./registry.ts";
import { RepositoryStore } from "./repository-store.ts";
import { TagStore } from "./tag-store.ts";

export class Deleter {
  readonly #context: CatalogContext;
  readonly #repositories: RepositoryStore;

  constructor(context: CatalogContext) {
    this.#context = context;
    this.#repositories = new RepositoryStore(context.database);
  }

  async tag(repository: string, tag: string, options: DeleteOptions & { readonly ifMatch?: string }): Promise<boolean> {
    const at = timestamp(this.#context);
    const removed = await this.#locked(repository, async (tx, repositoryId) => {
      const tags = new TagStore(tx);
      const digest = (await tags.current(repositoryId, [tag])).get(tag);
      checkPreconditions(digest, options.ifMatch === undefined ? {} : { ifMatch: options.ifMatch });
      if (digest === undefined || !(await tags.remove(repositoryId, tag, digest))) return false;
      await new Outbox(tx).append([
        linkRecord({ op: "remove", target: "tag", repository, digest, tag, at }),
        eventRecord("untag", { repository, digest, tag, ...cause(options), at }),
      ]);
      return true;
    });
    if (removed) await announce(this.#context, cacheScopes.repository(repository));
    return removed;
  }

  /** Its tags go with it; children of an index stay. */
  async manifest(repository: string, digest: string, options: DeleteOptions): Promise<boolean> {
    const at = timestamp(this.#context);
    const removed = await this.#locked(repository, async (tx, repositoryId) => {
      const tags = await new TagStore(tx).ofManifest(repositoryId, digest);
      const manifest = await new ManifestStore(tx).remove(repositoryId, digest);
      if (!manifest) return false;
      await new Outbox(tx).append([
        ...tags.map((tag) => linkRecord({ op: "remove", target: "tag", repository, digest, tag: tag.name, at })),
        linkRecord({ op: "remove", target: "manifest", repository, digest, at }),
        ...tags.map((tag) => eventRecord("untag", { repository, digest, tag: tag.name, ...cause(options), at })),
        eventRecord("delete", { repository, digest, mediaType: manifest.mediaType, ...cause(options), at }),
      ]);
      return true;
    });
    if (removed) await announce(this.#context, cacheScopes.repository(repository));
    return removed;
  }

  async blob(repository: string, digest: string): Promise<boolean> {
    const at = timestamp(this.#context);
    const removed = await this.#locked(repository, async (tx, repositoryId) => {
      if (!(await new BlobRecordStore(tx).unlink(repositoryId, digest))) return false;
      await new Outbox(tx).append([linkRecord({ op: "remove", target: "blob", repository, digest, at })]);
      return true;
    });
    if (removed) await announce(this.#context, cacheScopes.blobs(repository));
    return removed;
  }

  async repository(repository: string, options: DeleteOptions): Promise<boolean> {
    const at = timestamp(this.#context);
    const removed = await this.#locked(repository, async (tx, repositoryId) => {
      const tags = await new TagStore(tx).all(repositoryId);
      if (!(await new RepositoryStore(tx).remove(repositoryId))) return false;
      await new Outbox(tx).append([
        linkRecord({ op: "remove", target: "repository", repository, at }),
        // Each with its digest: whoever follows a deletion elsewhere deletes only what was deleted here.
        ...tags.map((tag) => eventRecord("untag", { repository, digest: tag.digest, tag: tag.name, ...cause(options), at })),
        eventRecord("delete-repository", { repository, ...cause(options), at }),
      ]);
      return true;
    });
    if (removed) await announce(this.#context, cacheScopes.repository(repository), cacheScopes.blobs(repository));
    return removed;
  }

  async #locked(repository: string, work: (tx: Queryable, repositoryId: number) => Promise<boolean>): Promise<boolean> {
    const repositoryId = await this.#repositories.findId(repository);
    if (repositoryId === null) return false;
    return this.#context.database.transaction(async (tx) => {
      if (!(await new RepositoryStore(tx).lock(repositoryId))) return false;
      return work(tx, repositoryId);
    });
  }
}

function cause({ principal, origin, originRegistry }: DeleteOptions): Pick<EventFacts, "principal" | "origin" | "originRegistry"> {
  return { principal, ...(origin === undefined ? {} : { origin }), ...(originRegistry === undefined ? {} : { originRegistry }) };
}
