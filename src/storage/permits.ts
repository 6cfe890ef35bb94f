/** A bounded number of places, given out in order of arrival; waiting has a deadline. */
import { SlipwayError } from "../core/errors.ts";
import { abortReason, throwIfAborted } from "./append-source.ts";

export class Permits {
  readonly #waitMs: number;
  readonly #waiting = new Set<() => void>();
  #free: number;

  constructor(places: number, waitMs: number) {
    this.#free = places;
    this.#waitMs = waitMs;
  }

  /** Resolves with the function that gives the place back. */
  async acquire(signal?: AbortSignal): Promise<() => void> {
    throwIfAborted(signal);
    if (this.#free > 0) this.#free -= 1;
    else await this.#wait(signal);
    let held = true;
    return () => {
      if (held) this.#release();
      held = false;
    };
  }

  #wait(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        this.#waiting.delete(onPlace);
      };
      const onPlace = (): void => {
        leave();
        resolve();
      };
      const onAbort = (): void => {
        leave();
        reject(signal ? abortReason(signal) : undefined);
      };
      const timer = setTimeout(() => {
        leave();
        reject(new SlipwayError("OVERLOADED", { message: "too many uploads are running", retryAfterSeconds: 5 }));
      }, this.#waitMs);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiting.add(onPlace);
    });
  }

  #release(): void {
    const [next] = this.#waiting;
    if (next) next();
    else this.#free += 1;
  }
}
