/** A blob that is not complete yet, as its readers see it: in the owner's process, or by the files that the owner writes on the same host. */
import { sleep } from "../../core/clock.ts";
import { SlipwayError } from "../../core/errors.ts";
import type { PositionedFile } from "../../storage/fs-io.ts";
import { SegmentMap } from "../plan/segments.ts";
import type { FillState } from "./fill.ts";
import { SharedReads } from "./shared-reads.ts";
import { dataPath } from "./staging-file.ts";
import { readProgress } from "./staging-progress.ts";

export interface Growing {
  readonly state: FillState;
  readonly size: number | null;
  readonly failure: SlipwayError | null;
  /** Null until there is a file. */
  readonly path: string | null;
  /** Another one when the content began anew; empty until there is a file. */
  readonly epoch: string;
  /** Upstream has begun to send. */
  readonly isAnswered: boolean;
  readonly prefixEnd: number;
  visibleEnd(position: number): number;
  /** How far the file has it, where what is visible beyond that is in memory. */
  storedEnd?(position: number): number;
  /** Bytes that came just now, where the owner is in this process; to be given back with `releasePiece`. */
  takeRecent?(position: number): Uint8Array | null;
  /** Its open file, where the owner is in this process; to be closed by whoever asked. */
  share?(): PositionedFile | null;
  /** For reading its file together. */
  readonly reads?: SharedReads;
  /** Calls back once: at the next progress, the end or the failure, at once when it is over. */
  whenChanged(wake: () => void): void;
}

/** How far its file has what is visible. */
export function readableEnd(growing: Growing, position: number): number {
  return growing.storedEnd?.(position) ?? growing.visibleEnd(position);
}

export async function changeOf(growing: Growing, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve) => {
    const done = (): void => {
      signal?.removeEventListener("abort", done);
      resolve();
    };
    signal?.addEventListener("abort", done, { once: true });
    growing.whenChanged(done);
  });
  signal?.throwIfAborted();
}

/** Waits until it is certain that there is a blob, and how large it is: from then on a head may be sent to clients. */
export async function answerOf(growing: Growing, signal?: AbortSignal): Promise<number> {
  while (growing.size === null || !growing.isAnswered) {
    if (growing.state === "failed") throw growing.failure ?? new SlipwayError("UPSTREAM_INVALID");
    if (growing.state === "done" && growing.size !== null) break;
    await changeOf(growing, signal);
  }
  return growing.size;
}

const POLL_MS = 20;
/** How often the catalog is asked when the files say nothing new. */
const ASK_MS = 500;
const ASK_WITHOUT_FILE_MS = 100;

export interface FileFollowerOptions {
  readonly folder: string;
  readonly digest: string;
  readonly heldBackBytes: number;
  /** Asks the catalog whether the blob is stored by now, and links it for those who follow. */
  isStored(): Promise<{ size: number } | null>;
  /** Whether somebody still holds the lease. */
  isOwned(): Promise<boolean>;
}

/** Follows a fill of another process on this host. All readers share one look at the files. */
export class FileFollower implements Growing {
  readonly #options: FileFollowerOptions;
  readonly reads = new SharedReads();
  #segments = new SegmentMap();
  #epoch = "";
  #hasFile = false;
  #isVerified = false;
  #changedAt = performance.now();
  #askedAt = performance.now();
  #polling: Promise<void> | null = null;
  isAnswered = false;
  state: FillState = "running";
  size: number | null = null;
  failure: SlipwayError | null = null;

  constructor(options: FileFollowerOptions) {
    this.#options = options;
  }

  get path(): string | null {
    return this.#hasFile ? dataPath(this.#options.folder, this.#options.digest, this.#epoch) : null;
  }

  get epoch(): string {
    return this.#epoch;
  }

  get prefixEnd(): number {
    return this.#segments.contiguousFrom(0);
  }

  visibleEnd(position: number): number {
    if (this.state === "done" || this.#isVerified) return Math.max(position, this.size ?? position);
    const end = this.#segments.contiguousFrom(position);
    return Math.max(position, Math.min(end, (this.size ?? end) - this.#options.heldBackBytes));
  }

  whenChanged(wake: () => void): void {
    if (this.state !== "running") return wake();
    this.#polling ??= this.#poll().finally(() => {
      this.#polling = null;
      if (this.state !== "running") this.reads.close();
    });
    void this.#polling.then(wake);
  }

  async #poll(): Promise<void> {
    try {
      const isNews = await this.#look();
      if (isNews) return;
      const now = performance.now();
      const silence = this.#hasFile ? ASK_MS : ASK_WITHOUT_FILE_MS;
      if (now - this.#changedAt > silence && now - this.#askedAt > silence) await this.#ask();
      if (this.state === "running") await sleep(POLL_MS);
    } catch (cause) {
      this.state = "failed";
      this.failure = new SlipwayError("UPSTREAM_UNAVAILABLE", { message: "the fetch of this blob cannot be followed", cause });
    }
  }

  async #look(): Promise<boolean> {
    const progress = await readProgress(this.#options.folder, this.#options.digest);
    if (progress === null) {
      // The files go when the owner is done.
      if (this.#hasFile) await this.#ask();
      return this.state !== "running";
    }
    const segments = new SegmentMap(progress.segments);
    const isNews = segments.bytes !== this.#segments.bytes || progress.epoch !== this.#epoch || progress.verified !== this.#isVerified;
    const isFirst = !this.isAnswered && progress.answered;
    if (progress.epoch !== this.#epoch) this.reads.clear();
    this.#segments = segments;
    this.#epoch = progress.epoch;
    this.#isVerified = progress.verified;
    this.#hasFile = true;
    this.size = progress.size ?? this.size;
    this.isAnswered ||= progress.answered || segments.bytes > 0;
    if (isNews) this.#changedAt = performance.now();
    return isNews || isFirst;
  }

  async #ask(): Promise<void> {
    this.#askedAt = performance.now();
    const stored = await this.#options.isStored();
    if (stored) {
      this.size = stored.size;
      this.state = "done";
      return;
    }
    if (await this.#options.isOwned()) return;
    this.state = "failed";
    this.failure = new SlipwayError("UPSTREAM_UNAVAILABLE", {
      message: "the process that fetched this blob is gone",
      retryAfterSeconds: 1,
    });
  }
}
