/** Invalidation channels of several "processes" in one test. */
import type { Invalidations } from "../../src/auth/invalidations.ts";

export class TestBusHub {
  readonly #listeners = new Set<(scopes: readonly string[]) => void>();
  trusted = true;

  open(): Invalidations {
    return {
      publish: async (scopes) => {
        for (const listener of this.#listeners) listener(scopes);
      },
      trusted: () => this.trusted,
      subscribe: (listener) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
    };
  }
}
