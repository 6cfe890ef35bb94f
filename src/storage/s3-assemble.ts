/** Makes one object out of the segments of an upload, by copies inside the service. */
import { SlipwayError } from "../core/errors.ts";
import type { S3Bucket } from "./s3-bucket.ts";
import { abortUpload, completeUpload, type CopyPiece, copyPart, createUpload, type S3Part, type S3Upload } from "./s3-multipart.ts";
import type { S3Segment } from "./s3-session.ts";

export interface Assembly {
  readonly segments: readonly S3Segment[];
  readonly keyOf: (name: string) => string;
  readonly target: string;
}

export async function assemble(bucket: S3Bucket, assembly: Assembly, signal?: AbortSignal): Promise<void> {
  const { segments, keyOf, target } = assembly;
  const [first] = segments;
  if (!first) {
    await bucket.put(target, new Uint8Array(), {}, signal);
    return;
  }
  if (segments.length === 1 && first.size <= bucket.limits.copyBytes) {
    await bucket.copy(keyOf(first.name), target, signal);
    return;
  }
  const pieces = segments.flatMap((segment) => piecesOf(keyOf(segment.name), segment.size, bucket.limits.copyBytes));
  const upload = await createUpload(bucket, target, signal);
  try {
    const parts = await copyPieces(bucket, upload, pieces, signal);
    if (await completeUpload(bucket, upload, parts)) return;
    const size = segments.reduce((sum, segment) => sum + segment.size, 0);
    if ((await bucket.head(target))?.size !== size)
      throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "the storage service did not assemble the upload" });
  } catch (error) {
    await abortUpload(bucket, upload).catch(() => undefined);
    throw error;
  }
}

/** Of nearly the same size, so that none falls below the least size of a part. */
export function piecesOf(from: string, size: number, most: number): CopyPiece[] {
  const count = Math.ceil(size / most);
  const length = Math.ceil(size / count);
  return Array.from({ length: count }, (_, index) => ({
    from,
    range: { start: index * length, end: Math.min(size, (index + 1) * length) - 1 },
  }));
}

async function copyPieces(bucket: S3Bucket, upload: S3Upload, pieces: readonly CopyPiece[], signal?: AbortSignal): Promise<S3Part[]> {
  const parts: S3Part[] = [];
  const queue = pieces.entries();
  let failed = false;
  const work = async (): Promise<void> => {
    for (const [index, piece] of queue) {
      if (failed || signal?.aborted) return;
      try {
        parts[index] = await copyPart(bucket, upload, index + 1, piece);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: Math.min(bucket.limits.copyParallel, pieces.length) }, work));
  for (const end of ends) if (end.status === "rejected") throw end.reason;
  if (signal?.aborted) throw new SlipwayError("CANCELLED", { cause: signal.reason });
  return parts;
}
