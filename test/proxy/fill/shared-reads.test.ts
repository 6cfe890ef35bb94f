import assert from "node:assert/strict";
import { test } from "node:test";
import { holdPiece, PIECE_BYTES, releasePiece } from "../../../src/proxy/fill/piece-memory.ts";
import { SharedReads } from "../../../src/proxy/fill/shared-reads.ts";

const CONTENT = Buffer.from(Array.from({ length: 3 * PIECE_BYTES }, (_, index) => (index * 7) % 251));

function countedReads(): { positions: number[]; read: Parameters<SharedReads["take"]>[2] } {
  const positions: number[] = [];
  return {
    positions,
    read: async (buffer, { length, position }) => {
      positions.push(position);
      await new Promise<void>((resolve) => setImmediate(resolve));
      return CONTENT.copy(buffer, 0, position, Math.min(position + length, CONTENT.length));
    },
  };
}

async function readAll(reads: SharedReads, read: Parameters<SharedReads["take"]>[2]): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let position = 0; position < CONTENT.length;) {
    const piece = await reads.take(position, CONTENT.length - position, read);
    assert.ok(piece !== null);
    parts.push(Buffer.from(piece));
    position += piece.length;
    releasePiece(piece);
  }
  return Buffer.concat(parts);
}

test("readers that come to the same place together cost one read, and each gets the right bytes", async () => {
  const reads = new SharedReads();
  const { positions, read } = countedReads();
  const all = await Promise.all(Array.from({ length: 20 }, () => readAll(reads, read)));
  for (const bytes of all) assert.ok(bytes.equals(CONTENT));
  assert.deepEqual(positions, [0, PIECE_BYTES, 2 * PIECE_BYTES]);
  // One that comes right behind finds what was read last.
  const late = await reads.take(2 * PIECE_BYTES + 5, 1_000, read);
  assert.deepEqual(late?.subarray(0, 3), CONTENT.subarray(2 * PIECE_BYTES + 5, 2 * PIECE_BYTES + 8));
  if (late) releasePiece(late);
  assert.equal(positions.length, 3);
  reads.close();
});

test("a read that fails fails for those who share it, and the next one reads again", async () => {
  const reads = new SharedReads();
  const fails = (): Promise<number> => Promise.reject(new Error("the disk is gone"));
  await Promise.all([1, 2].map(() => assert.rejects(reads.take(0, 10, fails), /disk/)));
  const { read } = countedReads();
  const piece = await reads.take(0, 10, read);
  assert.deepEqual(piece, CONTENT.subarray(0, 10));
  if (piece) releasePiece(piece);
  reads.close();
});

test("after a new beginning nothing of the former content is given, and after the end nothing is kept", async () => {
  const reads = new SharedReads();
  const { positions, read } = countedReads();
  const before = reads.take(0, 100, read);
  reads.clear();
  const after = await reads.take(0, 100, read);
  assert.deepEqual(positions, [0, 0]);
  for (const piece of [await before, after]) if (piece) releasePiece(piece);
  reads.close();
  const last = await reads.take(0, 100, read);
  assert.ok(last);
  releasePiece(last);
  assert.equal(holdPiece(last), false, "somebody still holds it");
});
