/** Reading blobs: whole, in ranges, with resumption, and what HEAD would say where HEAD does not work. */
import type { Readable } from "node:stream";
import type { Clock } from "../core/clock.ts";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { formatRange, parseContentRange, parseUnsatisfiedTotal } from "./content-range.ts";
import type { Counters } from "./counters.ts";
import type { Exchange } from "./exchange.ts";
import { blobPath, isDigest, scopeOf } from "./names.ts";
import type { Quirks } from "./quirks.ts";
import type { RedirectMemory } from "./redirect-memory.ts";
import type { UpstreamAnswer, UpstreamRequest } from "./request.ts";
import { ResumingBody } from "./resume.ts";
import type { BodySource } from "./resume.ts";
import type { StallLimits } from "./stall-watchdog.ts";
import type { BlobAnswer, BlobHead, ByteRange, CallOptions } from "./types.ts";

export interface BlobReaderOptions {
  readonly exchange: Exchange;
  readonly places: RedirectMemory;
  readonly quirks: Quirks;
  readonly counters: Counters;
  readonly clock: Clock;
  readonly stall: StallLimits;
}

export interface GetBlobOptions extends CallOptions {
  readonly range?: ByteRange | undefined;
  /** From the descriptor: finds a body that ends early although the registry named no length. */
  readonly expectedSize?: number | undefined;
  /** Hands over the whole when it comes although its beginning was asked for. */
  readonly acceptWhole?: boolean | undefined;
}

interface Wanted {
  readonly repository: string;
  readonly digest: string;
  readonly call: CallOptions;
}

interface Opened {
  readonly answer: UpstreamAnswer;
  /** Offset of the first byte of the body. */
  readonly start: number;
  readonly size: number | null;
  readonly body: Readable;
}

export class BlobReader {
  readonly #options: BlobReaderOptions;

  constructor(options: BlobReaderOptions) {
    this.#options = options;
  }

  async get(repository: string, digest: string, options: GetBlobOptions = {}): Promise<BlobAnswer> {
    const { range, signal, expectedSize } = options;
    const wanted: Wanted = { repository, digest, call: options };
    const start = range?.start ?? 0;
    const opened = await this.#open(wanted, range);
    if (opened === "beyond") throw new SlipwayError("RANGE_INVALID");
    const size = opened.size ?? expectedSize ?? null;
    if (size !== null && expectedSize !== undefined && size !== expectedSize) {
      opened.body.destroy();
      throw new SlipwayError("UPSTREAM_INVALID", {
        detail: { host: opened.answer.url.host, reason: "SIZE", expected: expectedSize, size },
      });
    }
    if (size !== null && range && start >= size) {
      opened.body.destroy();
      throw new SlipwayError("RANGE_INVALID");
    }
    const isPart = opened.answer.status === 206;
    if (range?.end !== undefined && !isPart) this.#options.quirks.note(opened.answer.origin, "rangeIgnored");
    const takesWhole = options.acceptWhole === true && !isPart && start === 0;
    const end = range?.end === undefined || takesWhole ? size : Math.min(range.end + 1, size ?? Number.MAX_SAFE_INTEGER);
    const body = this.#resuming(wanted, opened, { start, end });
    if (signal) destroyOnAbort(body, signal);
    return {
      status: range ? 206 : 200,
      size,
      length: end === null ? null : end - start,
      start,
      rangeHonoured: opened.start === start,
      isPart,
      contentType: opened.answer.header("content-type") ?? null,
      body,
    };
  }

  async head(repository: string, digest: string, call: CallOptions = {}): Promise<BlobHead> {
    const request = this.#request({ repository, digest, call });
    try {
      const answer = await this.#options.exchange.collect(
        { ...request, kind: "blob-head", method: "HEAD", lane: "meta", pass: [405, 501] },
        0,
      );
      if (answer.status < 400) return { size: lengthOf(answer), digest: digestHeader(answer) };
    } catch (error) {
      // An address signed for GET refuses HEAD.
      if (!isSlipwayError(error, "UPSTREAM_UNAVAILABLE")) throw error;
    }
    const opened = await this.#open({ repository, digest, call }, { start: 0, end: 0 });
    if (opened === "beyond") return { size: 0, digest: null };
    opened.body.on("error", () => undefined).destroy();
    return { size: opened.size, digest: digestHeader(opened.answer) };
  }

  #resuming(wanted: Wanted, opened: Opened, bounds: { readonly start: number; readonly end: number | null }): ResumingBody {
    const { clock, stall, counters } = this.#options;
    return new ResumingBody({
      first: { body: opened.body, skip: bounds.start - opened.start },
      start: bounds.start,
      end: bounds.end,
      openAt: (offset, signal) => this.#reopen(wanted, { offset, end: bounds.end, size: opened.size, signal }),
      clock,
      stall,
      host: opened.answer.url.host,
      onResume: (reason) => {
        counters.resumes += 1;
        if (reason === "stall") counters.stalls += 1;
      },
      onBytes: (count) => {
        counters.bodyBytes += count;
      },
    });
  }

  async #reopen(
    wanted: Wanted,
    from: { readonly offset: number; readonly end: number | null; readonly size: number | null; readonly signal: AbortSignal },
  ): Promise<BodySource | "complete"> {
    const range = { start: from.offset, end: from.end === null ? undefined : from.end - 1 };
    const opened = await this.#open({ ...wanted, call: { ...wanted.call, signal: from.signal } }, range);
    if (opened === "beyond") return "complete";
    if (from.size !== null && opened.size !== null && opened.size !== from.size) {
      opened.body.on("error", () => undefined).destroy();
      throw new SlipwayError("UPSTREAM_INVALID", { detail: { host: opened.answer.url.host, reason: "SIZE" } });
    }
    return { body: opened.body, skip: from.offset - opened.start };
  }

  /** Goes straight to where the bytes were last time, and through the registry when that no longer works. */
  async #open(wanted: Wanted, range: ByteRange | undefined): Promise<Opened | "beyond"> {
    const { places, quirks } = this.#options;
    const key = `${wanted.repository}@${wanted.digest}`;
    if (wanted.call.elsewhere) places.forget(key);
    const place = range ? places.find(key) : null;
    if (place) {
      try {
        return await this.#ask({ ...this.#request(wanted), target: { url: place.url }, repeatable: false }, range);
      } catch (error) {
        if (isSlipwayError(error, "CANCELLED")) throw error;
        places.forget(key);
      }
    }
    const request = this.#request(wanted);
    const opened = await this.#ask(request, range);
    if (opened === "beyond") return opened;
    const { answer } = opened;
    if (answer.url.origin !== answer.origin) places.note(key, { url: answer.url, via: answer.origin }, this.#options.clock.now());
    if (range && range.start > 0 && opened.start === 0) quirks.note(answer.origin, "rangeIgnored");
    return opened;
  }

  async #ask(request: UpstreamRequest, range: ByteRange | undefined): Promise<Opened | "beyond"> {
    // A range that begins at 0 and has no end is the whole blob, and some places refuse a range where they serve the whole.
    const partial = range !== undefined && (range.start > 0 || range.end !== undefined);
    const headers = partial ? { range: formatRange(range) } : {};
    const answer = await this.#options.exchange.open({ ...request, headers, pass: [416] });
    const opened = interpret(answer, partial ? range : { start: 0 });
    if (opened !== "unusable") return opened;
    answer.body.on("error", () => undefined).destroy();
    if (!partial) throw invalid(answer, "ANSWER");
    // The range that came is not the one that was asked for: take the whole and skip.
    this.#options.quirks.note(answer.origin, "rangeIgnored");
    const whole = await this.#options.exchange.open({ ...request, pass: [416] });
    const second = interpret(whole, { start: 0 });
    if (second === "unusable" || second === "beyond") {
      whole.body.on("error", () => undefined).destroy();
      throw invalid(whole, "CONTENT_RANGE");
    }
    return second;
  }

  #request(wanted: Wanted): UpstreamRequest {
    const { repository, digest, call } = wanted;
    return {
      kind: "blob-get",
      method: "GET",
      target: { path: blobPath(repository, digest) },
      scopes: [scopeOf(repository, "pull")],
      lane: "bulk",
      absent: "BLOB_UNKNOWN",
      call,
      repeatable: true,
    };
  }
}

function interpret(answer: UpstreamAnswer, range: ByteRange): Opened | "beyond" | "unusable" {
  const { body } = answer;
  if (answer.status === 416) {
    body.on("error", () => undefined).resume();
    const total = parseUnsatisfiedTotal(answer.header("content-range"));
    return total === null || range.start >= total ? "beyond" : "unusable";
  }
  if (/^\s*text\/html\b/i.test(answer.header("content-type") ?? "")) return "unusable";
  if (answer.status === 200) return { answer, start: 0, size: lengthOf(answer), body };
  if (answer.status !== 206) return "unusable";
  const content = parseContentRange(answer.header("content-range"));
  // Bytes that begin after the wanted ones are no use; those that begin before can be skipped.
  if (!content || content.start > range.start) return "unusable";
  return { answer, start: content.start, size: content.total, body };
}

function invalid(answer: UpstreamAnswer, reason: string): SlipwayError {
  return new SlipwayError("UPSTREAM_INVALID", { detail: { host: answer.url.host, status: answer.status, reason } });
}

export function lengthOf(answer: Pick<UpstreamAnswer, "header">): number | null {
  const text = answer.header("content-length");
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

export function digestHeader(answer: Pick<UpstreamAnswer, "header">): string | null {
  const text = answer.header("docker-content-digest")?.trim();
  return isDigest(text) ? text : null;
}

function destroyOnAbort(body: Readable, signal: AbortSignal): void {
  const onAbort = (): void => {
    body.destroy(new SlipwayError("CANCELLED", { cause: signal.reason }));
  };
  if (signal.aborted) return onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  body.once("close", () => signal.removeEventListener("abort", onAbort));
}
