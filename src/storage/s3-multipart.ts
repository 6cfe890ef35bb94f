/** Multipart uploads: parts come in order, and an upload is complete, gone, or still open for whoever continues it. */
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  ListPartsCommand,
  UploadPartCommand,
  UploadPartCopyCommand,
} from "@aws-sdk/client-s3";
import type { S3Bucket } from "./s3-bucket.ts";
import type { ByteRange } from "./blob-store.ts";
import { isMissing, isRefusedCondition, isReset, s3Status } from "./s3-errors.ts";

/** S3 refuses smaller parts, except as the last one. */
export const S3_MIN_PART = 5 * 1024 * 1024;

export interface S3Part {
  readonly number: number;
  readonly etag: string;
  readonly size: number;
}

export interface S3Upload {
  readonly key: string;
  readonly uploadId: string;
}

export interface PendingUpload extends S3Upload {
  readonly startedAt: number;
}

export async function createUpload(bucket: S3Bucket, key: string, signal?: AbortSignal): Promise<S3Upload> {
  const command = new CreateMultipartUploadCommand({ Bucket: bucket.name, Key: bucket.key(key) });
  const created = await bucket.call(
    async (options) => {
      const { UploadId } = await bucket.client.send(command, options);
      if (UploadId === undefined) throw new Error("the answer has no upload id");
      return UploadId;
    },
    { signal },
  );
  return { key, uploadId: created };
}

/** Null when the upload is gone: completed or aborted by another. */
export async function uploadPart(bucket: S3Bucket, upload: S3Upload, number: number, bytes: Uint8Array): Promise<S3Part | null> {
  const command = new UploadPartCommand({
    Bucket: bucket.name,
    Key: bucket.key(upload.key),
    UploadId: upload.uploadId,
    PartNumber: number,
    Body: bytes,
    ContentLength: bytes.byteLength,
  });
  try {
    return await bucket.call<S3Part | null>(
      async (options) => ({ number, etag: (await bucket.client.send(command, options)).ETag ?? "", size: bytes.byteLength }),
      { absorb: (error) => (isMissing(error) ? null : undefined) },
    );
  } catch (error) {
    // A service may refuse a part of an upload that is gone and close before it read the bytes: then only the reset arrives here.
    if (isReset(error) && (await listParts(bucket, upload).catch(() => [])) === null) return null;
    throw error;
  }
}

export interface CopyPiece {
  readonly from: string;
  readonly range: ByteRange;
}

export async function copyPart(bucket: S3Bucket, upload: S3Upload, number: number, piece: CopyPiece): Promise<S3Part> {
  const command = new UploadPartCopyCommand({
    Bucket: bucket.name,
    Key: bucket.key(upload.key),
    UploadId: upload.uploadId,
    PartNumber: number,
    CopySource: bucket.copySource(piece.from),
    CopySourceRange: `bytes=${piece.range.start}-${piece.range.end}`,
  });
  const size = piece.range.end - piece.range.start + 1;
  return await bucket.call(
    async (options) => ({ number, etag: (await bucket.client.send(command, options)).CopyPartResult?.ETag ?? "", size }),
    { answerMs: bucket.limits.copyAnswerMs },
  );
}

/** False when the upload is gone, or its parts are not those any more. A repeated request whose first answer was lost looks like that too. */
export async function completeUpload(bucket: S3Bucket, upload: S3Upload, parts: readonly S3Part[]): Promise<boolean> {
  const command = new CompleteMultipartUploadCommand({
    Bucket: bucket.name,
    Key: bucket.key(upload.key),
    UploadId: upload.uploadId,
    MultipartUpload: { Parts: parts.map((part) => ({ PartNumber: part.number, ETag: part.etag })) },
  });
  return await bucket.call<boolean>(
    async (options) => {
      await bucket.client.send(command, options);
      return true;
    },
    {
      answerMs: bucket.limits.copyAnswerMs,
      absorb: (error) => (isMissing(error) || isRefusedCondition(error) || s3Status(error) === 400 ? false : undefined),
    },
  );
}

export async function abortUpload(bucket: S3Bucket, upload: S3Upload): Promise<void> {
  const command = new AbortMultipartUploadCommand({ Bucket: bucket.name, Key: bucket.key(upload.key), UploadId: upload.uploadId });
  await bucket.call<unknown>((options) => bucket.client.send(command, options), {
    absorb: (error) => (isMissing(error) ? null : undefined),
  });
}

/** The parts from the first on without a gap; null when the upload is gone. */
export async function listParts(bucket: S3Bucket, upload: S3Upload, signal?: AbortSignal): Promise<S3Part[] | null> {
  const parts: S3Part[] = [];
  let marker: string | undefined;
  do {
    const command = new ListPartsCommand({
      Bucket: bucket.name,
      Key: bucket.key(upload.key),
      UploadId: upload.uploadId,
      ...(marker === undefined ? {} : { PartNumberMarker: marker }),
    });
    const page = await bucket.call((options) => bucket.client.send(command, options), {
      signal,
      absorb: (error) => (isMissing(error) ? { $metadata: {}, UploadId: "" } : undefined),
    });
    if (page.UploadId === "") return null;
    for (const part of page.Parts ?? []) parts.push({ number: part.PartNumber ?? 0, etag: part.ETag ?? "", size: part.Size ?? 0 });
    marker = page.IsTruncated ? page.NextPartNumberMarker : undefined;
  } while (marker !== undefined);
  const gap = parts.findIndex((part, index) => part.number !== index + 1);
  return gap < 0 ? parts : parts.slice(0, gap);
}

export async function* listUploads(bucket: S3Bucket, prefix: string, signal?: AbortSignal): AsyncGenerator<PendingUpload> {
  let keyMarker: string | undefined;
  let uploadMarker: string | undefined;
  do {
    const command = new ListMultipartUploadsCommand({
      Bucket: bucket.name,
      Prefix: bucket.key(prefix),
      ...(keyMarker === undefined ? {} : { KeyMarker: keyMarker }),
      ...(uploadMarker === undefined ? {} : { UploadIdMarker: uploadMarker }),
    });
    const page = await bucket.call((options) => bucket.client.send(command, options), { signal });
    for (const upload of page.Uploads ?? []) {
      if (upload.Key === undefined || upload.UploadId === undefined) continue;
      yield { key: bucket.relative(upload.Key), uploadId: upload.UploadId, startedAt: upload.Initiated?.getTime() ?? 0 };
    }
    keyMarker = page.IsTruncated ? page.NextKeyMarker : undefined;
    uploadMarker = page.IsTruncated ? page.NextUploadIdMarker : undefined;
  } while (keyMarker !== undefined);
}
