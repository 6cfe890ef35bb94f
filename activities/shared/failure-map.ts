/**
 * The one place where failures of the domains become failures of Temporal. Failures end up in histories, where everybody with access to the
 * Temporal UI reads them: they carry the catalogue's code and message and a short detail, while the cause goes to the log alone.
 */
import { ApplicationFailure, CancelledFailure, TemporalFailure } from "@temporalio/common";
import { ERROR_CATALOGUE, isSlipwayError } from "../../src/core/errors.ts";
import type { SlipwayError } from "../../src/core/errors.ts";

const MESSAGE_LIMIT = 500;
const DETAIL_LIMIT = 1_024;
/** A registry may ask for hours; longer waits are the run's decision. */
const MAX_RETRY_DELAY_SECONDS = 3_600;

export function toActivityFailure(error: unknown, cancellation?: AbortSignal): TemporalFailure {
  // Whatever an aborted activity throws, it was the abort: the reason tells a stop by a person from a worker that shuts down.
  if (cancellation?.aborted && isAbort(error)) return asCancelled(cancellation.reason);
  if (error instanceof TemporalFailure) return error;
  if (isSlipwayError(error)) return fromSlipwayError(error);
  return ApplicationFailure.create({
    type: "INTERNAL",
    message: `${ERROR_CATALOGUE.INTERNAL.message} (${nameOf(error)})`,
    // A bug or a lost race: trying again is bounded by the activity's own budget.
    nonRetryable: false,
  });
}

function fromSlipwayError(error: SlipwayError): ApplicationFailure {
  const seconds = error.retryAfterSeconds;
  const detail = shortDetail(error.detail);
  return ApplicationFailure.create({
    type: error.code,
    message: error.message.slice(0, MESSAGE_LIMIT),
    nonRetryable: !error.retryable,
    ...(detail === undefined ? {} : { details: [detail] }),
    ...(error.retryable && seconds !== undefined ? { nextRetryDelay: Math.min(seconds, MAX_RETRY_DELAY_SECONDS) * 1_000 } : {}),
  });
}

function isAbort(error: unknown): boolean {
  if (error instanceof CancelledFailure || isSlipwayError(error, "CANCELLED")) return true;
  return error instanceof Error && (error.name === "AbortError" || error.name === "CancelledFailure");
}

function asCancelled(reason: unknown): CancelledFailure {
  return reason instanceof CancelledFailure ? reason : new CancelledFailure("the activity was cancelled");
}

function shortDetail(detail: unknown): unknown {
  if (detail === undefined || detail === null) return undefined;
  const text = JSON.stringify(detail);
  return text === undefined || text.length > DETAIL_LIMIT ? undefined : detail;
}

/** Class and code of an error, which hold no secrets; its text might. */
function nameOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  const code = (error as { code?: unknown }).code;
  return typeof code === "string" && /^[A-Z0-9_]{1,40}$/.test(code) ? `${error.name} ${code}` : error.name;
}
