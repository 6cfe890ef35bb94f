/**
 * Heads before bodies. An image is asked for layer by layer at once, and the first bodies to come would use up the machine and the line before the other requests are
 * even answered. So each body stops once, after its first bytes, until those that were asked beside it have begun too, or a moment is over: all clients see their first
 * bytes early, and nothing is slower in the end.
 */

/** A body stops at most so long. */
const MAX_HOLD_MS = 20;
/** Who waits longer for a head is not waited for: it is the other side that is slow. */
const YOUNG_MS = 250;

interface Asked {
  readonly at: number;
}

interface Held {
  /** The requests that are waited for. */
  readonly before: Set<Asked>;
  readonly goOn: () => void;
  readonly timer: NodeJS.Timeout;
}

export class HeadsFirst {
  readonly #asked = new Set<Asked>();
  readonly #held = new Set<Held>();

  /** A request was sent; to be called back with its head, or without. */
  asked(): () => void {
    const asked = { at: performance.now() };
    this.#asked.add(asked);
    return () => {
      this.#asked.delete(asked);
      for (const held of this.#held) if (held.before.delete(asked) && held.before.size === 0) this.#release(held);
    };
  }

  /** Whether a body that has just begun should stop; it is told once when to go on. */
  hold(goOn: () => void): boolean {
    const oldest = performance.now() - YOUNG_MS;
    const before = new Set([...this.#asked].filter(({ at }) => at > oldest));
    if (before.size === 0) return false;
    const held: Held = { before, goOn, timer: setTimeout(() => this.#release(held), MAX_HOLD_MS) };
    this.#held.add(held);
    return true;
  }

  #release(held: Held): void {
    clearTimeout(held.timer);
    this.#held.delete(held);
    held.goOn();
  }
}
