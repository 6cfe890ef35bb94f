/**
 * A blob that is read once from the source and sent from disk: to several targets, each at its own pace, or to one when it is so large that a killed
 * process should not have to read it again. The file is named after its digest, so that a later process goes on where it ends.
 */
import { mkdir, open, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { sleep } from "../../core/clock.ts";
import { SlipwayError, toSlipwayError } from "../../core/errors.ts";
import { recycle } from "../../upstream/read-memory.ts";
import { quickRetryMs, unwrap } from "./plan/failure.ts";

export interface SpoolOptions {
  readonly folder: string;
  readonly bootId: string;
  readonly digest: string;
  readonly size: number;
  /** The bytes from an offset on. */
  readonly read: (offset: number) => Promise<Readable>;
  readonly signal: AbortSignal;
}

const READ_BYTES = 256 * 1024;
const SPARE_BYTES = 512 * 1024 * 1024;
const NAME = /^copy-([a-z0-9]+-[a-f0-9]+)\.(\d+)\.[a-f0-9]+\.part$/;
const LEFTOVER_MS = 24 * 3_600_000;

export class Spool {
  readonly #options: SpoolOptions;
  readonly #path: string;
  readonly #file: FileHandle;
  #written: number;
  #failure: SlipwayError | null = null;
  #wake: (() => void)[] = [];
  #readers = 0;
  #closed = false;
  readonly #filled: Promise<void>;

  private constructor(options: SpoolOptions, opened: { path: string; file: FileHandle; size: number }) {
    this.#options = options;
    this.#path = opened.path;
    this.#file = opened.file;
    this.#written = Math.min(opened.size, options.size);
    this.#filled = this.#fill();
  }

  static async open(options: SpoolOptions): Promise<Spool> {
    const { folder, bootId, digest } = options;
    await mkdir(folder, { recursive: true });
    const name = digest.replace(":", "-");
    const path = join(folder, `copy-${name}.${process.pid}.${bootId.replaceAll("-", "").slice(0, 12)}.part`);
    const left = await findLeftover(folder, name);
    // Whoever renames it has it; the bytes are those of the digest, whoever wrote them.
    if (left !== null && left !== path) await rename(left, path).catch(() => undefined);
    const file = await open(path, "a+");
    await file.close();
    const handle = await open(path, "r+");
    return new Spool(options, { path, file: handle, size: (await handle.stat()).size });
  }

  /** Independent readers, also of what is not there yet. */
  reader(offset: number): Readable {
    let position = offset;
    this.#readers += 1;
    const next = async (stream: Readable): Promise<void> => {
      try {
        const chunk = await this.#chunkAt(position);
        position += chunk?.length ?? 0;
        stream.push(chunk);
      } catch (error) {
        stream.destroy(toSlipwayError(error));
      }
    };
    return new Readable({
      highWaterMark: READ_BYTES,
      read() {
        void next(this);
      },
      destroy: (error, done) => {
        this.#readers -= 1;
        void this.#closeWhenUnread();
        done(error);
      },
    });
  }

  async #chunkAt(position: number): Promise<Buffer | null> {
    while (position >= this.#written) {
      if (position >= this.#options.size) return null;
      if (this.#failure) throw this.#failure;
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
    const wanted = Math.min(READ_BYTES, this.#written - position);
    const { bytesRead, buffer } = await this.#file.read(Buffer.allocUnsafe(wanted), 0, wanted, position);
    if (bytesRead === 0) throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "a staged blob lost its bytes" });
    return buffer.subarray(0, bytesRead);
  }

  /** The file stays when a later process is to go on with it. */
  async close(keep: boolean): Promise<void> {
    this.#closed = true;
    this.#fail(new SlipwayError("CANCELLED"));
    await this.#filled;
    if (!keep) await rm(this.#path, { force: true });
    await this.#closeWhenUnread();
  }

  async #closeWhenUnread(): Promise<void> {
    if (!this.#closed || this.#readers > 0) return;
    await this.#file.close().catch(() => undefined);
  }

  async #fill(): Promise<void> {
    const { size, signal, read } = this.#options;
    for (let attempt = 1; this.#written < size && !this.#failure; attempt += 1) {
      const before = this.#written;
      try {
        await this.#pour(await read(this.#written));
      } catch (error) {
        if (this.#written - before > SPARE_BYTES / 64) attempt = 1;
        const wait = signal.aborted ? null : quickRetryMs(error, attempt);
        if (wait === null) return this.#fail(unwrap(error));
        await sleep(wait, signal).catch(() => undefined);
      }
    }
  }

  async #pour(source: Readable): Promise<void> {
    try {
      for await (const chunk of source as AsyncIterable<Buffer>) {
        if (this.#failure) return;
        await this.#file.write(chunk, 0, chunk.length, this.#written);
        recycle(chunk);
        this.#written += chunk.length;
        this.#wakeAll();
      }
    } finally {
      source.on("error", () => undefined).destroy();
    }
  }

  #fail(error: SlipwayError): void {
    this.#failure ??= error;
    this.#wakeAll();
  }

  #wakeAll(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const wake of waiting) wake();
  }
}

/** Whether the disk takes a blob of this size and still has room for others. */
export async function hasRoom(folder: string, size: number): Promise<boolean> {
  try {
    await mkdir(folder, { recursive: true });
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize > size + SPARE_BYTES;
  } catch {
    return false;
  }
}

/** A file of this blob that no other process writes. */
async function findLeftover(folder: string, name: string): Promise<string | null> {
  for (const entry of await readdir(folder).catch(() => [])) {
    const match = NAME.exec(entry);
    const pid = Number(match?.[2]);
    if (match?.[1] === name && (pid === process.pid || !isAlive(pid))) return join(folder, entry);
  }
  return null;
}

/** How much of a blob an earlier reader left. */
export async function keptBytes(folder: string, digest: string): Promise<number> {
  const path = await findLeftover(folder, digest.replace(":", "-"));
  if (path === null) return 0;
  return await stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

/** What nobody came back for. A file that is still read stays readable without its name. */
export async function sweepSpools(folder: string): Promise<void> {
  for (const entry of await readdir(folder).catch(() => [])) {
    if (!NAME.test(entry)) continue;
    const path = join(folder, entry);
    const age = await stat(path).then(
      (found) => Date.now() - found.mtimeMs,
      () => 0,
    );
    if (age > LEFTOVER_MS) await rm(path, { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
