/** The other side does not speak HTTP as it should; the connection is of no use any more. */
export function malformed(message: string): Error {
  return Object.assign(new Error(message), { code: "MALFORMED_ANSWER" });
}
