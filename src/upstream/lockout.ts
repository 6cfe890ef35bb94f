/** A credential that was refused is not tried again at once: services lock accounts after a few wrong passwords. */
import { LRUCache } from "lru-cache";
import { SlipwayError } from "../core/errors.ts";
import type { Clock } from "../core/clock.ts";

const BASE_MS = 30_000;
const CAP_MS = 600_000;

export class Lockout {
  readonly #clock: Clock;
  readonly #refused = new LRUCache<string, { count: number; until: number }>({ max: 1000 });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  check(key: string): void {
    const entry = this.#refused.get(key);
    const left = entry ? entry.until - this.#clock.now() : 0;
    if (left <= 0) return;
    throw new SlipwayError("UPSTREAM_REFUSED", { detail: { reason: "CREDENTIAL" }, retryAfterSeconds: Math.ceil(left / 1000) });
  }

  refused(key: string): void {
    const count = (this.#refused.get(key)?.count ?? 0) + 1;
    this.#refused.set(key, { count, until: this.#clock.now() + Math.min(CAP_MS, BASE_MS * 2 ** (count - 1)) });
  }

  accepted(key: string): void {
    this.#refused.delete(key);
  }
}
