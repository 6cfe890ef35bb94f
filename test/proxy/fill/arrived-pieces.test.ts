/** Memory that is shared between a fill and its readers is never used again while somebody holds it, nor before it was written. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ArrivedPieces } from "../../../src/proxy/fill/arrived-pieces.ts";
import { holdPiece, releasePiece, takePiece } from "../../../src/proxy/fill/piece-memory.ts";

test("what is not written yet can be had, and keeps its memory until it is written and given back", () => {
  const arrived = new ArrivedPieces([]);
  const piece = takePiece();
  const { bytes, written } = arrived.add(0, piece.subarray(0, 1_000));
  assert.equal(bytes.buffer, piece.buffer, "not copied");
  releasePiece(piece);
  assert.equal(arrived.contiguousFrom(0), 1_000);
  assertNotUsedAgain(piece);
  const taken = arrived.take(400);
  assert.equal(taken?.length, 600);
  written();
  arrived.clear();
  assertNotUsedAgain(piece);
  releasePiece(taken!);
});

test("what is written is kept for a reader right behind it, and not for one far away", () => {
  const arrived = new ArrivedPieces([{ start: 0, end: 500 }]);
  assert.equal(arrived.contiguousFrom(0), 500);
  assert.equal(arrived.take(0), null, "in the file, not in memory");
  const [near, far] = [takePiece(), takePiece()];
  const first = arrived.add(500, near.subarray(0, 100));
  const second = arrived.add(8_000_000, far.subarray(0, 100));
  releasePiece(near);
  releasePiece(far);
  first.written();
  second.written();
  const taken = arrived.take(550);
  assert.equal(taken?.length, 50);
  releasePiece(taken!);
  assert.equal(arrived.take(8_000_000), null);
  arrived.clear();
});

test("memory of somebody else is copied: it is valid for one turn only", () => {
  const arrived = new ArrivedPieces([]);
  const theirs = Buffer.from("abc");
  const { bytes } = arrived.add(0, theirs);
  theirs.fill("x");
  assert.equal(Buffer.from(bytes).toString(), "abc");
  assert.equal(Buffer.from(arrived.take(0)!).toString(), "abc");
});

test("after a failure what was not written can still be looked at, and its memory is never used again", () => {
  const arrived = new ArrivedPieces([]);
  const piece = takePiece();
  arrived.add(0, piece);
  releasePiece(piece);
  arrived.abandon();
  assert.equal(arrived.take(10)?.buffer, piece.buffer);
  assertNotUsedAgain(piece);
});

test("with many pieces in use there are no further holds, except of what is nowhere else", () => {
  const arrived = new ArrivedPieces([]);
  const pieces = Array.from({ length: 140 }, () => takePiece());
  assert.equal(holdPiece(pieces[0]!), false);
  const { written } = arrived.add(0, pieces[1]!);
  const taken = arrived.take(0);
  assert.ok(taken);
  releasePiece(taken);
  written();
  assert.equal(arrived.take(0), null);
  arrived.clear();
  for (const piece of pieces) releasePiece(piece);
  const piece = takePiece();
  assert.equal(holdPiece(piece), true);
  releasePiece(piece);
  releasePiece(piece);
});

function assertNotUsedAgain(piece: Uint8Array): void {
  const others = Array.from({ length: 160 }, () => takePiece());
  assert.ok(others.every(({ buffer }) => buffer !== piece.buffer));
  for (const other of others) releasePiece(other);
}
