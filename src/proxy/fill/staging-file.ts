/**
 * The growing file of a fill, and beside it a small progress file that says which parts are there. Other processes of the host read both; after a
 * restart the fill goes on from what the progress file says. It names only bytes that were handed to the kernel, so a killed process loses
 * nothing; after a power cut the digest decides. Content that was thrown away never comes back under the same name: each beginning from nothing
 * has an epoch, which is part of the file's name.
 */
import { randomBytes } from "node:crypto";
import { constants, existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { fsError, isErrno } from "../../storage/fs-errors.ts";
import { PositionedFile } from "../../storage/fs-io.ts";
import { SegmentMap } from "../plan/segments.ts";
import type { HashName } from "./scribe-thread.ts";
import type { Piece, Scribe } from "./scribe.ts";
import { nameOf, ProgressFile, progressPath, readProgress } from "./staging-progress.ts";
import type { StagedProgress } from "./staging-progress.ts";

const PROGRESS_EVERY_MS = 50;

export function dataPath(folder: string, digest: string, epoch: string): string {
  return `${nameOf(folder, digest)}.${epoch}.part`;
}

export interface StagingOptions {
  readonly folder: string;
  readonly digest: string;
  readonly size: number | null;
  readonly fence: number;
}

interface Opened {
  readonly file: PositionedFile;
  readonly epoch: string;
  readonly segments: SegmentMap;
  readonly size: number | null;
}

export class StagingFile {
  readonly #options: StagingOptions;
  readonly #progress: ProgressFile;
  #path: string;
  #file: PositionedFile;
  #epoch: string;
  #segments: SegmentMap;
  #size: number | null;
  #isAnswered = false;
  #isVerified = false;
  #isSuspect = false;
  #saving: Promise<void> | null = null;
  #isDirty = true;
  #savedAt = Number.NEGATIVE_INFINITY;
  #isClosed = false;

  private constructor(options: StagingOptions, opened: Opened) {
    this.#options = options;
    this.#progress = new ProgressFile(options.folder, options.digest);
    this.#file = opened.file;
    this.#epoch = opened.epoch;
    this.#path = dataPath(options.folder, options.digest, opened.epoch);
    this.#segments = opened.segments;
    this.#size = opened.size;
    this.#isAnswered = opened.segments.bytes > 0;
  }

  static async open(options: StagingOptions): Promise<StagingFile> {
    return (await StagingFile.resume(options)) ?? (await StagingFile.create(options));
  }

  /** Takes up what an earlier owner on this host has left; a leftover of another size is of no use. Null when there is none. */
  static async resume(options: StagingOptions): Promise<StagingFile | null> {
    try {
      const opened = await reopen(options);
      return opened && new StagingFile(options, opened);
    } catch (error) {
      throw fsError(error);
    }
  }

  static async create(options: StagingOptions): Promise<StagingFile> {
    try {
      return new StagingFile(options, await begin(options));
    } catch (error) {
      throw fsError(error);
    }
  }

  get path(): string {
    return this.#path;
  }

  get epoch(): string {
    return this.#epoch;
  }

  /** Null once it is closed. */
  share(): PositionedFile | null {
    return this.#isClosed ? null : this.#file.share();
  }

  get segments(): SegmentMap {
    return this.#segments;
  }

  get size(): number | null {
    return this.#size;
  }

  set size(size: number | null) {
    this.#size = size;
    this.#isDirty = true;
  }

  /** After wrong bytes nothing counts until the whole is right. */
  get isAnswered(): boolean {
    return this.#isAnswered && (!this.#isSuspect || this.#isVerified);
  }

  get isSuspect(): boolean {
    return this.#isSuspect;
  }

  markAnswered(): void {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    this.#saveBehind();
  }

  markVerified(): void {
    this.#isVerified = true;
    this.#saveBehind();
  }

  async write(position: number, chunk: Uint8Array): Promise<void> {
    try {
      await this.#file.write(chunk, position);
    } catch (error) {
      throw fsError(error);
    }
    this.#wrote(position, chunk.length);
  }

  /** The same by another thread, told by a callback: this is where every byte of every fill passes. */
  writeBy(scribe: Scribe, piece: Piece, done: (error: unknown) => void): void {
    this.#file.lend((fd, over) => {
      scribe.write(fd, piece, (failure) => {
        over();
        if (failure === null) this.#wrote(piece.position, piece.bytes.length);
        done(failure === null ? null : fsError(failure));
      });
    });
  }

  #wrote(position: number, length: number): void {
    this.#segments.add(position, position + length);
    this.#isDirty = true;
    if (performance.now() - this.#savedAt > PROGRESS_EVERY_MS && this.#saving === null) this.#saveBehind();
  }

  /** How much of the part there was. */
  hashBy(scribe: Scribe, part: { readonly position: number; readonly length: number }, hash: HashName): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#file.lend((fd, over) => {
        scribe.hashFile(fd, part, hash).finally(over).then(resolve, reject);
      });
    });
  }

  /** One at a time; what changed meanwhile is in the next. */
  save(): Promise<void> {
    if (this.#saving) return this.#saving;
    if (!this.#isDirty || this.#isClosed) return Promise.resolve();
    this.#saving = this.#write().finally(() => {
      this.#saving = null;
    });
    return this.#saving;
  }

  /** Everything so far is thrown away: the bytes were not those of the digest. Whoever has the old file open keeps it. */
  async reset(): Promise<void> {
    await this.#saving?.catch(() => undefined);
    const before = { file: this.#file, path: this.path };
    const fresh = await begin(this.#options);
    this.#file = fresh.file;
    this.#epoch = fresh.epoch;
    this.#path = dataPath(this.#options.folder, this.#options.digest, fresh.epoch);
    this.#segments = fresh.segments;
    this.#isVerified = false;
    this.#isSuspect = true;
    this.#isDirty = true;
    await this.save();
    await before.file.close();
    await rm(before.path, { force: true });
  }

  /** Closes; the files stay for the next owner. */
  async close(): Promise<void> {
    await this.#saving?.catch(() => undefined);
    await this.save().catch(() => undefined);
    await this.#closeFiles();
  }

  /** Closes what became a blob: there is no progress to tell any more. */
  async finish(): Promise<void> {
    await this.#closeFiles();
    await this.removeProgress();
  }

  async remove(): Promise<void> {
    await rm(this.path, { force: true });
    await this.removeProgress();
  }

  async removeProgress(): Promise<void> {
    await rm(progressPath(this.#options.folder, this.#options.digest), { force: true });
  }

  async #closeFiles(): Promise<void> {
    this.#isClosed = true;
    await this.#saving?.catch(() => undefined);
    await this.#progress.close();
    await this.#file.close();
  }

  /** Followers see it later when it fails; the fill itself does not depend on it. */
  #saveBehind(): void {
    this.#isDirty = true;
    const saving = this.#saving;
    void (saving ? saving.catch(() => undefined).then(() => this.save()) : this.save()).catch(() => undefined);
  }

  async #write(): Promise<void> {
    this.#isDirty = false;
    this.#savedAt = performance.now();
    const progress: StagedProgress = {
      size: this.#size,
      fence: this.#options.fence,
      epoch: this.#epoch,
      answered: this.isAnswered,
      verified: this.#isVerified,
      segments: this.isSuspect && !this.#isVerified ? [] : [...this.#segments.list()],
    };
    await this.#progress.write(progress);
  }
}

async function reopen(options: StagingOptions): Promise<Opened | null> {
  const { folder, digest, size } = options;
  // Most often there is none. One look at a local disk costs less than a promise for it, nine times before the first byte of an image.
  if (!existsSync(progressPath(folder, digest))) return null;
  const left = await readProgress(folder, digest);
  if (left === null) return null;
  const path = dataPath(folder, digest, left.epoch);
  if (left.size === null || (size !== null && left.size !== size)) {
    await rm(path, { force: true });
    return null;
  }
  const file = await PositionedFile.open(path, constants.O_RDWR).catch(() => null);
  if (file === null) return null;
  const length = await file.size();
  const segments = new SegmentMap(left.segments.filter((segment) => segment.end <= length));
  return { file, epoch: left.epoch, segments, size: left.size };
}

async function begin({ folder, digest, size }: StagingOptions): Promise<Opened> {
  const epoch = randomBytes(8).toString("hex");
  const create = (): Promise<PositionedFile> =>
    PositionedFile.open(dataPath(folder, digest, epoch), constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  const file = await create().catch(async (error: unknown) => {
    if (!isErrno(error, "ENOENT")) throw error;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return create();
  });
  return { file, epoch, segments: new SegmentMap(), size };
}

/** Puts what was staged elsewhere on this disk where the next owner looks for it, unless it finds something there already. */
export async function handOver(digest: string, from: string, to: string): Promise<void> {
  if ((await readProgress(to, digest)) !== null) return;
  const left = await readProgress(from, digest);
  if (left === null) return;
  await mkdir(to, { recursive: true, mode: 0o700 });
  await rename(dataPath(from, digest, left.epoch), dataPath(to, digest, left.epoch));
  await rename(progressPath(from, digest), progressPath(to, digest));
}
