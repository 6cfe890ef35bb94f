/** What the tests of blob stores share: content, digests, and errors told by their code. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { isSlipwayError } from "../../src/core/errors.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";

export const MIB = 1024 * 1024;

export type Check = (title: string, run: (store: BlobStore, open: () => Promise<BlobStore>, folder: string) => Promise<void>) => void;

export function digestOf(bytes: Uint8Array, algorithm: "sha256" | "sha512" = "sha256"): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}

/** In pieces of uneven size, as a socket gives them. */
export async function* chunksOf(bytes: Uint8Array, size = 61_000): AsyncGenerator<Uint8Array> {
  for (let from = 0; from < bytes.byteLength; from += size) yield bytes.subarray(from, from + size);
}

export async function collect(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export function hasCode(...codes: readonly Parameters<typeof isSlipwayError>[1][]) {
  return (error: unknown): boolean => {
    const found = error instanceof Error && error.cause !== undefined ? `${String(error)} (${String(error.cause)})` : String(error);
    assert.ok(isSlipwayError(error, ...codes), `expected ${codes.join(" or ")}, got ${found}`);
    return true;
  };
}

/** The open sessions of a store at one moment: the cut-off lies in the future, whatever the clock of the service. */
export async function openSessions(store: BlobStore): Promise<string[]> {
  return await store.listSessions(Date.now() + 60_000, 100);
}
