/** Turns what the S3 SDK throws into the catalogue: full, cancelled by us, or away. */
import { S3ServiceException } from "@aws-sdk/client-s3";
import { SlipwayError } from "../core/errors.ts";
import { abortReason } from "./append-source.ts";

/** What services that have an end answer when they reach it. */
const FULL_NAMES: ReadonlySet<string> = new Set([
  "InsufficientStorage",
  "QuotaExceeded",
  "XMinioStorageFull",
  "XMinioAdminBucketQuotaExceeded",
]);

export function s3Status(error: unknown): number | null {
  return error instanceof S3ServiceException ? (error.$metadata.httpStatusCode ?? null) : null;
}

/** 404 of an object or of a multipart upload; a missing bucket is trouble, not absence. */
export function isMissing(error: unknown): boolean {
  return s3Status(error) === 404 && !(error instanceof S3ServiceException && error.name === "NoSuchBucket");
}

/** The condition does not hold, or another conditional write is under way. */
export function isRefusedCondition(error: unknown): boolean {
  const status = s3Status(error);
  return status === 412 || status === 409;
}

/** Of what `s3Error` made: the connection was closed while we were sending. */
export function isReset(error: unknown): boolean {
  const cause = error instanceof SlipwayError ? error.cause : null;
  return cause instanceof Error && "code" in cause && (cause.code === "ECONNRESET" || cause.code === "EPIPE");
}

export function s3Error(error: unknown, signal?: AbortSignal): unknown {
  if (error instanceof SlipwayError) return error;
  if (signal?.aborted) return abortReason(signal);
  if (error instanceof S3ServiceException && (FULL_NAMES.has(error.name) || s3Status(error) === 507)) {
    return new SlipwayError("STORAGE_FULL", { cause: error });
  }
  return new SlipwayError("STORAGE_UNAVAILABLE", { cause: error });
}
