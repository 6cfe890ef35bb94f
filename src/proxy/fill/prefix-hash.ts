/**
 * The digest of a file that grows in any order. Chunks that continue the hashed prefix are hashed as they pass; what arrived ahead of it is read
 * back, from the page cache as a rule, once the gap before it is closed.
 */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import type { StagingFile } from "./staging-file.ts";

const READ_BYTES = 1024 * 1024;

export class PrefixHash {
  readonly #algorithm: string;
  readonly #file: StagingFile;
  #hash: Hash;
  #position = 0;
  #catchingUp: Promise<void> | null = null;

  constructor(digest: string, file: StagingFile) {
    this.#algorithm = digest.slice(0, digest.indexOf(":"));
    this.#file = file;
    this.#hash = createHash(this.#algorithm);
  }

  get position(): number {
    return this.#position;
  }

  /** A chunk on its way into the file; false when it does not continue what is hashed. */
  addAhead(position: number, chunk: Uint8Array): boolean {
    if (this.#catchingUp !== null || position !== this.#position) return false;
    this.#hash.update(chunk);
    this.#position += chunk.length;
    return true;
  }

  /** Such a chunk is in the file. When what is hashed lies behind it, after a resumption for example, the gap is read back while the rest is on its way. */
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

  digest(): string {
    return `${this.#algorithm}:${this.#hash.copy().digest("hex")}`;
  }

  reset(): void {
    this.#hash = createHash(this.#algorithm);
    this.#position = 0;
  }

  async #readOn(): Promise<void> {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    for (;;) {
      const end = this.#file.segments.contiguousFrom(this.#position);
      if (end <= this.#position) return;
      const count = await this.#file.read(buffer, Math.min(READ_BYTES, end - this.#position), this.#position);
      if (count === 0) throw new Error("the staging file is shorter than its progress says");
      this.#hash.update(buffer.subarray(0, count));
      this.#position += count;
    }
  }
}
