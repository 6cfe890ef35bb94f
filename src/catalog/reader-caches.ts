/** What the reader keeps in memory, and for how long. Times are only the net below the announcements: a write is heard at once. */
import type { InvalidationBus } from "./cache/invalidation-bus.ts";
import { ScopedCache } from "./cache/scoped-cache.ts";
import type { Project, StoredBlob, StoredManifest } from "./registry.ts";

export interface ReaderCacheOptions {
  /** All of them together. */
  readonly maxBytes: number;
  /** How long what is known stays valid while the database is away. */
  readonly staleOnDbErrorMs: number;
}

export interface ReaderCaches {
  readonly projects: ScopedCache<Project>;
  /** Key `<repository>:<tag>`, value a digest. */
  readonly tags: ScopedCache<string>;
  /** Key `<repository>@<digest>`. */
  readonly manifests: ScopedCache<StoredManifest>;
  /** Key `<repository>@<digest>`: a link, with the bytes of small blobs. */
  readonly blobs: ScopedCache<StoredBlob>;
}

const TIMES = {
  ttlMs: 60_000,
  staleMs: 60_000,
  negativeTtlMs: 5_000,
  loadTimeoutMs: 10_000,
  maxConcurrentLoads: 64,
} as const;

/** Rough weight of a value beside its bytes; the cache adds key and bookkeeping itself. */
const OBJECT_BYTES = 200;

export function createReaderCaches(bus: InvalidationBus, options: ReaderCacheOptions): ReaderCaches {
  const share = (part: number): number => Math.floor(options.maxBytes * part);
  const common = { ...TIMES, staleOnDbErrorMs: options.staleOnDbErrorMs };
  return {
    projects: new ScopedCache<Project>({ ...common, name: "projects", maxBytes: share(0.05), sizeOf: () => 4 * OBJECT_BYTES }, bus),
    tags: new ScopedCache<string>({ ...common, name: "tags", maxBytes: share(0.15), sizeOf: () => OBJECT_BYTES }, bus),
    manifests: new ScopedCache<StoredManifest>(
      { ...common, name: "manifests", maxBytes: share(0.4), sizeOf: (manifest) => OBJECT_BYTES + manifest.bytes.length },
      bus,
    ),
    blobs: new ScopedCache<StoredBlob>(
      { ...common, name: "blobs", maxBytes: share(0.4), sizeOf: (blob) => OBJECT_BYTES + (blob.bytes?.length ?? 0) },
      bus,
    ),
  };
}
