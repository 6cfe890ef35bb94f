/** Memory that is shared between a fill and its readers is never used again while somebody holds it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { holdPiece, releasePiece, takePiece } from "../../../src/proxy/fill/piece-memory.ts";
import { RecentPieces } from "../../../src/proxy/fill/recent-pieces.ts";

test("a reader right behind the fill gets its bytes, and keeps them until it gives them back", () => {
  const recent = new RecentPieces();
  const piece = takePiece();
  assert.equal(recent.take(0), null);
  recent.add(0, piece.subarray(0, 1_000));
  releasePiece(piece);
  const taken = recent.take(400);
  assert.equal(taken?.length, 600);
  recent.clear();
  const others = Array.from({ length: 40 }, () => takePiece());
  assert.ok(others.every(({ buffer }) => buffer !== piece.buffer));
  releasePiece(taken!);
  for (const other of others) releasePiece(other);
});

test("far from its reader, and of memory that is not its own, nothing is kept", () => {
  const recent = new RecentPieces();
  const piece = takePiece();
  recent.add(0, piece);
  assert.equal(recent.take(0), null, "nobody had asked");
  recent.add(8_000_000, piece);
  assert.equal(recent.take(8_000_000), null, "too far ahead of who asks");
  recent.add(8_000_000, Buffer.alloc(10));
  assert.equal(recent.take(8_000_000), null);
  releasePiece(piece);
});

test("with many pieces in use there are no further holds", () => {
  const pieces = Array.from({ length: 80 }, () => takePiece());
  assert.equal(holdPiece(pieces[0]!), false);
  for (const piece of pieces) releasePiece(piece);
  const [piece] = [takePiece()];
  assert.equal(holdPiece(piece), true);
  releasePiece(piece);
  releasePiece(piece);
});
