/** Range headers of requests and answers. */
import type { ByteRange } from "./types.ts";

export interface ContentRange {
  readonly start: number;
  readonly end: number;
  readonly total: number | null;
}

/** `bytes 0-99/200`; null for anything that cannot be relied on. */
export function parseContentRange(value: string | undefined): ContentRange | null {
  const match = /^\s*bytes\s+(\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)\s*$/i.exec(value ?? "");
  if (!match) return null;
  const start = Number(match[1]);
  const end = Number(match[2]);
  const total = match[3] === "*" ? null : Number(match[3]);
  if (end < start || (total !== null && end >= total)) return null;
  return { start, end, total };
}

/** The total of an unsatisfied range, `bytes` star slash `200`. */
export function parseUnsatisfiedTotal(value: string | undefined): number | null {
  const match = /^\s*bytes\s+\*\/(\d{1,15})\s*$/i.exec(value ?? "");
  return match ? Number(match[1]) : null;
}

export function formatRange(range: ByteRange): string {
  return `bytes=${range.start}-${range.end ?? ""}`;
}

/** The offset after what an upload holds: `0-99`, though some write a unit; null when it cannot be understood. */
export function parseUploadRange(value: string | undefined): number | null {
  const match = /^\s*(?:bytes[= ])?\s*(\d{1,15})-(\d{1,15})\s*$/i.exec(value ?? "");
  if (!match || Number(match[1]) !== 0) return null;
  const last = Number(match[2]);
  // "0-0" is what registries say of an empty upload as well as of one byte.
  return last === 0 ? 0 : last + 1;
}
