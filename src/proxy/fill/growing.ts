/** A blob that is not complete yet, as its readers see it: in the owner's process, or by the files that the owner writes on the same host. */
import { open } from "node:fs/promises";
import { sleep } from "../../core/clock.ts";
import { SlipwayError } from "../../core/errors.ts";
import { SegmentMap } from "../plan/segments.ts";
import { readProgress, stagingPaths } from "./staging-file.ts";
import type { FillState } from "./fill.ts";

export interface Growing {
  readonly state: FillState;
  readonly size: number | null;
  readonly failure: SlipwayError | null;
  readonly path: string | null;
  readonly prefixEnd: number;
  visibleEnd(position: number): number;
  change(signal?: AbortSignal): Promise<void>;
}

const READ_BYTES = 256 * 1024;

/** Waits until the size is known; upstream tells it with its first answer as a rule. */
export async function sizeOf(growing: Growing, signal?: AbortSignal): Promise<number> {
  while (growing.size === null) {
    if (growing.state === "failed") throw growing.failure ?? new SlipwayError("UPSTREAM_INVALID");
    await growing.change(signal);
  }
  return growing.size;
}

/**
 * Bytes from start to end (exclusive) as they arrive. One buffer is used again and again: a chunk is valid until the next is asked for. Throws when the
 * fill fails, so that the client's connection is broken and not ended.
 */
export async function* readGrowing(
  growing: Growing,
  range: { start: number; end: number },
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  while (growing.path === null || growing.visibleEnd(range.start) <= range.start) {
    if (growing.state === "failed") throw growing.failure ?? new SlipwayError("UPSTREAM_INVALID");
    if (growing.state === "done") break;
    await growing.change(signal);
  }
  if (growing.path === null) throw new SlipwayError("UPSTREAM_INVALID");
  const file = await open(growing.path, "r");
  try {
    const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, Math.max(1, range.end - range.start)));
    for (let position = range.start; position < range.end;) {
      const available = Math.min(growing.visibleEnd(position), range.end);
      if (available > position) {
        const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, available - position), position);
        if (bytesRead === 0) throw new SlipwayError("UPSTREAM_INVALID", { message: "the staged blob was replaced" });
        position += bytesRead;
        yield buffer.subarray(0, bytesRead);
        continue;
      }
      if (growing.state === "failed") throw growing.failure ?? new SlipwayError("UPSTREAM_INVALID");
      await growing.change(signal);
    }
  } finally {
    await file.close();
  }
}

const POLL_MS = 25;

export interface FileFollowerOptions {
  readonly folder: string;
  readonly digest: string;
  readonly heldBackBytes: number;
  /** Asks the catalog whether the blob is stored by now. */
  isStored(): Promise<{ size: number } | null>;
  /** Whether somebody still holds the lease. */
  isOwned(): Promise<boolean>;
}

/** Follows a fill of another process on this host. */
export class FileFollower implements Growing {
  readonly path: string;
  readonly #options: FileFollowerOptions;
  readonly #progressPath: ReturnType<typeof stagingPaths>;
  #segments = new SegmentMap();
  #lastChange = performance.now();
  state: FillState = "running";
  size: number | null = null;
  failure: SlipwayError | null = null;

  constructor(options: FileFollowerOptions) {
    this.#options = options;
    this.#progressPath = stagingPaths(options.folder, options.digest);
    this.path = this.#progressPath.data;
  }

  get prefixEnd(): number {
    return this.#segments.contiguousFrom(0);
  }

  visibleEnd(position: number): number {
    if (this.state === "done") return Math.max(position, this.size ?? position);
    const end = this.#segments.contiguousFrom(position);
    return Math.max(position, Math.min(end, (this.size ?? end) - this.#options.heldBackBytes));
  }

  async change(signal?: AbortSignal): Promise<void> {
    await sleep(POLL_MS, signal);
    const progress = await readProgress(this.#progressPath);
    if (progress) {
      const before = this.#segments.bytes;
      this.#segments = new SegmentMap(progress.segments);
      this.size = progress.size ?? this.size;
      if (this.#segments.bytes !== before) this.#lastChange = performance.now();
    }
    // The files are gone when the owner is done; and they stand still when it is dead.
    if (progress === null || performance.now() - this.#lastChange > 1_000) await this.#ask();
  }

  async #ask(): Promise<void> {
    const stored = await this.#options.isStored();
    if (stored) {
      this.size = stored.size;
      this.state = "done";
      return;
    }
    this.#lastChange = performance.now();
    if (await this.#options.isOwned()) return;
    this.state = "failed";
    this.failure = new SlipwayError("UPSTREAM_UNAVAILABLE", {
      message: "the process that fetched this blob is gone",
      retryAfterSeconds: 1,
    });
  }
}
