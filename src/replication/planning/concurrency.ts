/** Bounded work at the same time. */

/** At most so many calls at once; the rest wait their turn. */
export class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(places: number) {
    this.#free = places;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }
}

/**
 * Takes the values in order, so many at a time, until `enough`; resolves with how many were begun, when all of these are done. The first failure
 * ends it, after those under way.
 */
export async function forEachOf<T>(
  values: readonly T[],
  options: { readonly width: number; readonly enough: () => boolean },
  work: (value: T) => Promise<void>,
): Promise<number> {
  let begun = 0;
  let failure: { readonly error: unknown } | null = null;
  const lane = async (): Promise<void> => {
    while (begun < values.length && failure === null && !options.enough()) {
      const value = values[begun] as T;
      begun += 1;
      try {
        await work(value);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.width, values.length) }, lane));
  const failed = failure as { readonly error: unknown } | null;
  if (failed) throw failed.error;
  return begun;
}
