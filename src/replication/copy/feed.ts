/**
 * A stretch of a source stream on its way to a target: so many bytes and no more, at the allowed pace, with an eye on a target that stops taking
 * them. What the source has beyond the stretch stays in it for the next one.
 */
import { Readable } from "node:stream";
import { SlipwayError } from "../../core/errors.ts";
import type { Governor } from "./governor.ts";

export interface FeedOptions {
  readonly source: Readable;
  readonly size: number;
  readonly governor: Governor;
  readonly signal: AbortSignal;
  /** How long the other side may take nothing. */
  readonly stallMs: number;
}

export class Feed extends Readable {
  readonly #options: FeedOptions;
  readonly #onData = (chunk: Buffer): void => this.#take(chunk);
  readonly #onEnd = (): void => this.#ended();
  readonly #onError = (error: Error): void => void this.destroy(error);
  #left: number;
  #waits = false;
  #untaken: NodeJS.Timeout | null = null;

  constructor(options: FeedOptions) {
    super({ highWaterMark: 256 * 1024 });
    this.#options = options;
    this.#left = options.size;
    // It may fail before its reader begins to listen.
    this.on("error", () => undefined);
    const { source } = options;
    source.pause();
    source.on("data", this.#onData).once("end", this.#onEnd).once("error", this.#onError);
    source.pause();
    if (source.errored) this.destroy(source.errored);
    else if (this.#left === 0) this.#finish();
  }

  override _read(): void {
    this.#watch(false);
    if (!this.#waits) this.#options.source.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#watch(false);
    this.#detach();
    callback(error);
  }

  #take(chunk: Buffer): void {
    const { source, governor, signal } = this.#options;
    let bytes = chunk;
    if (chunk.length > this.#left) {
      source.pause();
      bytes = chunk.subarray(0, this.#left);
      source.unshift(chunk.subarray(this.#left));
    }
    this.#left -= bytes.length;
    const goesOn = this.push(bytes);
    if (this.#left === 0) return this.#finish();
    if (!goesOn) {
      source.pause();
      this.#watch(true);
    }
    const wait = governor.take(bytes.length, signal);
    if (wait === null) return;
    source.pause();
    this.#waits = true;
    void wait.then(() => {
      this.#waits = false;
      if (!this.destroyed && this.readableLength < this.readableHighWaterMark) source.resume();
    });
  }

  #ended(): void {
    // The source knows its length; less than that is its failure, which it reports itself where it can.
    this.destroy(new SlipwayError("UPSTREAM_INVALID", { message: "the source ended early" }));
  }

  #finish(): void {
    this.#watch(false);
    this.#detach();
    this.push(null);
  }

  #detach(): void {
    const { source } = this.#options;
    source.off("data", this.#onData).off("end", this.#onEnd).off("error", this.#onError);
    source.pause();
  }

  #watch(untaken: boolean): void {
    if (this.#untaken) clearTimeout(this.#untaken);
    this.#untaken = untaken
      ? setTimeout(
          () => this.destroy(new SlipwayError("UPSTREAM_TIMEOUT", { message: "the target stopped taking bytes" })),
          this.#options.stallMs,
        )
      : null;
  }
}
