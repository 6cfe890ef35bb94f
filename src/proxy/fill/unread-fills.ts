/**
 * What becomes of a fill that no client waits for any more: it goes on when enough of the blob is there, else it stops, and the next client goes on with what is
 * there. Only readers of this process are seen; those of others take a stopped fill over.
 */
import { SlipwayError } from "../../core/errors.ts";
import { Fill } from "./fill.ts";
import type { Growing } from "./growing.ts";

export interface UnreadPolicy {
  /** Of the blob, from which on it is fetched to the end; 0 always. */
  readonly finishFromPercent: number;
}

/** A client whose connection broke comes back within it. */
const GRACE_MS = 3_000;

export class UnreadFills {
  readonly #policy: UnreadPolicy;
  readonly #readers = new WeakMap<Fill, number>();
  readonly #wanted = new WeakSet<Fill>();
  readonly #stopped = new WeakSet<Fill>();

  constructor(policy: UnreadPolicy) {
    this.#policy = policy;
  }

  /** Fetched for another reason than a client: ahead of one, or for another host. */
  want(source: Growing): void {
    if (source instanceof Fill) this.#wanted.add(source);
  }

  wasStopped(source: Growing): boolean {
    return source instanceof Fill && this.#stopped.has(source);
  }

  /** The answer may never be read. */
  opened(source: Growing): void {
    if (source instanceof Fill && this.#policy.finishFromPercent > 0) this.#lookLater(source);
  }

  reading(source: Growing, bytes: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
    return source instanceof Fill && this.#policy.finishFromPercent > 0 ? this.#counted(source, bytes) : bytes;
  }

  async *#counted(source: Fill, bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    this.#count(source, 1);
    try {
      yield* bytes;
    } finally {
      this.#count(source, -1);
      this.#lookLater(source);
    }
  }

  #count(fill: Fill, change: number): void {
    this.#readers.set(fill, (this.#readers.get(fill) ?? 0) + change);
  }

  #lookLater(fill: Fill): void {
    setTimeout(() => this.#look(fill), GRACE_MS).unref();
  }

  #look(fill: Fill): void {
    if (fill.state !== "running" || this.#wanted.has(fill) || (this.#readers.get(fill) ?? 0) > 0) return;
    if (fill.size !== null && fill.stagedBytes * 100 >= fill.size * this.#policy.finishFromPercent) return;
    this.#stopped.add(fill);
    void fill.abandon(new SlipwayError("CANCELLED", { message: "no client waits for this blob" }));
  }
}
