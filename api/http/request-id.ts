/** One id for each request, found in the answer, the log and the body of a server error. */
import { randomBytes } from "node:crypto";
import type { IncomingMessage } from "node:http";

const ACCEPTED = /^[A-Za-z0-9._-]{1,64}$/;
const prefix = randomBytes(5).toString("hex");
let counter = 0;

/** Unique over processes by the prefix, cheap by the counter. */
export function nextRequestId(): string {
  counter += 1;
  return `${prefix}-${counter.toString(36)}`;
}

/** Takes over the id that a proxy in front has given, when it is harmless in logs and headers. */
export function requestIdOf(req: IncomingMessage): string {
  const given = req.headers["x-request-id"];
  return typeof given === "string" && ACCEPTED.test(given) ? given : nextRequestId();
}
