/** The error envelope of the cache API, in one place. */
import type { ErrorRequestHandler } from "express";
import { toSlipwayError } from "../../src/core/errors.ts";
import { fromBodyParser } from "../http/body-errors.ts";

const CODES: Readonly<Record<number, string>> = {
  400: "BAD_REQUEST",
  401: "UNAUTHORIZED",
  403: "FORBIDDEN",
  404: "NOT_FOUND",
  405: "METHOD_NOT_ALLOWED",
  409: "CONFLICT",
  412: "PRECONDITION_FAILED",
  413: "PAYLOAD_TOO_LARGE",
  422: "BAD_REQUEST",
  429: "TOO_MANY_REQUESTS",
};

export const answerCacheError: ErrorRequestHandler = (thrown, _request, response, next) => {
  if (response.headersSent) {
    next(thrown);
    return;
  }
  const error = toSlipwayError(fromBodyParser(thrown));
  const { status } = error;
  if (status >= 500) response.locals["error"] = thrown;
  if (error.retryAfterSeconds !== undefined) response.set("Retry-After", String(error.retryAfterSeconds));
  const described =
    status >= 500
      ? { code: "INTERNAL_ERROR", message: "internal server error", detail: { requestId: response.locals["requestId"] } }
      : { code: CODES[status] ?? "BAD_REQUEST", message: status === 401 ? "Unauthorized" : error.message, detail: null };
  response.status(status).json({ errors: [described] });
};
