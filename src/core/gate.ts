/** A bounded number of places, given out in order of arrival. Waiting has a bound and a deadline of its own where the owner says so. */
import { isSlipwayError, SlipwayError } from "./errors.ts";

export interface GateOptions {
  readonly places: number;
  /** How many may wait; who comes then is refused at once. Absent: any number, which needs a deadline. */
  readonly maxWaiting?: number;
  /** How long one may wait. Absent: until the caller's signal. */
  readonly waitMs?: number;
  /** What the refused are told. */
  readonly refusal: { readonly message?: string; readonly retryAfterSeconds: number };
}

export class Gate {
  readonly #options: GateOptions;
  readonly #waiting = new Set<() => void>();
  #free: number;
  #refused = 0;

  constructor(options: GateOptions) {
    this.#options = options;
    this.#free = options.places;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  get refused(): number {
    return this.#refused;
  }

  /** Runs the work when there is a place; who is aborted while waiting never runs. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const leave = await this.enter(signal);
    try {
      return await work();
    } finally {
      leave();
    }
  }

  /** Resolves with the function that gives the place back. */
  async enter(signal?: AbortSignal): Promise<() => void> {
    if (signal?.aborted) throw reasonOf(signal);
    if (this.#free > 0) this.#free -= 1;
    else await this.#turn(signal);
    let isHeld = true;
    return () => {
      if (isHeld) this.#leave();
      isHeld = false;
    };
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    const { maxWaiting, waitMs } = this.#options;
    if (maxWaiting !== undefined && this.#waiting.size >= maxWaiting) return Promise.reject(this.#refuse());
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        this.#waiting.delete(onPlace);
      };
      const onPlace = (): void => {
        stop();
        resolve();
      };
      const onAbort = (): void => {
        stop();
        reject(reasonOf(signal));
      };
      const onLate = (): void => {
        stop();
        reject(this.#refuse());
      };
      const timer = waitMs === undefined ? undefined : setTimeout(onLate, waitMs);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiting.add(onPlace);
    });
  }

  /** The place passes on from hand to hand, so that nobody steps in between. */
  #leave(): void {
    const [next] = this.#waiting;
    if (next) next();
    else this.#free += 1;
  }

  #refuse(): SlipwayError {
    this.#refused += 1;
    return new SlipwayError("OVERLOADED", this.#options.refusal);
  }
}

function reasonOf(signal: AbortSignal | undefined): SlipwayError {
  const reason: unknown = signal?.reason;
  return isSlipwayError(reason) ? reason : new SlipwayError("CANCELLED", { cause: reason });
}
