/** What is to be done about one artifact at one destination. */

/** `keep`: the destination has other content, which the policy does not let us replace. */
export type Verdict = "copy" | "unchanged" | "keep";

export interface Sight {
  /** Digest at the source; null when nobody asked, because it does not matter. */
  readonly source: string | null;
  readonly target:
    | { readonly there: false }
    /** Null: there, and what it is could not be told. */
    | { readonly there: true; readonly digest: string | null };
}

export function judge({ source, target }: Sight, override: boolean): Verdict {
  if (!target.there) return "copy";
  if (source !== null && source === target.digest) return "unchanged";
  // The copier asks the destination itself where we could not.
  if (target.digest === null || source === null) return "copy";
  return override ? "copy" : "keep";
}

/** What was seen at a destination is believed for a day. */
export const KNOWN_FOR_MS = 24 * 3_600_000;

export function isFresh(verifiedAt: Date, now: number): boolean {
  return now - verifiedAt.getTime() < KNOWN_FOR_MS;
}
