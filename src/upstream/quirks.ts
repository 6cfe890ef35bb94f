/** What was learnt about a host's gaps, for a while and for a bounded number of hosts. */
import { LRUCache } from "lru-cache";

export const QUIRKS = {
  /** HEAD of a manifest is answered 404 or 405 although GET works, or without a digest. */
  headUnsupported: 3_600_000,
  /** HEAD and GET agreed on a 404, so HEAD can be believed. */
  headReliable: 3_600_000,
  referrersUnsupported: 300_000,
  referrersSupported: 3_600_000,
  rangeIgnored: 3_600_000,
} as const;

export type Quirk = keyof typeof QUIRKS;

export class Quirks {
  readonly #known = new LRUCache<string, true>({ max: 5000 });

  note(origin: string, quirk: Quirk): void {
    this.#known.set(`${quirk} ${origin}`, true, { ttl: QUIRKS[quirk] });
  }

  has(origin: string, quirk: Quirk): boolean {
    return this.#known.has(`${quirk} ${origin}`);
  }
}
