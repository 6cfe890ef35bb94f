/** Puts the catalog together over a database, blob storage and the invalidation bus. */
import type { Clock } from "../core/clock.ts";
import type { Database } from "../db/pool.ts";
import { DEFAULT_PROJECT } from "../oci/names.ts";
import type { BlobStore } from "../storage/blob-store.ts";
import { BlobRecordStore } from "./blob-record-store.ts";
import { BlobWriter } from "./blob-writer.ts";
import type { InvalidationBus } from "./cache/invalidation-bus.ts";
import { type CatalogContext, type CatalogLimits, type CatalogLog, DEFAULT_CATALOG_LIMITS } from "./catalog-context.ts";
import { Collection } from "./collection.ts";
import { ManifestStore } from "./manifest-store.ts";
import { Outbox } from "./outbox.ts";
import { ProjectStore } from "./project-store.ts";
import { type ReaderCacheOptions, createReaderCaches } from "./reader-caches.ts";
import { CatalogReader } from "./reader.ts";
import { Rebuilder, type RebuilderOptions } from "./rebuild.ts";
import type { Project } from "./registry.ts";
import { RepositoryStore } from "./repository-store.ts";
import { TagStore } from "./tag-store.ts";
import { UploadStore } from "./upload-store.ts";
import { CatalogWriter } from "./writer.ts";

export interface CatalogOptions {
  readonly database: Database;
  readonly store: BlobStore;
  readonly bus: InvalidationBus;
  readonly clock: Clock;
  readonly log: CatalogLog;
  readonly cache: ReaderCacheOptions;
  readonly limits?: Partial<CatalogLimits>;
  /** Wakes the relay of the outbox; without it the relay polls. */
  readonly onOutbox?: () => void;
}

export interface Catalog {
  readonly reader: CatalogReader;
  readonly writer: CatalogWriter;
  readonly projects: ProjectStore;
  readonly repositories: RepositoryStore;
  readonly manifests: ManifestStore;
  readonly tags: TagStore;
  readonly blobs: BlobRecordStore;
  readonly uploads: UploadStore;
  /** Stores and links bytes that a part of Slipway itself has verified: fills and copies. */
  readonly content: BlobWriter;
  readonly outbox: Outbox;
  readonly collection: Collection;
  createRebuilder(options: RebuilderOptions): Rebuilder;
  /** The project of one-component names, made at the first start. */
  ensureLibrary(): Promise<Project>;
  stats(): object;
  close(): void;
}

export function createCatalog(options: CatalogOptions): Catalog {
  const { database, bus } = options;
  const context: CatalogContext = {
    database,
    store: options.store,
    invalidator: bus,
    clock: options.clock,
    limits: { ...DEFAULT_CATALOG_LIMITS, ...options.limits },
    log: options.log,
    ...(options.onOutbox && { onOutbox: options.onOutbox }),
  };
  const caches = createReaderCaches(bus, options.cache);
  const content = new BlobWriter(context);
  const writer = new CatalogWriter(context, content);
  const projects = new ProjectStore(database, bus);
  return {
    reader: new CatalogReader(context, caches),
    writer,
    projects,
    repositories: new RepositoryStore(database),
    manifests: new ManifestStore(database),
    tags: new TagStore(database),
    blobs: new BlobRecordStore(database),
    uploads: new UploadStore(database),
    content,
    outbox: new Outbox(database),
    collection: new Collection(context),
    createRebuilder: (rebuilderOptions) => new Rebuilder(context, rebuilderOptions),
    ensureLibrary: () => projects.ensure({ name: DEFAULT_PROJECT, public: true, ownerId: null }),
    stats: () => ({
      cache: {
        projects: caches.projects.stats(),
        tags: caches.tags.stats(),
        manifests: caches.manifests.stats(),
        blobs: caches.blobs.stats(),
      },
      writer: writer.stats(),
    }),
    close: () => {
      for (const cache of Object.values(caches)) cache.clear();
    },
  };
}
