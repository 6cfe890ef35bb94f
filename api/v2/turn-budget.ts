/**
 * Fairness of the event loop: at most so many bytes are handed to the kernel in one turn of the event loop. A hundred transfers that begin together would otherwise
 * fill their send buffers in a row while every other request waits.
 */
export class TurnBudget {
  readonly #bytesPerTurn: number;
  readonly #waiting: { bytes: number; resume: () => void }[] = [];
  #used = 0;
  #scheduled = false;

  constructor(bytesPerTurn: number) {
    this.#bytesPerTurn = bytesPerTurn;
  }

  /** True when the bytes may go now. */
  tryTake(bytes: number): boolean {
    this.#schedule();
    if (this.#waiting.length > 0 || this.#used >= this.#bytesPerTurn) return false;
    this.#used += bytes;
    return true;
  }

  wait(bytes: number): Promise<void> {
    return new Promise((resume) => {
      this.#waiting.push({ bytes, resume });
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#nextTurn());
  }

  #nextTurn(): void {
    this.#scheduled = false;
    this.#used = 0;
    let count = 0;
    for (const entry of this.#waiting) {
      if (this.#used >= this.#bytesPerTurn) break;
      this.#used += entry.bytes;
      count += 1;
      entry.resume();
    }
    this.#waiting.splice(0, count);
    if (this.#waiting.length > 0) this.#schedule();
  }
}
