/** The one place where the error catalogue meets the envelope of the distribution specification, with its fourteen codes. */
import { isSlipwayError, toSlipwayError } from "../../src/core/errors.ts";
import type { ErrorCode, SlipwayError } from "../../src/core/errors.ts";
import type { Exchange } from "./exchange.ts";

export type OciErrorCode =
  | "BLOB_UNKNOWN"
  | "BLOB_UPLOAD_INVALID"
  | "BLOB_UPLOAD_UNKNOWN"
  | "DIGEST_INVALID"
  | "MANIFEST_BLOB_UNKNOWN"
  | "MANIFEST_INVALID"
  | "MANIFEST_UNKNOWN"
  | "NAME_INVALID"
  | "NAME_UNKNOWN"
  | "SIZE_INVALID"
  | "UNAUTHORIZED"
  | "DENIED"
  | "UNSUPPORTED"
  | "TOOMANYREQUESTS";

/** "Try again later" has one code in the specification, whatever the reason; the status and the message tell more. */
const OCI_CODE: Readonly<Record<ErrorCode, OciErrorCode>> = {
  BLOB_UNKNOWN: "BLOB_UNKNOWN",
  BLOB_UPLOAD_INVALID: "BLOB_UPLOAD_INVALID",
  BLOB_UPLOAD_UNKNOWN: "BLOB_UPLOAD_UNKNOWN",
  DIGEST_INVALID: "DIGEST_INVALID",
  MANIFEST_BLOB_UNKNOWN: "MANIFEST_BLOB_UNKNOWN",
  MANIFEST_INVALID: "MANIFEST_INVALID",
  MANIFEST_UNKNOWN: "MANIFEST_UNKNOWN",
  NAME_INVALID: "NAME_INVALID",
  NAME_UNKNOWN: "NAME_UNKNOWN",
  SIZE_INVALID: "SIZE_INVALID",
  UNAUTHORIZED: "UNAUTHORIZED",
  DENIED: "DENIED",
  UNSUPPORTED: "UNSUPPORTED",
  TOOMANYREQUESTS: "TOOMANYREQUESTS",
  BAD_REQUEST: "UNSUPPORTED",
  NOT_FOUND: "NAME_UNKNOWN",
  FORBIDDEN: "DENIED",
  CONFLICT: "BLOB_UPLOAD_INVALID",
  PRECONDITION_FAILED: "MANIFEST_INVALID",
  UNPROCESSABLE: "MANIFEST_INVALID",
  PAYLOAD_TOO_LARGE: "SIZE_INVALID",
  URI_TOO_LONG: "NAME_INVALID",
  RANGE_INVALID: "BLOB_UPLOAD_INVALID",
  DATABASE_UNAVAILABLE: "TOOMANYREQUESTS",
  STORAGE_UNAVAILABLE: "TOOMANYREQUESTS",
  STORAGE_FULL: "DENIED",
  KV_UNAVAILABLE: "TOOMANYREQUESTS",
  TEMPORAL_UNAVAILABLE: "TOOMANYREQUESTS",
  OVERLOADED: "TOOMANYREQUESTS",
  DRAINING: "TOOMANYREQUESTS",
  UPSTREAM_UNREACHABLE: "TOOMANYREQUESTS",
  UPSTREAM_INVALID: "UNSUPPORTED",
  UPSTREAM_REFUSED: "UNSUPPORTED",
  UPSTREAM_FORBIDDEN_ADDRESS: "UNSUPPORTED",
  UPSTREAM_UNAVAILABLE: "TOOMANYREQUESTS",
  UPSTREAM_TIMEOUT: "TOOMANYREQUESTS",
  UPSTREAM_LIMITED: "TOOMANYREQUESTS",
  CONFIG_INVALID: "UNSUPPORTED",
  DIGEST_MISMATCH: "DIGEST_INVALID",
  CANCELLED: "UNSUPPORTED",
  INTERNAL: "UNSUPPORTED",
};

const DEFAULT_RETRY_AFTER_SECONDS = 5;

export function ociCodeOf(code: ErrorCode): OciErrorCode {
  return OCI_CODE[code];
}

/** Headers that an error needs beside the envelope, such as Content-Range; kept with the error until it is answered. */
const extraHeaders = new WeakMap<SlipwayError, readonly string[]>();

export function withHeaders(error: SlipwayError, headers: readonly string[]): SlipwayError {
  extraHeaders.set(error, [...(extraHeaders.get(error) ?? []), ...headers]);
  return error;
}

export function sendError(exchange: Exchange, thrown: unknown): void {
  const error = toSlipwayError(thrown);
  const { req, res } = exchange;
  const clientGone = res.destroyed || req.socket.destroyed;
  if (error.status >= 500 && !(clientGone && isSlipwayError(error, "CANCELLED"))) exchange.error = thrown;
  // The head is out: only a broken connection tells the client that the content is not complete.
  if (clientGone || res.headersSent) {
    res.destroy();
    return;
  }
  const headers = [...(extraHeaders.get(error) ?? [])];
  const retryAfter = error.retryAfterSeconds ?? (error.retryable ? DEFAULT_RETRY_AFTER_SECONDS : undefined);
  if (retryAfter !== undefined) headers.push("Retry-After", String(Math.max(1, Math.ceil(retryAfter))));
  const detail = error.status >= 500 ? { requestId: exchange.requestId } : error.detail;
  const entry = { code: ociCodeOf(error.code), message: error.message, ...(detail === undefined ? {} : { detail }) };
  exchange.sendJson(error.status, headers, { errors: [entry] });
}
