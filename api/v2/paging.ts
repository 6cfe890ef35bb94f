/** Page parameters and the Link header, alike for tags, catalog and referrers. */
import { SlipwayError } from "../../src/core/errors.ts";
import { LIMITS } from "../../src/core/limits.ts";
import type { Exchange } from "./exchange.ts";

export interface PageRequest {
  readonly limit: number;
  readonly last: string | null;
}

/** `n` above the largest page is cut down; a Link then leads on. */
export function pageRequest(exchange: Exchange, largest: number = LIMITS.pageSize): PageRequest {
  const n = exchange.parameter("n");
  const last = exchange.parameter("last");
  if (n === null) return { limit: largest, last };
  if (!/^\d{1,15}$/.test(n)) throw new SlipwayError("BAD_REQUEST", { message: "the parameter n is not a number", detail: { n } });
  return { limit: Math.min(Number(n), largest), last };
}

/** Relative, as registries behind any number of proxies must be. Parameters of the request are carried along. */
export function nextLink(path: string, exchange: Exchange, next: { limit: number; last: string | null }): string[] {
  if (next.last === null || next.limit === 0) return [];
  const query = new URLSearchParams();
  for (const name of ["artifactType", "ns"]) {
    const value = exchange.parameter(name);
    if (value !== null) query.set(name, value);
  }
  query.set("n", String(next.limit));
  query.set("last", next.last);
  return ["Link", `<${path}?${query.toString()}>; rel="next"`];
}
