/**
 * The digest of a file that grows in any order. Chunks that continue the hashed prefix are hashed as they are written; what arrived ahead of it is read
 * back, from the page cache as a rule, once the gap before it is closed. The hashing itself is the scribe's.
 */
import type { HashName } from "./scribe-thread.ts";
import type { Scribe } from "./scribe.ts";
import type { StagingFile } from "./staging-file.ts";

/** Between two such parts the scribe does something for others. */
const PART_BYTES = 1024 * 1024;

export class PrefixHash {
  readonly #algorithm: string;
  readonly #file: StagingFile;
  readonly #scribe: Scribe;
  #hash: HashName;
  #position = 0;
  #catchingUp: Promise<void> | null = null;

  constructor(digest: string, file: StagingFile, scribe: Scribe) {
    this.#algorithm = digest.slice(0, digest.indexOf(":"));
    this.#file = file;
    this.#scribe = scribe;
    this.#hash = scribe.beginHash(this.#algorithm);
  }

  get position(): number {
    return this.#position;
  }

  /** The hash for a chunk that is about to be written; null when it does not continue what is hashed. */
  claim(position: number, length: number): HashName | null {
    if (this.#catchingUp !== null || position !== this.#position) return null;
    this.#position += length;
    return this.#hash;
  }

  /** A chunk without a hash is in the file. When what is hashed lies behind it, after a resumption for example, the gap is read back while the rest is on its way. */
  add(position: number): void {
    if (this.#catchingUp === null && this.#file.segments.contiguousFrom(this.#position) > position) this.catchUpBehind();
  }

  /** Hashes up to the end of what is contiguous. Concurrent callers share one pass. */
  async catchUp(): Promise<void> {
    while (this.#catchingUp !== null || this.#file.segments.contiguousFrom(this.#position) > this.#position) {
      this.#catchingUp ??= this.#readOn().finally(() => {
        this.#catchingUp = null;
      });
      await this.#catchingUp;
    }
  }

  /** The same without waiting; what it cannot read shows at the end. */
  catchUpBehind(): void {
    if (this.#catchingUp === null) void this.catchUp().catch(() => undefined);
  }

  /** Resolves when nothing is read from the file any more. */
  async settled(): Promise<void> {
    await this.#catchingUp?.catch(() => undefined);
  }

  async digest(): Promise<string> {
    return `${this.#algorithm}:${await this.#scribe.digest(this.#hash)}`;
  }

  reset(): void {
    this.close();
    this.#hash = this.#scribe.beginHash(this.#algorithm);
    this.#position = 0;
  }

  close(): void {
    this.#scribe.forget(this.#hash);
  }

  async #readOn(): Promise<void> {
    for (;;) {
      const length = Math.min(PART_BYTES, this.#file.segments.contiguousFrom(this.#position) - this.#position);
      if (length <= 0) return;
      const part = { position: this.#position, length };
      const count = await this.#file.hashBy(this.#scribe, part, this.#hash);
      if (count < length) throw new Error("the staging file is shorter than its progress says");
      this.#position += count;
    }
  }
}
