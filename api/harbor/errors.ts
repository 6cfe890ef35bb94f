/** The error envelope of the Harbor API, in one place. */
import type { ErrorRequestHandler, Response } from "express";
import { toSlipwayError } from "../../src/core/errors.ts";
import type { SlipwayError } from "../../src/core/errors.ts";
import { fromBodyParser } from "../http/body-errors.ts";

/** Harbor's code for each status; what a client sees of ours is the nearest of them. */
const CODES: Readonly<Record<number, string>> = {
  400: "BAD_REQUEST",
  401: "UNAUTHORIZED",
  403: "FORBIDDEN",
  404: "NOT_FOUND",
  405: "METHOD_NOT_ALLOWED",
  409: "CONFLICT",
  412: "PRECONDITION",
  413: "REQUEST_ENTITY_TOO_LARGE",
  422: "UNPROCESSABLE_ENTITY",
  429: "TOO_MANY_REQUEST",
};
/** Codes of ours that Harbor knows by the same name, at the same status. */
const SAME: ReadonlySet<string> = new Set(["DIGEST_INVALID", "MANIFEST_INVALID", "DENIED"]);

export const answerHarborError: ErrorRequestHandler = (thrown, _request, response, next) => {
  if (response.headersSent) {
    next(thrown);
    return;
  }
  const error = toSlipwayError(fromBodyParser(thrown));
  if (error.status >= 500) response.locals["error"] = thrown;
  if (error.retryAfterSeconds !== undefined) response.set("Retry-After", String(error.retryAfterSeconds));
  // Browsers would ask for a password in a window of their own: no challenge here.
  sendErrors(response, error.status, describe(error, response));
};

function describe(error: SlipwayError, response: Response): object {
  if (error.status >= 500) {
    // Reads go on without the workflow service, so callers should know that it is what is away.
    const message = error.code === "TEMPORAL_UNAVAILABLE" ? error.message : "internal server error";
    return { code: "UNKNOWN", message, detail: { requestId: response.locals["requestId"] } };
  }
  return { code: SAME.has(error.code) ? error.code : (CODES[error.status] ?? "BAD_REQUEST"), message: error.message };
}

function sendErrors(response: Response, status: number, error: object): void {
  const body = `${JSON.stringify({ errors: [error] })}\n`;
  response.status(status).type("application/json").send(body);
}
