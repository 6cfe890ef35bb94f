/** Bounds that are part of a contract or protect the process. Bounds that an operator may tune are in src/config. */
export const LIMITS = {
  /** Larger manifests are refused with 413; 4 MiB must work. */
  manifestBytes: 8 * 1024 * 1024,
  /** Manifests up to this size are kept in Postgres beside blob storage. */
  manifestInlineBytes: 256 * 1024,
  /** JSON nesting in a manifest. */
  manifestDepth: 64,
  repositoryNameLength: 255,
  tagsPerManifestPut: 64,
  pageSize: 1000,
  referrersPageSize: 100,
  /** Blobs up to this size are answered from memory. */
  smallBlobBytes: 64 * 1024,
  requestHeaderBytes: 32 * 1024,
  requestHeaderCount: 200,
} as const;
