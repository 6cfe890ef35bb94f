/** Retries of one host, as a share of its calls: when everything fails, retries must not double the load. */
export class RetryBudget {
  readonly #capacity: number;
  readonly #perCall: number;
  #tokens: number;

  constructor(options: { readonly capacity?: number; readonly perCall?: number } = {}) {
    this.#capacity = options.capacity ?? 20;
    this.#perCall = options.perCall ?? 0.1;
    this.#tokens = this.#capacity;
  }

  called(): void {
    this.#tokens = Math.min(this.#capacity, this.#tokens + this.#perCall);
  }

  take(): boolean {
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
