/** The Content-Range of an upload chunk: `first-last`, inclusive, without a unit; the HTTP form with `bytes` is taken as well. */
export interface ContentRange {
  readonly start: number;
  readonly end: number;
  readonly length: number;
}

const PATTERN = /^(?:bytes[ =]\s*)?(\d{1,16})-(\d{1,16})(?:\/(?:\d{1,16}|\*))?$/i;

/** Null when malformed or backward. */
export function parseContentRange(header: string): ContentRange | null {
  const match = PATTERN.exec(header.trim());
  if (!match) return null;
  const start = Number(match[1]);
  const end = Number(match[2]);
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || end < start) return null;
  return { start, end, length: end - start + 1 };
}
