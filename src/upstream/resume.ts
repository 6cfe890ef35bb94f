/**
 * A body that survives its connections: when one is cut, ends early or drips, the rest is asked for by Range. Whether the bytes are the
 * right ones is not decided here; whoever reads them compares the digest.
 */
import { Readable } from "node:stream";
import { backoffDelay } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import type { Clock } from "../core/clock.ts";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { StallWatchdog } from "./stall-watchdog.ts";
import type { StallLimits } from "./stall-watchdog.ts";

export interface BodySource {
  readonly body: Readable;
  /** Bytes to throw away first, when the other side began earlier than asked. */
  readonly skip: number;
}

/** Opens the blob at an offset; "complete" when nothing is left there. */
export type OpenAt = (offset: number, signal: AbortSignal) => Promise<BodySource | "complete">;

export interface ResumingBodyOptions {
  readonly first: BodySource;
  readonly openAt: OpenAt;
  readonly start: number;
  /** Offset after the last byte that is wanted; null when nobody said how long the blob is. */
  readonly end: number | null;
  readonly clock: Clock;
  readonly stall: StallLimits;
  readonly host: string;
  readonly onResume: (reason: "cut" | "stall") => void;
  readonly onBytes: (count: number) => void;
}

/** In a row without real progress, and in all. */
const MAX_FRUITLESS = 5;
const MAX_RESUMES = 100;
const PROGRESS_BYTES = 64 * 1024;
const BACKOFF = { baseMs: 100, capMs: 5000 };
const MAX_INLINE_WAIT_S = 30;

export class ResumingBody extends Readable {
  readonly #options: ResumingBodyOptions;
  readonly #watchdog: StallWatchdog;
  readonly #abort = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #source: Readable | null = null;
  #skip = 0;
  #offset: number;
  #resumedAt: number;
  #fruitless = 0;
  #resumes = 0;
  #wanted = false;

  constructor(options: ResumingBodyOptions) {
    super({ highWaterMark: 256 * 1024 });
    this.#options = options;
    this.#offset = options.start;
    this.#resumedAt = options.start;
    this.#watchdog = new StallWatchdog(options.stall);
    this.#timer = setInterval(() => this.#checkStall(), Math.max(50, options.stall.windowMs / 6));
    this.#timer.unref();
    // It may fail before its reader begins to listen; that must not end the process.
    this.on("error", () => undefined);
    this.#attach(options.first);
  }

  override _read(): void {
    this.#wanted = true;
    this.#watchdog.waiting(this.#options.clock.now());
    this.#source?.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    clearInterval(this.#timer);
    this.#detach();
    if (!this.readableEnded) this.#abort.abort(new SlipwayError("CANCELLED"));
    callback(error);
  }

  #attach(source: BodySource): void {
    const { body } = source;
    this.#source = body;
    this.#skip = source.skip;
    const current = (run: () => void) => (): void => {
      if (this.#source === body) run();
    };
    body.on("data", (chunk: Buffer) => current(() => this.#take(chunk))());
    body.once(
      "end",
      current(() => this.#ended()),
    );
    body.once("error", (error) => current(() => void this.#resume("cut", error))());
    body.once(
      "close",
      current(() => void this.#resume("cut", null)),
    );
    if (this.#wanted) this.#watchdog.waiting(this.#options.clock.now());
    else body.pause();
  }

  #detach(): void {
    const source = this.#source;
    this.#source = null;
    this.#watchdog.restart();
    // Its error is of no interest any more, but an unheard one would end the process.
    source?.on("error", () => undefined).destroy();
  }

  #take(chunk: Buffer): void {
    this.#watchdog.received(chunk.length);
    let bytes = chunk;
    if (this.#skip > 0) {
      const dropped = Math.min(this.#skip, bytes.length);
      this.#skip -= dropped;
      bytes = bytes.subarray(dropped);
    }
    const { end } = this.#options;
    if (end !== null && bytes.length > end - this.#offset) bytes = bytes.subarray(0, end - this.#offset);
    if (bytes.length > 0) {
      this.#offset += bytes.length;
      this.#options.onBytes(bytes.length);
      if (!this.push(bytes)) {
        this.#wanted = false;
        this.#watchdog.paused(this.#options.clock.now());
        this.#source?.pause();
      }
    }
    if (end !== null && this.#offset >= end && this.#skip === 0 && bytes.length < chunk.length) this.#finish();
  }

  #ended(): void {
    const { end } = this.#options;
    if (end === null || this.#offset >= end) this.#finish();
    else void this.#resume("cut", null);
  }

  #finish(): void {
    const source = this.#source;
    this.#source = null;
    clearInterval(this.#timer);
    // More than was wanted is still to come when a range was ignored.
    if (source && !source.readableEnded) source.on("error", () => undefined).destroy();
    this.push(null);
  }

  #checkStall(): void {
    if (!this.#source || !this.#watchdog.stalled(this.#options.clock.now())) return;
    void this.#resume("stall", null);
  }

  async #resume(reason: "cut" | "stall", cause: unknown): Promise<void> {
    this.#detach();
    const { end, host } = this.#options;
    if (end !== null && this.#offset >= end) return this.#finish();
    if (this.#offset - this.#resumedAt >= PROGRESS_BYTES) this.#fruitless = 0;
    this.#resumedAt = this.#offset;
    let last: unknown = cause;
    while (!this.destroyed) {
      this.#fruitless += 1;
      this.#resumes += 1;
      if (this.#fruitless > MAX_FRUITLESS || this.#resumes > MAX_RESUMES) {
        const detail = { host, reason: reason === "stall" ? "STALLED" : "CUT", offset: this.#offset };
        const code = reason === "stall" ? "UPSTREAM_TIMEOUT" : "UPSTREAM_UNREACHABLE";
        this.destroy(isSlipwayError(last) ? last : new SlipwayError(code, { detail, cause: last }));
        return;
      }
      try {
        if (this.#fruitless > 1) await sleep(backoffDelay(this.#fruitless - 1, BACKOFF), this.#abort.signal);
        this.#options.onResume(reason);
        const source = await this.#options.openAt(this.#offset, this.#abort.signal);
        if (source === "complete") return this.#complete();
        if (this.destroyed) source.body.on("error", () => undefined).destroy();
        else this.#attach(source);
        return;
      } catch (error) {
        last = error;
        if (this.destroyed || !(await this.#mayTryAgain(error))) return;
      }
    }
  }

  #complete(): void {
    const { end, host } = this.#options;
    if (end === null || this.#offset >= end) return this.#finish();
    // The registry says that the blob is shorter than it said before.
    this.destroy(new SlipwayError("UPSTREAM_INVALID", { detail: { host, reason: "SIZE", offset: this.#offset } }));
  }

  async #mayTryAgain(error: unknown): Promise<boolean> {
    const wait = isSlipwayError(error) ? (error.retryAfterSeconds ?? 0) : 0;
    if (isSlipwayError(error) && error.retryable && wait <= MAX_INLINE_WAIT_S) {
      await sleep(wait * 1000, this.#abort.signal).catch(() => undefined);
      return !this.destroyed;
    }
    this.destroy(isSlipwayError(error) ? error : new SlipwayError("UPSTREAM_UNREACHABLE", { cause: error }));
    return false;
  }
}
