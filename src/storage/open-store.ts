/** The one place that knows which drivers there are. */
import type { BlobStore } from "./blob-store.ts";
import { FsBlobStore } from "./fs-store.ts";
import { S3BlobStore } from "./s3-store.ts";
import type { StorageConfig } from "./storage-config.ts";

/** Makes the folders of a local store. Does not touch S3: a service that is away for the moment must not keep the program from starting. */
export async function openBlobStore(config: StorageConfig): Promise<BlobStore> {
  return config.driver === "fs" ? await FsBlobStore.open(config.root) : S3BlobStore.open(config);
}
