/**
 * One blob on its way from upstream, in the process that owns it. It fetches, stages, hashes and, when digest and size are right, hands the file
 * to storage. Readers look at the file; none of them can slow it down or stop it.
 */
import { SlipwayError, toSlipwayError } from "../../core/errors.ts";
import { planRanges } from "../plan/segments.ts";
import type { Segment } from "../plan/segments.ts";
import { PrefixHash } from "./prefix-hash.ts";
import { StagingFile } from "./staging-file.ts";

export interface FetchedRange {
  /** Size of the whole blob when upstream told. */
  readonly size: number | null;
  readonly body: AsyncIterable<Uint8Array>;
}

export interface FillInput {
  readonly digest: string;
  /** From a descriptor; null when nobody told. */
  readonly size: number | null;
  readonly fence: number;
  readonly folder: string;
  /** `end` is exclusive; null fetches to the end. `elsewhere` asks for another address after a mismatch. */
  fetch(range: { start: number; end: number | null }, options: { elsewhere: boolean; signal: AbortSignal }): Promise<FetchedRange>;
  /** Makes the verified file a blob. The file is gone afterwards. */
  adopt(path: string, size: number): Promise<void>;
  readonly limits: FillLimits;
  readonly onBytes: (count: number) => void;
  readonly onMismatch: (found: string) => void;
}

export interface FillLimits {
  /** From this size on, parts are fetched side by side. */
  readonly parallelFromBytes: number;
  readonly partBytes: number;
  readonly parallel: number;
  /** Withheld from readers until the digest is right. */
  readonly heldBackBytes: number;
}

export const DEFAULT_FILL_LIMITS: FillLimits = {
  parallelFromBytes: 64 * 1024 * 1024,
  partBytes: 16 * 1024 * 1024,
  parallel: 4,
  heldBackBytes: 64 * 1024,
};

export type FillState = "running" | "done" | "failed";

export class Fill {
  readonly digest: string;
  readonly startedAt = performance.now();
  readonly #input: FillInput;
  readonly #stop = new AbortController();
  readonly #waiters = new Set<() => void>();
  #file: StagingFile | null = null;
  #hash: PrefixHash | null = null;
  #state: FillState = "running";
  #error: SlipwayError | null = null;
  #size: number | null;
  readonly finished: Promise<void>;

  constructor(input: FillInput) {
    this.digest = input.digest;
    this.#input = input;
    this.#size = input.size;
    this.finished = this.#run();
    // Whoever waits sees the error by `failure`; the promise alone must not end the process.
    this.finished.catch(() => undefined);
  }

  get state(): FillState {
    return this.#state;
  }

  get failure(): SlipwayError | null {
    return this.#error;
  }

  /** Null until upstream or a descriptor told. */
  get size(): number | null {
    return this.#size;
  }

  get stagedBytes(): number {
    return this.#file?.segments.bytes ?? 0;
  }

  get path(): string | null {
    return this.#file?.paths.data ?? null;
  }

  /** One past the last byte that a reader at the position may have now. */
  visibleEnd(position: number): number {
    if (!this.#file) return position;
    const end = this.#file.segments.contiguousFrom(position);
    if (this.#state === "done") return Math.max(end, this.#size ?? end);
    const limit = (this.#size ?? end) - this.#input.limits.heldBackBytes;
    return Math.max(position, Math.min(end, limit));
  }

  /** How far from the start everything is there: a range beyond it is ahead of the fill. */
  get prefixEnd(): number {
    return this.#file?.segments.contiguousFrom(0) ?? 0;
  }

  /** Resolves at the next progress, the end or the failure. */
  async change(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.#state !== "running") return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#waiters.delete(done);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      this.#waiters.add(done);
      signal?.addEventListener("abort", done, { once: true });
    });
    signal?.throwIfAborted();
  }

  /** Ends the fetching; what is staged stays for the next owner. */
  async abandon(reason: unknown): Promise<void> {
    this.#stop.abort(reason);
    await this.finished.catch(() => undefined);
  }

  async #run(): Promise<void> {
    try {
      const { folder, digest, fence } = this.#input;
      this.#file = await StagingFile.open({ folder, digest, size: this.#size, fence });
      this.#size = this.#file.size;
      this.#hash = new PrefixHash(digest, this.#file);
      await this.#attempts(this.#file, this.#hash);
      this.#end("done");
    } catch (error) {
      this.#error = toSlipwayError(error);
      this.#end("failed");
      await this.#file?.close().catch(() => undefined);
      throw this.#error;
    }
  }

  /** A wrong digest is tried once elsewhere; what came the first time is thrown away. */
  async #attempts(file: StagingFile, hash: PrefixHash): Promise<void> {
    for (const elsewhere of [false, true]) {
      await this.#fetchAll(file, hash, elsewhere);
      await hash.catchUp();
      const found = hash.digest();
      if (found === this.digest && hash.position === this.#size) {
        await file.close();
        await this.#input.adopt(file.paths.data, hash.position);
        await file.removeProgress();
        return;
      }
      this.#input.onMismatch(found);
      hash.reset();
      await file.reset();
    }
    throw new SlipwayError("DIGEST_MISMATCH", { detail: { digest: this.digest } });
  }

  async #fetchAll(file: StagingFile, hash: PrefixHash, elsewhere: boolean): Promise<void> {
    const { limits } = this.#input;
    const size = this.#size;
    if (size === null || size < limits.parallelFromBytes) {
      const gaps = size === null ? [{ start: 0, end: Number.POSITIVE_INFINITY }] : file.segments.gaps(size);
      for (const gap of gaps) await this.#fetchPart(gap, { file, hash, elsewhere });
      if (size === null) this.#learnSize(file.segments.contiguousFrom(0));
      return;
    }
    const parts = planRanges(file.segments.gaps(size), limits.partBytes);
    const failure = new AbortController();
    const workers = Array.from({ length: Math.min(limits.parallel, parts.length) }, async () => {
      for (let part = parts.shift(); part && !failure.signal.aborted; part = parts.shift()) {
        await this.#fetchPart(part, { file, hash, elsewhere, signal: failure.signal });
      }
    });
    try {
      await Promise.all(workers);
    } catch (error) {
      failure.abort(error);
      await Promise.allSettled(workers);
      throw error;
    }
  }

  async #fetchPart(
    part: Segment,
    { file, hash, elsewhere, signal }: { file: StagingFile; hash: PrefixHash; elsewhere: boolean; signal?: AbortSignal },
  ): Promise<void> {
    const end = Number.isFinite(part.end) ? part.end : null;
    const stop = signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal;
    const isWhole = part.start === 0 && (end === null || end === this.#size);
    const fetched = await this.#input.fetch({ start: part.start, end: isWhole ? null : end }, { elsewhere, signal: stop });
    if (fetched.size !== null && this.#size === null) {
      file.size = fetched.size;
      this.#learnSize(fetched.size);
    }
    let position = part.start;
    for await (const chunk of fetched.body) {
      stop.throwIfAborted();
      const wanted = end === null ? chunk : chunk.subarray(0, Math.max(0, end - position));
      await file.write(position, wanted);
      hash.add(position, wanted);
      position += wanted.length;
      this.#input.onBytes(wanted.length);
      this.#wake();
    }
    const expected = end ?? this.#size;
    if (expected !== null && position < expected) {
      throw new SlipwayError("UPSTREAM_INVALID", { message: "the upstream registry sent fewer bytes than the blob has" });
    }
  }

  #learnSize(size: number): void {
    this.#size = size;
    this.#wake();
  }

  #end(state: FillState): void {
    this.#state = state;
    this.#wake();
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter();
  }
}
