/** Retry-After in both forms, seconds and HTTP date. */

const MAX_SECONDS = 30 * 24 * 3600;

/** Milliseconds to wait, or null when the header is absent or senseless. */
export function parseRetryAfter(value: string | undefined, now: number): number | null {
  if (value === undefined) return null;
  const text = value.trim();
  if (/^\d+(\.\d+)?$/.test(text)) return Math.min(Math.ceil(Number(text) * 1000), MAX_SECONDS * 1000);
  // Date.parse alone would take "-5" and other short texts for dates.
  if (!/\d{2}:\d{2}:\d{2}/.test(text)) return null;
  const at = Date.parse(text);
  if (Number.isNaN(at)) return null;
  return Math.min(Math.max(0, at - now), MAX_SECONDS * 1000);
}
