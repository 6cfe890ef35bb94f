/**
 * The one catalogue of errors. A code decides status, message and whether trying again can help; each API maps the code to its own
 * envelope in one place, and nobody ever branches on message text. docs/errors.md is compared with this table by a test.
 */
export interface ErrorSpec {
  readonly status: number;
  readonly message: string;
  readonly retryable: boolean;
}

function spec(status: number, message: string, retryable = false): ErrorSpec {
  return { status, message, retryable };
}

export const ERROR_CATALOGUE = {
  // The fourteen codes of the OCI distribution specification.
  BLOB_UNKNOWN: spec(404, "blob unknown to registry"),
  BLOB_UPLOAD_INVALID: spec(400, "blob upload invalid"),
  BLOB_UPLOAD_UNKNOWN: spec(404, "blob upload unknown to registry"),
  DIGEST_INVALID: spec(400, "provided digest did not match uploaded content"),
  MANIFEST_BLOB_UNKNOWN: spec(400, "manifest references a manifest or blob unknown to registry"),
  MANIFEST_INVALID: spec(400, "manifest invalid"),
  MANIFEST_UNKNOWN: spec(404, "manifest unknown to registry"),
  NAME_INVALID: spec(400, "invalid repository name"),
  NAME_UNKNOWN: spec(404, "repository name not known to registry"),
  SIZE_INVALID: spec(400, "provided length did not match content length"),
  UNAUTHORIZED: spec(401, "authentication required"),
  DENIED: spec(403, "requested access to the resource is denied"),
  UNSUPPORTED: spec(405, "the operation is unsupported"),
  TOOMANYREQUESTS: spec(429, "too many requests", true),

  // Requests.
  BAD_REQUEST: spec(400, "bad request"),
  NOT_FOUND: spec(404, "not found"),
  FORBIDDEN: spec(403, "forbidden"),
  CONFLICT: spec(409, "conflict"),
  PRECONDITION_FAILED: spec(412, "precondition failed"),
  UNPROCESSABLE: spec(422, "unprocessable entity"),
  PAYLOAD_TOO_LARGE: spec(413, "content is larger than the limit"),
  URI_TOO_LONG: spec(414, "request target is longer than the limit"),
  RANGE_INVALID: spec(416, "requested range not satisfiable"),

  // Parts of Slipway that are away for the moment.
  DATABASE_UNAVAILABLE: spec(503, "the database is not available", true),
  STORAGE_UNAVAILABLE: spec(503, "blob storage is not available", true),
  STORAGE_FULL: spec(507, "blob storage has no space left", true),
  KV_UNAVAILABLE: spec(503, "the key-value service is not available", true),
  TEMPORAL_UNAVAILABLE: spec(503, "the workflow service is not available", true),
  OVERLOADED: spec(503, "too much work is waiting", true),
  DRAINING: spec(503, "this process is shutting down", true),

  // Other registries.
  UPSTREAM_UNREACHABLE: spec(502, "the upstream registry could not be reached", true),
  UPSTREAM_INVALID: spec(502, "the upstream registry sent an answer that is not valid", true),
  UPSTREAM_REFUSED: spec(502, "the upstream registry refused our credential"),
  UPSTREAM_FORBIDDEN_ADDRESS: spec(502, "the upstream registry named an address that is not allowed"),
  UPSTREAM_UNAVAILABLE: spec(503, "the upstream registry is not available", true),
  UPSTREAM_TIMEOUT: spec(504, "the upstream registry did not answer in time", true),
  UPSTREAM_LIMITED: spec(429, "the upstream registry limits our requests", true),

  // Start and inside.
  CONFIG_INVALID: spec(500, "the configuration is not valid"),
  DIGEST_MISMATCH: spec(502, "content does not have the digest that was asked for", true),
  CANCELLED: spec(499, "the request was cancelled"),
  INTERNAL: spec(500, "internal error"),
} as const satisfies Record<string, ErrorSpec>;

export type ErrorCode = keyof typeof ERROR_CATALOGUE;

export interface ErrorOptions {
  /** Replaces the message of the catalogue; never holds a secret. */
  readonly message?: string;
  /** Machine-readable detail, sent to clients. */
  readonly detail?: unknown;
  readonly cause?: unknown;
  readonly retryAfterSeconds?: number;
}

export class SlipwayError extends Error {
  override readonly name = "SlipwayError";
  readonly code: ErrorCode;
  readonly status: number;
  readonly retryable: boolean;
  readonly detail: unknown;
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ErrorCode, options: ErrorOptions = {}) {
    const entry: ErrorSpec = ERROR_CATALOGUE[code];
    super(options.message ?? entry.message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.status = entry.status;
    this.retryable = entry.retryable;
    this.detail = options.detail;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}

export function isSlipwayError(error: unknown, ...codes: readonly ErrorCode[]): error is SlipwayError {
  return error instanceof SlipwayError && (codes.length === 0 || codes.includes(error.code));
}

/** What is not ours becomes INTERNAL with the cause kept for the log. */
export function toSlipwayError(error: unknown): SlipwayError {
  if (error instanceof SlipwayError) return error;
  return new SlipwayError("INTERNAL", { cause: error });
}
