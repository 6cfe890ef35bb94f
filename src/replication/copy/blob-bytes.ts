/** Where the bytes of a blob come from: straight from the source, in parallel ranges when it is large, or through a spool file. */
import type { Readable } from "node:stream";
import type { RegistryAdapter } from "../adapters/adapter.ts";
import { atSource } from "./at-side.ts";
import type { BlobRef } from "./plan/content.ts";
import { RangeReader } from "./range-reader.ts";
import { hasRoom, keptBytes, Spool } from "./spool.ts";

export interface BlobBytes {
  open(offset: number): Promise<Readable>;
  /** The bytes were not those of the digest: they are read anew. */
  doubt(): Promise<void>;
  /** One of its users is through; `keep` when somebody is to go on with the blob. */
  done(keep: boolean): Promise<void>;
}

export interface BytesTuning {
  /** From this size on a blob is read in parallel ranges. */
  readonly divideBytes: number;
  readonly rangeBytes: number;
  readonly parallel: number;
  /** From this size on a blob goes through a file even for one target, so that a killed process need not read it again. */
  readonly spoolBytes: number;
}

export const BYTES_TUNING: BytesTuning = {
  divideBytes: 64 * 1024 * 1024,
  rangeBytes: 8 * 1024 * 1024,
  parallel: 3,
  spoolBytes: 256 * 1024 * 1024,
};

/** How many large blobs this process reads from each host: some at once fill a line by themselves, and ranges beside them cost memory for nothing. */
export class LargeReads {
  readonly #byHost = new Map<string, number>();

  of(host: string): number {
    return this.#byHost.get(host) ?? 0;
  }

  count(host: string, reader: Readable): void {
    this.#byHost.set(host, this.of(host) + 1);
    reader.once("close", () => {
      const left = this.of(host) - 1;
      if (left > 0) this.#byHost.set(host, left);
      else this.#byHost.delete(host);
    });
  }
}

export interface BytesOptions {
  readonly source: RegistryAdapter;
  readonly reads: LargeReads;
  readonly folder: string;
  readonly bootId: string;
  readonly tuning: BytesTuning;
  readonly signal: AbortSignal;
}

interface Shared {
  /** Null until somebody reads. */
  spool: Promise<Spool> | null;
  users: number;
  keep: boolean;
}

export class BlobSources {
  readonly #options: BytesOptions;
  readonly #shared = new Map<string, Shared>();
  readonly #expected = new Map<string, number>();

  constructor(options: BytesOptions) {
    this.#options = options;
  }

  /** Before anything is opened: how many targets of this batch are going to read the blob. */
  expect(digest: string, readers: number): void {
    this.#expected.set(digest, readers);
  }

  async take(repository: string, blob: BlobRef): Promise<BlobBytes> {
    const { tuning, folder } = this.#options;
    const readers = this.#expected.get(blob.digest) ?? 1;
    const spooled = readers > 1 || blob.size >= tuning.spoolBytes;
    if (!this.#shared.has(blob.digest) && (!spooled || !(await hasRoom(folder, blob.size)))) {
      const nothing = (): Promise<void> => Promise.resolve();
      return { open: (offset) => this.#read(repository, blob, offset), doubt: nothing, done: nothing };
    }
    return this.#share(repository, blob, readers);
  }

  #share(repository: string, blob: BlobRef, readers: number): BlobBytes {
    let shared = this.#shared.get(blob.digest);
    if (!shared) {
      shared = { spool: null, users: readers, keep: false };
      this.#shared.set(blob.digest, shared);
    }
    const mine = shared;
    let used: Promise<Spool> | null = null;
    return {
      open: async (offset) => {
        if (mine.spool === null && readers === 1 && (await this.#startsBehind(blob, offset)))
          return await this.#read(repository, blob, offset);
        used = mine.spool ??= this.#openSpool(repository, blob);
        return (await used).reader(offset);
      },
      doubt: async () => {
        const doubted = used;
        // Another target may have found out first.
        if (doubted === null || mine.spool !== doubted) return;
        mine.spool = doubted.then((spool) => spool.close(false)).then(() => this.#openSpool(repository, blob));
        await mine.spool;
      },
      done: (keep) => this.#done(blob.digest, mine, keep),
    };
  }

  /** The target has more of it than our disk: what it has need not be read for a file. */
  async #startsBehind(blob: BlobRef, offset: number): Promise<boolean> {
    return offset > 0 && (await keptBytes(this.#options.folder, blob.digest)) < offset;
  }

  #openSpool(repository: string, blob: BlobRef): Promise<Spool> {
    const { folder, bootId, signal } = this.#options;
    return Spool.open({ folder, bootId, ...blob, read: (offset) => this.#read(repository, blob, offset), signal });
  }

  /** A reader that was expected does not come: the blob turned out to be there. */
  async unneeded(digest: string): Promise<void> {
    const readers = this.#expected.get(digest) ?? 1;
    this.#expected.set(digest, Math.max(1, readers - 1));
    const shared = this.#shared.get(digest);
    if (shared) await this.#done(digest, shared, false);
  }

  async close(keep: boolean): Promise<void> {
    const left = [...this.#shared.values()];
    this.#shared.clear();
    await Promise.all(left.map((shared) => closeSpool(shared, keep)));
  }

  async #done(digest: string, shared: Shared, keep: boolean): Promise<void> {
    shared.users -= 1;
    shared.keep ||= keep;
    if (shared.users > 0 || this.#shared.get(digest) !== shared) return;
    this.#shared.delete(digest);
    await closeSpool(shared, shared.keep);
  }

  #read(repository: string, blob: BlobRef, offset: number): Promise<Readable> {
    const { source, reads, tuning, signal } = this.#options;
    const { divideBytes, rangeBytes, parallel } = tuning;
    const plain = (start: number, end: number): Promise<Readable> => {
      const range = start === 0 && end === blob.size ? {} : { range: { start, end: end - 1 } };
      return atSource(source, () => source.readBlob(repository, { ...blob, ...range }, signal));
    };
    if (blob.size - offset < divideBytes || !source.honoursRanges) return plain(offset, blob.size);
    const mayDivide = (): boolean => source.honoursRanges && reads.of(source.host) < parallel;
    const reader = new RangeReader({ start: offset, end: blob.size, rangeBytes, parallel, open: plain, mayDivide });
    reads.count(source.host, reader);
    return Promise.resolve(reader);
  }
}

/** What cannot be opened needs no closing. */
async function closeSpool({ spool }: Shared, keep: boolean): Promise<void> {
  const opened = await spool?.catch(() => null);
  await opened?.close(keep);
}
