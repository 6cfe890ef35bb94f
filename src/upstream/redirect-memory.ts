/**
 * Where a blob's bytes really are, for as long as the signed address lives: the ranges and resumptions of one blob need not ask the
 * registry each time. Belongs to one endpoint with one credential.
 */
import { LRUCache } from "lru-cache";

const DEFAULT_LIFE_MS = 60_000;
const MARGIN_MS = 30_000;
const MAX_LIFE_MS = 15 * 60_000;

function signedLifeMs(url: URL, now: number): number | null {
  const seconds = url.searchParams.get("X-Amz-Expires") ?? url.searchParams.get("X-Goog-Expires");
  if (seconds && /^\d{1,8}$/.test(seconds)) return Number(seconds) * 1000;
  const at = url.searchParams.get("Expires") ?? url.searchParams.get("expires");
  if (at && /^\d{9,11}$/.test(at)) return Number(at) * 1000 - now;
  return null;
}

export class RedirectMemory {
  readonly #known = new LRUCache<string, { url: string; via: string }>({ max: 1000 });

  note(key: string, place: { readonly url: URL; readonly via: string }, now: number): void {
    const signed = signedLifeMs(place.url, now);
    const life = signed === null ? DEFAULT_LIFE_MS : Math.min(signed - MARGIN_MS, MAX_LIFE_MS);
    if (life > 0) this.#known.set(key, { url: place.url.href, via: place.via }, { ttl: life });
  }

  find(key: string): { readonly url: string; readonly via: string } | null {
    return this.#known.get(key) ?? null;
  }

  forget(key: string): void {
    this.#known.delete(key);
  }
}
