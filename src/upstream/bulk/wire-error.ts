/** What goes wrong on a line; the connection is of no use any more. `code` is for the classification of failures. */
export function wireError(code: "ANSWER_TIMEOUT" | "BODY_TIMEOUT" | "CUT_SHORT" | "MALFORMED_ANSWER", message: string): Error {
  return Object.assign(new Error(message), { code });
}

/** The other side does not speak HTTP as it should. */
export function malformed(message: string): Error {
  return wireError("MALFORMED_ANSWER", message);
}
