/** What express's body parsers throw, as errors of the catalogue. */
import { SlipwayError } from "../../src/core/errors.ts";

export function fromBodyParser(thrown: unknown): unknown {
  const status = thrown instanceof Error ? (thrown as { status?: unknown }).status : undefined;
  if (thrown instanceof SlipwayError || typeof status !== "number" || status < 400 || status > 499) return thrown;
  return status === 413
    ? new SlipwayError("PAYLOAD_TOO_LARGE", { cause: thrown })
    : new SlipwayError("BAD_REQUEST", { message: "the request body cannot be read", cause: thrown });
}
