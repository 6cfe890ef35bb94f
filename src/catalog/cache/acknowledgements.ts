/** Who has yet to say that it dropped what was published, for every message on its way; none is waited for beyond the limit. */

export interface Wait {
  /** Number of the message. */
  readonly n: number;
  /** Resolves when all have answered or are gone, or the time is over. */
  readonly done: Promise<void>;
  /** The channel has taken the message. */
  sent(): void;
  /** Nobody need answer. */
  finish(): void;
}

interface Pending {
  /** Peers whose answer is missing; null until this process knows its peers. */
  waiting: Set<string> | null;
  readonly acked: Set<string>;
  sent: boolean;
  readonly finish: () => void;
}

export class Acknowledgements {
  readonly #limitMs: number;
  readonly #onLate: (missing: number) => void;
  readonly #pending = new Map<number, Pending>();
  #last = 0;

  constructor(limitMs: number, onLate: (missing: number) => void) {
    this.#limitMs = limitMs;
    this.#onLate = onLate;
  }

  /** The peers to wait for, or null when they are not known yet. */
  expect(peers: Iterable<string> | null): Wait {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last += 1;
    const n = this.#last;
    const timer = setTimeout(() => {
      this.#onLate(pending.waiting?.size ?? 1);
      pending.finish();
    }, this.#limitMs);
    const pending: Pending = {
      waiting: peers && new Set(peers),
      acked: new Set(),
      sent: false,
      finish: () => {
        clearTimeout(timer);
        this.#pending.delete(n);
        resolve();
      },
    };
    this.#pending.set(n, pending);
    return {
      n,
      done: promise,
      finish: pending.finish,
      sent: () => {
        pending.sent = true;
        settle(pending);
      },
    };
  }

  answer(peer: string, n: number): void {
    const pending = this.#pending.get(n);
    if (!pending) return;
    pending.acked.add(peer);
    pending.waiting?.delete(peer);
    settle(pending);
  }

  gone(peer: string): void {
    for (const pending of this.#pending.values()) {
      pending.waiting?.delete(peer);
      settle(pending);
    }
  }

  /** The peers are known now: what waited for that waits for those of them that have not answered. */
  know(peers: Iterable<string>): void {
    const all = [...peers];
    for (const pending of this.#pending.values()) {
      pending.waiting ??= new Set(all.filter((peer) => !pending.acked.has(peer)));
      settle(pending);
    }
  }

  finishAll(): void {
    for (const pending of this.#pending.values()) pending.finish();
  }
}

function settle(pending: Pending): void {
  if (pending.sent && pending.waiting?.size === 0) pending.finish();
}
