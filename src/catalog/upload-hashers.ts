/**
 * Running hashes of uploads, kept by the process that streamed the bytes. A hash serves only while nobody else touched the upload since;
 * all others are made again from storage.
 */
import { type Hash, createHash } from "node:crypto";
import type { DigestAlgorithm } from "../oci/digests.ts";

export class UploadHasher {
  readonly algorithm: DigestAlgorithm;
  readonly #hash: Hash;
  #bytes = 0;

  constructor(algorithm: DigestAlgorithm) {
    this.algorithm = algorithm;
    this.#hash = createHash(algorithm);
  }

  get bytes(): number {
    return this.#bytes;
  }

  update(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#bytes += chunk.byteLength;
  }

  /** May be asked again after more bytes. */
  digest(): string {
    return `${this.algorithm}:${this.#hash.copy().digest("hex")}`;
  }
}

interface Kept {
  readonly hasher: UploadHasher;
  /** Version of the upload's row when the hash was put away. */
  readonly version: number;
}

export class UploadHashers {
  readonly #limit: number;
  readonly #kept = new Map<string, Kept>();
  #dropped = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** Hashes that fell out because of the limit. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Takes the hash out; null unless it covers exactly these bytes and nobody held the upload in between. */
  take(id: string, version: number, bytes: number): UploadHasher | null {
    const kept = this.#kept.get(id);
    if (!kept) return null;
    this.#kept.delete(id);
    return kept.version === version && kept.hasher.bytes === bytes ? kept.hasher : null;
  }

  put(id: string, version: number, hasher: UploadHasher): void {
    this.#kept.set(id, { hasher, version });
    if (this.#kept.size <= this.#limit) return;
    const oldest = this.#kept.keys().next();
    if (oldest.done) return;
    this.#kept.delete(oldest.value);
    this.#dropped += 1;
  }

  forget(id: string): void {
    this.#kept.delete(id);
  }
}
