/**
 * Writes down and hashes what fills bring, in threads of their own: that costs more than receiving and sending it, and the thread that serves
 * clients has neither to do. Bytes go over in shared memory; they must not change before the order is carried out.
 */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { SlipwayError } from "../../core/errors.ts";
import type { HashName, Order, Outcome } from "./scribe-thread.ts";

/** With so much to do, another thread is begun if there may be one. */
const BUSY_BYTES = 4 * 1024 * 1024;
const MAX_THREADS = 4;

export interface Piece {
  readonly position: number;
  readonly bytes: Uint8Array;
  /** Null when it is hashed later, from the file. */
  readonly hash: HashName | null;
}

interface Waiting {
  readonly bytes: number;
  readonly done: (outcome: string | number | Error) => void;
}

/** One thread, which carries out its orders one after the other. */
export class Scribe {
  readonly #thread: Worker;
  readonly #waiting: Waiting[] = [];
  #orders: Order[] = [];
  #hashes = 0;
  #broken: SlipwayError | null = null;
  pendingBytes = 0;

  constructor() {
    this.#thread = new Worker(new URL("./scribe-thread.ts", import.meta.url), { name: "scribe" });
    this.#thread.unref();
    this.#thread.on("message", (outcomes: readonly Outcome[]) => {
      for (const outcome of outcomes) this.#settle(outcome);
    });
    this.#thread.once("error", (cause) => this.#break(cause));
    this.#thread.once("exit", () => this.#break(null));
  }

  get isBroken(): boolean {
    return this.#broken !== null;
  }

  beginHash(algorithm: string): HashName {
    this.#hashes += 1;
    return { id: this.#hashes, algorithm };
  }

  /** All of it. */
  write(fd: number, { position, bytes, hash }: Piece, done: (error: Error | null) => void): void {
    this.#order({ kind: "write", fd, position, bytes, hash }, bytes.length, (outcome) => done(outcome instanceof Error ? outcome : null));
  }

  /** How much of it there was. */
  hashFile(fd: number, part: { readonly position: number; readonly length: number }, hash: HashName): Promise<number> {
    return this.#ask<number>({ kind: "hash-file", fd, ...part, hash }, part.length);
  }

  /** Over everything that was ordered so far. */
  digest(hash: HashName): Promise<string> {
    return this.#ask<string>({ kind: "digest", hash }, 0);
  }

  forget(hash: HashName): void {
    this.#order({ kind: "forget", hash }, 0, () => undefined);
  }

  async close(): Promise<void> {
    this.#broken ??= new SlipwayError("DRAINING");
    await this.#thread.terminate();
  }

  #ask<Answer extends string | number>(order: Order, bytes: number): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#order(order, bytes, (outcome) => (outcome instanceof Error ? reject(outcome) : resolve(outcome as Answer)));
    });
  }

  #order(order: Order, bytes: number, done: Waiting["done"]): void {
    if (this.#broken) return done(this.#broken);
    this.#waiting.push({ bytes, done });
    this.pendingBytes += bytes;
    this.#orders.push(order);
    // Those of a turn together: what costs is the message.
    if (this.#orders.length === 1) setImmediate(() => this.#handOver());
  }

  #handOver(): void {
    const orders = this.#orders;
    this.#orders = [];
    this.#thread.postMessage(orders);
  }

  #settle(outcome: Outcome): void {
    const waiting = this.#waiting.shift();
    if (!waiting) return;
    this.pendingBytes -= waiting.bytes;
    waiting.done(
      typeof outcome === "object" ? Object.assign(new Error(outcome.message), { code: outcome.code, errno: outcome.errno }) : outcome,
    );
  }

  /** Its hashes are lost with it: nothing that began here can go on. */
  #break(cause: unknown): void {
    this.#broken ??= new SlipwayError("STORAGE_UNAVAILABLE", { message: "the thread that writes fetched blobs has ended", cause });
    for (const { done } of this.#waiting.splice(0)) done(this.#broken);
    this.pendingBytes = 0;
  }
}

/** As many as the load needs and the machine has use for. */
export class Scribes {
  readonly #max: number;
  #scribes: Scribe[] = [];

  constructor(max = Math.min(MAX_THREADS, Math.max(1, availableParallelism() - 1))) {
    this.#max = max;
  }

  /** For one fill, from its beginning to its end. */
  pick(): Scribe {
    this.#scribes = this.#scribes.filter(({ isBroken }) => !isBroken);
    const calmest = this.#scribes.toSorted((a, b) => a.pendingBytes - b.pendingBytes)[0];
    if (calmest && (calmest.pendingBytes < BUSY_BYTES || this.#scribes.length >= this.#max)) return calmest;
    const scribe = new Scribe();
    this.#scribes.push(scribe);
    return scribe;
  }

  async close(): Promise<void> {
    const scribes = this.#scribes;
    this.#scribes = [];
    await Promise.all(scribes.map((scribe) => scribe.close()));
  }
}
