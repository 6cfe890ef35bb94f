/**
 * The growing file of a fill, and beside it a small progress file that says which parts are there. Other processes of the host read both; after a
 * restart the fill goes on from what the progress file says. It names only bytes that were handed to the kernel, so a killed process loses
 * nothing; after a power cut the digest decides.
 */
import { constants } from "node:fs";
import { mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { fsError } from "../../storage/fs-errors.ts";
import { SegmentMap } from "../plan/segments.ts";
import type { Segment } from "../plan/segments.ts";

const PROGRESS_EVERY_MS = 50;

export interface StagedProgress {
  readonly size: number | null;
  readonly fence: number;
  readonly segments: readonly Segment[];
}

export interface StagingPaths {
  readonly data: string;
  readonly progress: string;
}

export function stagingPaths(folder: string, digest: string): StagingPaths {
  const name = digest.replace(":", "-");
  return { data: join(folder, `${name}.part`), progress: join(folder, `${name}.json`) };
}

export async function readProgress(paths: StagingPaths): Promise<StagedProgress | null> {
  try {
    return JSON.parse(await readFile(paths.progress, "utf8")) as StagedProgress;
  } catch {
    // Absent, or cut by a crash in the middle of its first write: begin anew.
    return null;
  }
}

export interface StagingOptions {
  readonly folder: string;
  readonly digest: string;
  readonly size: number | null;
  readonly fence: number;
}

export class StagingFile {
  readonly paths: StagingPaths;
  readonly segments: SegmentMap;
  readonly #file: FileHandle;
  readonly #fence: number;
  #size: number | null;
  #saving: Promise<void> | null = null;
  #isDirty = false;
  #savedAt = 0;

  private constructor(options: StagingOptions, file: FileHandle, segments: SegmentMap) {
    this.paths = stagingPaths(options.folder, options.digest);
    this.#file = file;
    this.#fence = options.fence;
    this.#size = options.size;
    this.segments = segments;
  }

  /** Takes up what an earlier owner on this host has left; a leftover of another size is of no use. */
  static async open(options: StagingOptions): Promise<StagingFile> {
    const paths = stagingPaths(options.folder, options.digest);
    try {
      await mkdir(options.folder, { recursive: true });
      const left = await readProgress(paths);
      const isUsable = left !== null && left.size !== null && (options.size === null || left.size === options.size);
      const file = await open(paths.data, constants.O_RDWR | constants.O_CREAT | (isUsable ? 0 : constants.O_TRUNC), 0o600);
      const { size: length } = await file.stat();
      const kept = isUsable ? left.segments.filter((segment) => segment.end <= length) : [];
      const staged = new StagingFile({ ...options, size: options.size ?? (isUsable ? left.size : null) }, file, new SegmentMap(kept));
      await staged.save();
      return staged;
    } catch (error) {
      throw fsError(error);
    }
  }

  get size(): number | null {
    return this.#size;
  }

  set size(size: number | null) {
    this.#size = size;
    this.#isDirty = true;
  }

  async write(position: number, chunk: Uint8Array): Promise<void> {
    try {
      let written = 0;
      while (written < chunk.length) {
        const { bytesWritten } = await this.#file.write(chunk, written, chunk.length - written, position + written);
        written += bytesWritten;
      }
    } catch (error) {
      throw fsError(error);
    }
    this.segments.add(position, position + chunk.length);
    this.#isDirty = true;
    if (performance.now() - this.#savedAt > PROGRESS_EVERY_MS && this.#saving === null) {
      this.#saving = this.save().finally(() => {
        this.#saving = null;
      });
      // Followers see it later then; the fill itself does not depend on it.
      this.#saving.catch(() => undefined);
    }
  }

  async read(buffer: Buffer, length: number, position: number): Promise<number> {
    const { bytesRead } = await this.#file.read(buffer, 0, length, position);
    return bytesRead;
  }

  async save(): Promise<void> {
    if (!this.#isDirty && this.#savedAt > 0) return;
    this.#isDirty = false;
    this.#savedAt = performance.now();
    const progress: StagedProgress = { size: this.#size, fence: this.#fence, segments: this.segments.list() };
    const draft = `${this.paths.progress}.${this.#fence}.tmp`;
    await writeFile(draft, JSON.stringify(progress), { mode: 0o600 });
    await rename(draft, this.paths.progress);
  }

  /** Everything so far is thrown away: the bytes were not those of the digest. */
  async reset(): Promise<void> {
    await this.#saving;
    this.segments.clear();
    await this.#file.truncate(0);
    this.#isDirty = true;
    await this.save();
  }

  /** Closes; the files stay for the next owner. */
  async close(): Promise<void> {
    await this.#saving?.catch(() => undefined);
    await this.save().catch(() => undefined);
    await this.#file.close();
  }

  async remove(): Promise<void> {
    await rm(this.paths.data, { force: true });
    await this.removeProgress();
  }

  async removeProgress(): Promise<void> {
    await rm(this.paths.progress, { force: true });
  }
}
