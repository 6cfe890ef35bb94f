/** The Range header of a read. One range is honoured; several, other units and nonsense are ignored, as HTTP allows. */
export type RangeDecision =
  | { readonly kind: "full" }
  | { readonly kind: "range"; readonly start: number; readonly end: number }
  | { readonly kind: "unsatisfiable" };

const FULL: RangeDecision = { kind: "full" };
const UNSATISFIABLE: RangeDecision = { kind: "unsatisfiable" };
const SINGLE = /^bytes\s*=\s*(\d*)\s*-\s*(\d*)$/i;
/** No honest header is longer; beyond it nothing is looked at. */
const LONGEST_HEADER = 256;

/** Both ends of a range are inclusive. A backward range is unsatisfiable, since clients test for 416 there. */
export function parseRange(header: string | undefined, size: number): RangeDecision {
  if (header === undefined || header.length > LONGEST_HEADER) return FULL;
  const match = SINGLE.exec(header.trim());
  if (!match) return FULL;
  const [, first = "", last = ""] = match;
  if (first === "") return last === "" ? FULL : suffixRange(Number(last), size);
  const start = Number(first);
  // containerd asks for "0-" of every blob; an empty one has no byte to name and is sent whole.
  if (size === 0 && start === 0 && last === "") return FULL;
  const end = last === "" ? size - 1 : Math.min(Number(last), size - 1);
  if (start >= size || end < start) return UNSATISFIABLE;
  return { kind: "range", start, end };
}

function suffixRange(length: number, size: number): RangeDecision {
  if (length === 0 || size === 0) return UNSATISFIABLE;
  return { kind: "range", start: Math.max(0, size - length), end: size - 1 };
}
