/** Turns what goes wrong with a call into codes of the catalogue. Texts name the host at most: never a query, a header or a body. */
import { SlipwayError } from "../core/errors.ts";
import type { ErrorCode } from "../core/errors.ts";
import type { UpstreamRequest } from "./request.ts";

/** What a failure says about the host. */
export type Verdict = "timeout" | "unreachable" | "cut" | "ours";

export interface TransportFailure {
  readonly verdict: Verdict;
  readonly connectTimeout: boolean;
  readonly error: SlipwayError;
}

const TIMEOUT_CODES: ReadonlySet<string> = new Set([
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
  "ANSWER_TIMEOUT",
  "BODY_TIMEOUT",
  "ETIMEDOUT",
]);
const CUT_CODES: ReadonlySet<string> = new Set([
  "UND_ERR_SOCKET",
  "CUT_SHORT",
  "ECONNRESET",
  "EPIPE",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
  "UND_ERR_RESPONSE",
]);

function codesOf(error: unknown): string[] {
  if (!(error instanceof Error)) return [];
  const code = "code" in error && typeof error.code === "string" ? [error.code] : [];
  const inner = error instanceof AggregateError ? error.errors.flatMap(codesOf) : codesOf(error.cause);
  return [...code, ...inner];
}

function findOwn(error: unknown): SlipwayError | null {
  if (error instanceof SlipwayError) return error;
  if (error instanceof AggregateError) return error.errors.map(findOwn).find((found) => found !== null) ?? null;
  return error instanceof Error && error.cause !== undefined ? findOwn(error.cause) : null;
}

export function transportFailure(error: unknown, host: string, signal?: AbortSignal): TransportFailure {
  if (signal?.aborted) return { verdict: "ours", connectTimeout: false, error: new SlipwayError("CANCELLED", { cause: signal.reason }) };
  const own = findOwn(error);
  if (own) return { verdict: "ours", connectTimeout: false, error: own };
  const codes = codesOf(error);
  const detail = { host, reason: codes[0] ?? "UNKNOWN" };
  if (codes.some((code) => TIMEOUT_CODES.has(code))) {
    return {
      verdict: "timeout",
      connectTimeout: codes.some((code) => code === "UND_ERR_CONNECT_TIMEOUT" || code === "ETIMEDOUT"),
      error: new SlipwayError("UPSTREAM_TIMEOUT", { detail, cause: error }),
    };
  }
  if (codes.some((code) => code.startsWith("HPE_") || code === "MALFORMED_ANSWER")) {
    return { verdict: "cut", connectTimeout: false, error: new SlipwayError("UPSTREAM_INVALID", { detail, cause: error }) };
  }
  const verdict = codes.some((code) => CUT_CODES.has(code)) ? "cut" : "unreachable";
  return { verdict, connectTimeout: false, error: new SlipwayError("UPSTREAM_UNREACHABLE", { detail, cause: error }) };
}

/** Codes of a registry's error document that mean the same to our clients. */
const KNOWN_CODES: ReadonlySet<string> = new Set<ErrorCode>([
  "BLOB_UPLOAD_INVALID",
  "BLOB_UPLOAD_UNKNOWN",
  "DIGEST_INVALID",
  "MANIFEST_BLOB_UNKNOWN",
  "MANIFEST_INVALID",
  "NAME_INVALID",
  "SIZE_INVALID",
  "UNSUPPORTED",
]);

const CODE_BY_STATUS: Readonly<Record<number, ErrorCode>> = {
  405: "UNSUPPORTED",
  408: "UPSTREAM_TIMEOUT",
  409: "CONFLICT",
  412: "PRECONDITION_FAILED",
  413: "PAYLOAD_TOO_LARGE",
  414: "URI_TOO_LONG",
  416: "RANGE_INVALID",
  429: "UPSTREAM_LIMITED",
  501: "UNSUPPORTED",
};

/** The first code of an error document, when it looks like one; anything else may be text that holds a secret. */
export function readErrorCode(body: Buffer): string | null {
  try {
    const document: unknown = JSON.parse(body.toString("utf8"));
    if (typeof document !== "object" || document === null || !("errors" in document) || !Array.isArray(document.errors)) return null;
    const first: unknown = document.errors[0];
    if (typeof first !== "object" || first === null || !("code" in first) || typeof first.code !== "string") return null;
    return /^[A-Z][A-Z0-9_]{1,63}$/.test(first.code) ? first.code : null;
  } catch {
    return null;
  }
}

export interface StatusFailure {
  readonly status: number;
  readonly host: string;
  readonly upstreamCode: string | null;
  readonly retryAfterMs: number | null;
  /** 401 and 403 of this host hide what is not there. */
  readonly absentOrDenied: boolean;
}

export function statusError(request: Pick<UpstreamRequest, "absent" | "method">, failure: StatusFailure): SlipwayError {
  const { status, upstreamCode } = failure;
  const detail = { host: failure.host, status, ...(upstreamCode ? { code: upstreamCode } : {}) };
  const seconds = failure.retryAfterMs === null ? undefined : Math.max(1, Math.ceil(failure.retryAfterMs / 1000));
  const options = seconds === undefined ? { detail } : { detail, retryAfterSeconds: seconds };
  if (status === 404) {
    // Distribution says that a manifest's parts are missing, or that an upload is gone, with a 404.
    const writing = request.method !== "GET" && request.method !== "HEAD";
    const told = upstreamCode !== null && (upstreamCode === "BLOB_UPLOAD_UNKNOWN" || (writing && KNOWN_CODES.has(upstreamCode)));
    return new SlipwayError(told ? (upstreamCode as ErrorCode) : request.absent, options);
  }
  if (status === 401 || status === 403) {
    return new SlipwayError(failure.absentOrDenied ? request.absent : "UPSTREAM_REFUSED", options);
  }
  // A document that says so matters more than the status around it, except where the status is about load.
  if (status >= 400 && status < 500 && status !== 429 && upstreamCode && KNOWN_CODES.has(upstreamCode)) {
    return new SlipwayError(upstreamCode as ErrorCode, options);
  }
  const known = CODE_BY_STATUS[status];
  if (known) return new SlipwayError(known, options);
  if (status >= 500) return new SlipwayError("UPSTREAM_UNAVAILABLE", options);
  return new SlipwayError(
    request.method === "GET" || request.method === "HEAD" || status < 400 ? "UPSTREAM_INVALID" : "BAD_REQUEST",
    options,
  );
}

/** Worth asking the next URL of the same upstream; a refusal or an absence is an answer and never is. */
export function mayFailOver(error: SlipwayError): boolean {
  switch (error.code) {
    case "UPSTREAM_UNREACHABLE":
    case "UPSTREAM_TIMEOUT":
    case "UPSTREAM_UNAVAILABLE":
    case "UPSTREAM_INVALID":
    case "UPSTREAM_LIMITED":
    case "DIGEST_MISMATCH":
      return true;
    default:
      return false;
  }
}
