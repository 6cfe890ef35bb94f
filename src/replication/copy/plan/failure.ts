/** What a failure means for an item: to be tried again and when, to be given up, or nothing that is the item's fault. Pure. */
import { isSlipwayError, toSlipwayError } from "../../../core/errors.ts";
import type { ErrorCode, SlipwayError } from "../../../core/errors.ts";
import type { ItemReason } from "../../plan/item.ts";

export type Side = "source" | "target";

export type Judgement =
  | { readonly kind: "again"; readonly reason: "limited" | "unavailable"; readonly message: string; readonly retryAfterMs: number | null }
  | { readonly kind: "failed"; readonly reason: ItemReason; readonly message: string }
  | { readonly kind: "skipped"; readonly reason: ItemReason; readonly message: string };

/** Carries which registry it was, since both answer with the same codes. */
export class SideError extends Error {
  override readonly name = "SideError";
  readonly side: Side;
  readonly host: string;
  readonly error: SlipwayError;
  /** What was being written when it is a manifest with a tag: a refusal then is about the tag. */
  readonly writesTag: boolean;

  constructor(at: { side: Side; host: string; writesTag?: boolean }, error: SlipwayError) {
    super(error.message, { cause: error });
    this.side = at.side;
    this.host = at.host;
    this.writesTag = at.writesTag ?? false;
    this.error = error;
  }
}

const REASON_BY_CODE: Partial<Readonly<Record<ErrorCode, ItemReason>>> = {
  UPSTREAM_REFUSED: "refused",
  UPSTREAM_FORBIDDEN_ADDRESS: "refused",
  DENIED: "refused",
  UNAUTHORIZED: "refused",
  FORBIDDEN: "refused",
  NAME_INVALID: "refused",
  PAYLOAD_TOO_LARGE: "refused",
  MANIFEST_INVALID: "unsupported-manifest",
  UNSUPPORTED: "failed",
  DIGEST_INVALID: "digest-mismatch",
  DIGEST_MISMATCH: "digest-mismatch",
  SIZE_INVALID: "digest-mismatch",
};

/** Codes by which registries say that a tag may not be moved; none is in the specification. */
const IMMUTABLE_CODES: ReadonlySet<string> = new Set([
  "TAG_INVALID",
  "TAG_IMMUTABLE",
  "TAG_ALREADY_EXISTS",
  "IMAGE_TAG_ALREADY_EXISTS",
  "PRECONDITION",
  "MANIFEST_TAG_IMMUTABLE",
]);

/** Errors of our own database or the end of the work: not about an item. */
export function isOurs(error: unknown): boolean {
  return isSlipwayError(unwrap(error), "CANCELLED", "DATABASE_UNAVAILABLE");
}

export function unwrap(error: unknown): SlipwayError {
  return error instanceof SideError ? error.error : toSlipwayError(error);
}

export function judge(failure: unknown): Judgement {
  const error = unwrap(failure);
  const side = failure instanceof SideError ? failure.side : null;
  const where = failure instanceof SideError ? `the ${failure.side} ${failure.host}: ` : "";
  const message = `${where}${error.message}${describe(error)}`;
  if (side === "source" && (error.code === "MANIFEST_UNKNOWN" || error.code === "NAME_UNKNOWN")) {
    return { kind: "skipped", reason: "gone-at-source", message: `${where}listed, but gone when it was read` };
  }
  if (failure instanceof SideError && failure.writesTag && isImmutable(error)) {
    return { kind: "failed", reason: "immutable", message: `${where}the tag may not be moved there${describe(error)}` };
  }
  if (error.code === "UPSTREAM_LIMITED" || error.code === "TOOMANYREQUESTS") return again("limited", error, message);
  const known = REASON_BY_CODE[error.code];
  if (known) return { kind: "failed", reason: known, message };
  if (error.retryable) return again("unavailable", error, message);
  return { kind: "failed", reason: "failed", message };
}

function again(reason: "limited" | "unavailable", error: SlipwayError, message: string): Judgement {
  const { retryAfterSeconds: seconds } = error;
  return { kind: "again", reason, message, retryAfterMs: seconds === undefined ? null : seconds * 1000 };
}

export function isImmutable(error: SlipwayError): boolean {
  if (error.code === "CONFLICT" || error.code === "PRECONDITION_FAILED") return true;
  const { code } = detailOf(error);
  return (error.code === "BAD_REQUEST" || error.code === "UPSTREAM_REFUSED") && code !== undefined && IMMUTABLE_CODES.has(code);
}

interface Detail {
  readonly status?: number;
  readonly code?: string;
  readonly breaker?: string;
}

function detailOf(error: SlipwayError): Detail {
  const { detail } = error;
  return typeof detail === "object" && detail !== null ? (detail as Detail) : {};
}

function describe(error: SlipwayError): string {
  const { status, code } = detailOf(error);
  const parts = [typeof status === "number" ? `status ${status}` : "", typeof code === "string" ? code : ""].filter((part) => part !== "");
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`;
}

/** Worth another try at once, in the same batch, after a short pause; null when it is not. */
export function quickRetryMs(failure: unknown, attempt: number): number | null {
  const error = unwrap(failure);
  if (attempt >= QUICK_ATTEMPTS || !error.retryable) return null;
  const wait = (error.retryAfterSeconds ?? 0) * 1000;
  if (wait > QUICK_WAIT_MS || detailOf(error).breaker === "open") return null;
  return Math.max(wait, QUICK_BASE_MS * 2 ** (attempt - 1));
}

const QUICK_ATTEMPTS = 3;
const QUICK_WAIT_MS = 3_000;
const QUICK_BASE_MS = 200;
