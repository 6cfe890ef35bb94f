/** Which bytes of a blob a range asks for, decided alike for both drivers. */
import { SlipwayError } from "../core/errors.ts";
import type { ByteRange } from "./blob-store.ts";

/** First byte and the one behind the last. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

export function spanOf(range: ByteRange | undefined, size: number): Span {
  if (!range) return { start: 0, end: size };
  const { start, end } = range;
  const sound = Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start <= end && start < size;
  if (!sound) throw new SlipwayError("RANGE_INVALID");
  return { start, end: Math.min(end + 1, size) };
}
