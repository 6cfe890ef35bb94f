/** A verified file becomes a blob, with a link for each repository whose right to it was proved. */
import type { BlobWriter } from "../../catalog/blob-writer.ts";
import type { StoredBlob } from "../../catalog/registry.ts";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { FillLeases, ProcessIdentity } from "./fill-lease.ts";
import { proveRight } from "./fill-request.ts";
import type { FillRequest } from "./fill-request.ts";

interface Adopted {
  readonly digest: string;
  readonly size: number;
  readonly path: string;
}

/** The number of targets that were looked at. */
export async function adoptFor(
  targets: ReadonlyMap<string, { projectId: number; repository: string }>,
  { digest, size, path }: Adopted,
  { writer, store, logger }: { writer: BlobWriter; store: BlobStore; logger: Logger },
): Promise<number> {
  let isMoved = false;
  // The file can be moved once; a second round, after a repository went away in between, finds the blob in its place.
  const promote = async (signal?: AbortSignal): Promise<void> => {
    if (isMoved && (await store.stat(digest, signal))?.size === size) return;
    await store.adoptFile(path, { digest, size }, signal);
    isMoved = true;
  };
  let linked = 0;
  let seen = 0;
  let failure: unknown = new SlipwayError("INTERNAL");
  // Targets that come while this runs are seen by the iteration.
  for (const target of targets.values()) {
    seen += 1;
    try {
      await writer.storeAndLink(target, { digest, size, promote });
      linked += 1;
    } catch (error) {
      failure = error;
      logger.warn({ digest, repository: target.repository, error }, "a fetched blob could not be linked");
    }
  }
  if (linked === 0) throw failure;
  return seen;
}

/** The bytes are here by another repository; the own upstream still has to have them. Null when they are not. */
export async function linkIfStored(
  request: FillRequest,
  options: {
    readonly writer: BlobWriter;
    readonly store: BlobStore;
    readonly leases: FillLeases;
    readonly self: ProcessIdentity;
    readonly findLinked: (repository: string, digest: string) => Promise<{ size: number } | null>;
  },
): Promise<StoredBlob | null> {
  const { digest, repository } = request;
  const stat = await options.store.stat(digest);
  if (!stat) return null;
  const linked = await options.findLinked(repository, digest);
  if (linked) return { digest, size: linked.size, bytes: null };
  // Its own fetch is about to link it: following that costs upstream nothing.
  const owner = await options.leases.findOwner(digest);
  if (owner?.repository === repository && owner.bootId !== options.self.bootId) return null;
  await proveRight(request, stat.size);
  return (await options.writer.linkStored(request, digest, null)) ?? (await adoptStored(request, { digest, size: stat.size }, options));
}

/** Bytes that no row tells of, as after a lost database: what is in its place in storage was verified before it came there. Null when they are gone. */
async function adoptStored(
  target: { projectId: number; repository: string },
  { digest, size }: Omit<Adopted, "path">,
  { writer, store }: { writer: BlobWriter; store: BlobStore },
): Promise<StoredBlob | null> {
  const promote = async (signal?: AbortSignal): Promise<void> => {
    if ((await store.stat(digest, signal))?.size !== size) throw new SlipwayError("BLOB_UNKNOWN", { detail: { digest } });
  };
  try {
    return await writer.storeAndLink(target, { digest, size, promote });
  } catch (error) {
    if (isSlipwayError(error, "BLOB_UNKNOWN")) return null;
    throw error;
  }
}
