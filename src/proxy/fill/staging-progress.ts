/**
 * The small file that says which parts of a growing file are there. Other processes look at it many times a second and its owner writes it as often, so it is
 * written in place, within one page; a checksum tells a reader who came in between to look again. Each owner begins a file of its own under the name: what a
 * former owner still writes goes to a file that nobody sees.
 */
import { readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { z } from "zod";
import { PositionedFile } from "../../storage/fs-io.ts";

const Progress = z.object({
  size: z.number().int().nonnegative().nullable(),
  fence: z.number().int(),
  epoch: z.string().regex(/^[0-9a-f]{16}$/),
  /** Upstream has begun to send: errors of the first request are over. */
  answered: z.boolean(),
  /** The whole has the right digest. */
  verified: z.boolean(),
  segments: z.array(z.object({ start: z.number().int().nonnegative(), end: z.number().int().nonnegative() })),
});
export type StagedProgress = z.infer<typeof Progress>;

/** What a kill cannot cut in two: one page. Longer ones, of very scattered files, replace the file. */
const RECORD_BYTES = 4096;
const CHECKSUM_DIGITS = 8;
const LOOKS = 3;

export function nameOf(folder: string, digest: string): string {
  return join(folder, digest.replace(":", "-"));
}

export function progressPath(folder: string, digest: string): string {
  return `${nameOf(folder, digest)}.json`;
}

export async function readProgress(folder: string, digest: string): Promise<StagedProgress | null> {
  for (let look = 0; look < LOOKS; look += 1) {
    const text = await readFile(progressPath(folder, digest), "utf8").catch(() => null);
    if (text === null) return null;
    const progress = parseRecord(text);
    if (progress !== null) return progress;
  }
  // Cut by a crash in the middle of its first write: begin anew.
  return null;
}

/** Into the page where it fits. */
function formatRecord(progress: StagedProgress, page: Buffer): Buffer {
  const json = JSON.stringify(progress);
  const text = `${checksumOf(json)} ${json}\n`;
  if (text.length > RECORD_BYTES) return Buffer.from(text);
  page.fill(" ", page.write(text, "latin1"));
  return page;
}

function parseRecord(text: string): StagedProgress | null {
  const end = text.indexOf("\n");
  const json = text.slice(CHECKSUM_DIGITS + 1, end);
  if (end < 0 || checksumOf(json) !== text.slice(0, CHECKSUM_DIGITS)) return null;
  try {
    return Progress.parse(JSON.parse(json));
  } catch {
    return null;
  }
}

function checksumOf(json: string): string {
  return crc32(json).toString(16).padStart(CHECKSUM_DIGITS, "0");
}

export class ProgressFile {
  readonly #folder: string;
  readonly #digest: string;
  /** Written by one call at a time. */
  readonly #page = Buffer.alloc(RECORD_BYTES);
  #file: PositionedFile | null = null;
  #isLong = false;

  constructor(folder: string, digest: string) {
    this.#folder = folder;
    this.#digest = digest;
  }

  async write(progress: StagedProgress): Promise<void> {
    const record = formatRecord(progress, this.#page);
    const isLong = record.length > RECORD_BYTES;
    if (this.#file !== null && !isLong && !this.#isLong) {
      await this.#file.write(record, 0);
      return;
    }
    await this.#replace(record, `${progress.epoch}.${progress.fence}`);
    this.#isLong = isLong;
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }

  async #replace(record: Buffer, mark: string): Promise<void> {
    const path = progressPath(this.#folder, this.#digest);
    const draft = `${path}.${mark}.tmp`;
    const file = await PositionedFile.open(draft, "w", 0o600);
    try {
      await file.write(record, 0);
      await rename(draft, path);
    } catch (error) {
      await file.close();
      await rm(draft, { force: true });
      throw error;
    }
    await this.close();
    this.#file = file;
  }
}
