/**
 * One blob on its way from upstream, in the process that owns it. It fetches, stages, hashes and, when digest and size are right, hands the file
 * to storage. Readers look at the file, and at what has come but is not in it yet; none of them can slow it down or stop it.
 */
import type { Readable } from "node:stream";
import { isSlipwayError, SlipwayError, toSlipwayError } from "../../core/errors.ts";
import type { PositionedFile } from "../../storage/fs-io.ts";
import { planRanges } from "../plan/segments.ts";
import type { Segment } from "../plan/segments.ts";
import { ArrivedPieces } from "./arrived-pieces.ts";
import { eachPiece } from "./body-pieces.ts";
import { PrefixHash } from "./prefix-hash.ts";
import type { Scribe } from "./scribe.ts";
import { SharedReads } from "./shared-reads.ts";
import { StagingFile } from "./staging-file.ts";
import { Wakeups } from "./wakeups.ts";
import { WriteBacklog } from "./write-backlog.ts";

export interface FetchedRange {
  /** Size of the whole blob when upstream told. */
  readonly size: number | null;
  readonly body: Readable;
  /** False when everything from the start of the blob comes although a part was asked for; `body` begins at the part all the same. */
  readonly isPart: boolean;
}

export interface FillInput {
  readonly digest: string;
  /** From a descriptor; null when nobody told. */
  readonly size: number | null;
  readonly fence: number;
  readonly folder: string;
  /** Its own from beginning to end. */
  readonly scribe: Scribe;
  /**
   * `end` is exclusive; null fetches to the end. A part that begins at 0 and comes as the whole is handed over whole. `elsewhere` asks for
   * another address after a mismatch.
   */
  fetch(range: { start: number; end: number | null }, options: { elsewhere: boolean; signal: AbortSignal }): Promise<FetchedRange>;
  /** Whether parts may be fetched side by side, as far as it is known. */
  mayFetchParts(): boolean;
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

/** Received and not yet written, of one fill and of all that share its scribe. */
const BACKLOG_BYTES = 1024 * 1024;
const SCRIBE_BACKLOG_BYTES = 8 * 1024 * 1024;

interface Work {
  readonly file: StagingFile;
  readonly hash: PrefixHash;
  readonly arrived: ArrivedPieces;
  readonly backlog: WriteBacklog;
  readonly elsewhere: boolean;
  /** The whole, which was asked for already. */
  readonly asked: Promise<FetchedRange> | null;
}

export class Fill {
  readonly digest: string;
  readonly startedAt = performance.now();
  readonly finished: Promise<void>;
  /** Upstream was asked, or there is nothing to ask for. */
  readonly begun: Promise<void>;
  readonly #input: FillInput;
  readonly #stop = new AbortController();
  readonly #wakeups = new Wakeups();
  readonly reads = new SharedReads();
  #file: StagingFile | null = null;
  #arrived: ArrivedPieces | null = null;
  #state: FillState = "running";
  #error: SlipwayError | null = null;
  #size: number | null;
  #isVerified = false;
  #firstByteMs: number | null = null;

  constructor(input: FillInput) {
    this.digest = input.digest;
    this.#input = input;
    this.#size = input.size;
    const opened = this.#open();
    this.begun = opened.then(
      () => undefined,
      () => undefined,
    );
    this.finished = this.#run(opened);
    // Whoever waits sees the error by `failure`; the promise alone must not end the process.
    this.finished.catch(() => undefined);
  }

  get state(): FillState {
    return this.#state;
  }

  /** Stopped from outside, not by its upstream. */
  get isAbandoned(): boolean {
    return this.#stop.signal.aborted;
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

  /** Upstream has begun to send, now or to an earlier owner: a head may be sent to clients. */
  get isAnswered(): boolean {
    return this.#file?.isAnswered ?? false;
  }

  /** The whole has the right digest; storage may not have it yet. */
  get isVerified(): boolean {
    return this.#isVerified;
  }

  /** From the start to the first byte of upstream; null when there was none yet. */
  get firstByteMs(): number | null {
    return this.#firstByteMs;
  }

  get path(): string | null {
    return this.#file?.path ?? null;
  }

  share(): PositionedFile | null {
    return this.#file?.share() ?? null;
  }

  get epoch(): string {
    return this.#file?.epoch ?? "";
  }

  /** One past the last byte that a reader at the position may have now. */
  visibleEnd(position: number): number {
    if (this.#isVerified) return Math.max(position, this.#size ?? position);
    if (!this.#arrived || this.#file?.isSuspect) return position;
    const end = this.#arrived.contiguousFrom(position);
    const limit = (this.#size ?? end) - this.#input.limits.heldBackBytes;
    return Math.max(position, Math.min(end, limit));
  }

  storedEnd(position: number): number {
    return this.#file?.segments.contiguousFrom(position) ?? position;
  }

  /** How far from the start everything is there: a range beyond it is ahead of the fill. */
  get prefixEnd(): number {
    return this.#arrived?.contiguousFrom(0) ?? 0;
  }

  /** Bytes from the position on that are still in memory, for readers who may see them; to be released. */
  takeRecent(position: number): Uint8Array | null {
    return this.#arrived?.take(position) ?? null;
  }

  whenChanged(wake: () => void): void {
    if (this.#state === "running") this.#wakeups.next(wake);
    else wake();
  }

  /** Ends the fetching; what is staged stays for the next owner. */
  async abandon(reason: unknown): Promise<void> {
    this.#stop.abort(reason);
    await this.finished.catch(() => undefined);
  }

  async #run(opened: Promise<Pick<Work, "file" | "asked">>): Promise<void> {
    try {
      const { digest, scribe } = this.#input;
      const { file, asked } = await opened;
      const arrived = new ArrivedPieces(file.segments.list());
      this.#file = file;
      this.#arrived = arrived;
      this.#size = file.size;
      await this.#attempts({
        file,
        arrived,
        hash: new PrefixHash(digest, file, scribe),
        backlog: new WriteBacklog(BACKLOG_BYTES, () => scribe.pendingBytes >= SCRIBE_BACKLOG_BYTES),
        elsewhere: false,
        asked,
      });
      this.#end("done");
    } catch (error) {
      this.#error = this.#stop.signal.aborted ? toSlipwayError(this.#stop.signal.reason) : toSlipwayError(error);
      this.#end("failed");
      throw this.#error;
    }
  }

  /** Where nothing is left of an earlier attempt, upstream is asked while the file is made. */
  async #open(): Promise<Pick<Work, "file" | "asked">> {
    const { folder, digest, fence, fetch } = this.#input;
    const options = { folder, digest, size: this.#size, fence };
    const left = await StagingFile.resume(options);
    if (left !== null) return { file: left, asked: null };
    if (this.#size === 0 || this.#isForParts(this.#size)) return { file: await StagingFile.create(options), asked: null };
    const asked = fetch({ start: 0, end: null }, { elsewhere: false, signal: this.#stop.signal });
    asked.catch(() => undefined);
    try {
      return { file: await StagingFile.create(options), asked };
    } catch (error) {
      void asked.then(
        ({ body }) => body.destroy(),
        () => undefined,
      );
      throw error;
    }
  }

  #isForParts(size: number | null): boolean {
    return size !== null && size >= this.#input.limits.parallelFromBytes && this.#input.mayFetchParts();
  }

  async #attempts(work: Work): Promise<void> {
    const { file, hash, backlog } = work;
    try {
      const size = await this.#fetchVerified(work);
      // Readers may have the rest while the file is made durable.
      this.#isVerified = true;
      this.#wakeups.now();
      file.markVerified();
      await this.#input.adopt(file.path, size);
    } catch (error) {
      // Neither wrong bytes nor those that fill the disk are worth keeping.
      const isUseless = isSlipwayError(error, "DIGEST_MISMATCH", "STORAGE_FULL");
      await backlog.settled();
      await hash.settled();
      await file.close().catch(() => undefined);
      if (isUseless) await file.remove().catch(() => undefined);
      throw error;
    } finally {
      hash.close();
    }
    await file.finish().catch(() => undefined);
  }

  /** A wrong digest is tried once elsewhere; what came the first time is thrown away. */
  async #fetchVerified(work: Work): Promise<number> {
    const { file, hash, arrived } = work;
    for (const elsewhere of [false, true]) {
      await this.#fetchAll({ ...work, elsewhere, asked: elsewhere ? null : work.asked });
      await hash.catchUp();
      const found = await hash.digest();
      if (found === this.digest && hash.position === this.#size) return hash.position;
      this.#input.onMismatch(found);
      await file.reset();
      arrived.reset();
      this.reads.clear();
      hash.reset();
      this.#wakeups.now();
    }
    throw new SlipwayError("DIGEST_MISMATCH", { detail: { digest: this.digest } });
  }

  async #fetchAll(work: Work): Promise<void> {
    const { limits } = this.#input;
    const size = this.#size;
    if (size === null || work.asked !== null) {
      await this.#fetchPart({ start: 0, end: size }, work);
      if (this.#size === null) this.#learnSize(work.file, work.arrived.contiguousFrom(0));
      return work.backlog.drain();
    }
    const gaps = work.file.segments.gaps(size);
    if (this.#isForParts(size)) await this.#fetchParts(planRanges(gaps, limits.partBytes), work);
    else for (const gap of gaps) await this.#fetchPart(gap, work);
    await work.backlog.drain();
  }

  /** The first part tells whether upstream gives parts at all; where it gives everything, everything is taken from that one answer. */
  async #fetchParts(parts: Segment[], work: Work): Promise<void> {
    const failure = new AbortController();
    const fetchRest = async (): Promise<void> => {
      for (let part = parts.shift(); part && !failure.signal.aborted; part = parts.shift()) {
        await this.#fetchPart(part, work, { signal: failure.signal });
      }
    };
    const helpers: Promise<void>[] = [];
    const onAnswer = (isPart: boolean): void => {
      if (!isPart) parts.length = 0;
      else while (helpers.length < Math.min(this.#input.limits.parallel - 1, parts.length)) helpers.push(fetchRest());
    };
    const first = parts.shift();
    if (!first) return;
    try {
      await this.#fetchPart(first, work, { signal: failure.signal, onAnswer });
      await Promise.all([...helpers, fetchRest()]);
    } catch (error) {
      failure.abort(error);
      await Promise.allSettled(helpers);
      throw error;
    }
    await work.backlog.drain();
    const gaps = work.file.segments.gaps(this.#size ?? 0);
    for (const gap of gaps) await this.#fetchPart(gap, work);
  }

  async #fetchPart(
    part: { start: number; end: number | null },
    work: Work,
    { signal, onAnswer }: { signal?: AbortSignal; onAnswer?: (isPart: boolean) => void } = {},
  ): Promise<void> {
    const stop = signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal;
    stop.throwIfAborted();
    const isWhole = part.start === 0 && (part.end === null || part.end === this.#size);
    const { file, hash, backlog, elsewhere } = work;
    const fetched = await (work.asked ??
      this.#input.fetch({ start: part.start, end: isWhole ? null : part.end }, { elsewhere, signal: stop }));
    if (fetched.size !== null && this.#size === null) this.#learnSize(file, fetched.size);
    this.#firstByteMs ??= performance.now() - this.startedAt;
    file.markAnswered();
    this.#wakeups.now();
    onAnswer?.(fetched.isPart);
    // The whole from its first byte is taken as far as it goes.
    const end = part.start === 0 && !fetched.isPart ? this.#size : part.end;
    let position = part.start;
    await eachPiece(fetched.body, (chunk) => {
      stop.throwIfAborted();
      const wanted = end === null ? chunk : chunk.subarray(0, Math.max(0, end - position));
      this.#store(position, wanted, work);
      position += wanted.length;
      this.#input.onBytes(wanted.length);
      this.#wakeups.soon(wanted.length);
      return backlog.hasRoom() ? null : backlog.room();
    });
    const expected = end ?? this.#size;
    if (expected !== null && position < expected) {
      throw new SlipwayError("UPSTREAM_INVALID", { message: "the upstream registry sent fewer bytes than the blob has" });
    }
    // What came out of order is hashed while the rest is on its way, not at the end.
    hash.catchUpBehind();
  }

  /** Readers may have it from now on; it is written and hashed behind. */
  #store(position: number, chunk: Uint8Array, { file, hash, arrived, backlog }: Work): void {
    const { bytes, written } = arrived.add(position, chunk);
    const claimed = hash.claim(position, bytes.length);
    backlog.begin(bytes.length);
    file.writeBy(this.#input.scribe, { position, bytes, hash: claimed }, (error) => {
      if (error === null) {
        written();
        if (claimed === null) hash.add(position);
      }
      backlog.end(bytes.length, error);
    });
  }

  #learnSize(file: StagingFile, size: number): void {
    this.#size = size;
    file.size = size;
    this.#wakeups.now();
  }

  #end(state: FillState): void {
    this.#state = state;
    if (state === "done") this.#arrived?.clear();
    else this.#arrived?.abandon();
    this.reads.close();
    this.#wakeups.close();
  }
}
