/** The one place that knows which drivers there are. */
import type { BlobStore } from "./blob-store.ts";
import { FsBlobStore } from "./fs-store.ts";
import type { StorageConfig } from "./storage-config.ts";

/** Makes the folders of a local store. Does not touch S3: a service that is away for the moment must not keep the program from starting. */
export async function openBlobStore(config: StorageConfig): Promise<BlobStore> {
  if (config.driver === "fs") return await FsBlobStore.open(config.root);
  // The SDK costs some 30 MB of memory, which a process without S3 need not pay.
  const { S3BlobStore } = await import("./s3-store.ts");
  return S3BlobStore.open(config);
}
