/** What a fill has received and not yet written: bounded, so that a slow disk slows the fetch and not the memory's growth. The first failure is kept for whoever waits. */

export class WriteBacklog {
  readonly #limit: number;
  /** Whether those who share the disk have too much, too. */
  readonly #isCrowded: () => boolean;
  #open = 0;
  #bytes = 0;
  #failure: { readonly error: unknown } | null = null;
  #waiters: (() => void)[] = [];

  constructor(limit: number, isCrowded: () => boolean = () => false) {
    this.#limit = limit;
    this.#isCrowded = isCrowded;
  }

  begin(bytes: number): void {
    this.#open += 1;
    this.#bytes += bytes;
  }

  end(bytes: number, error: unknown): void {
    this.#open -= 1;
    this.#bytes -= bytes;
    if (error !== null) this.#failure ??= { error };
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  hasRoom(): boolean {
    this.#throwFailure();
    return this.#open === 0 || (this.#bytes < this.#limit && !this.#isCrowded());
  }

  async room(): Promise<void> {
    while (!this.hasRoom()) await this.#next();
  }

  /** Waits for all of it. */
  async drain(): Promise<void> {
    await this.settled();
    this.#throwFailure();
  }

  /** Waits for all of it, however it ends. */
  async settled(): Promise<void> {
    while (this.#open > 0) await this.#next();
  }

  #next(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error;
  }
}
