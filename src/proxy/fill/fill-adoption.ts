/** A verified file becomes a blob, with a link for each repository whose right to it was proved. */
import type { BlobWriter } from "../../catalog/blob-writer.ts";
import { SlipwayError } from "../../core/errors.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import type { Logger } from "../../telemetry/logger.ts";

interface Adopted {
  readonly digest: string;
  readonly size: number;
  readonly path: string;
}

export async function adoptFor(
  targets: ReadonlyMap<string, { projectId: number; repository: string }>,
  { digest, size, path }: Adopted,
  { writer, store, logger }: { writer: BlobWriter; store: BlobStore; logger: Logger },
): Promise<void> {
  let isMoved = false;
  // The file can be moved once; a second round, after a repository went away in between, finds the blob in its place.
  const promote = async (signal?: AbortSignal): Promise<void> => {
    if (isMoved && (await store.stat(digest, signal))?.size === size) return;
    await store.adoptFile(path, { digest, size }, signal);
    isMoved = true;
  };
  let linked = 0;
  let failure: unknown = new SlipwayError("INTERNAL");
  // Targets that come while this runs are seen by the iteration.
  for (const target of targets.values()) {
    try {
      await writer.storeAndLink(target, { digest, size, promote });
      linked += 1;
    } catch (error) {
      failure = error;
      logger.warn({ digest, repository: target.repository, error }, "a fetched blob could not be linked");
    }
  }
  if (linked === 0) throw failure;
}
