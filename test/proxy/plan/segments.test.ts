import assert from "node:assert/strict";
import { test } from "node:test";
import { planRanges, SegmentMap } from "../../../src/proxy/plan/segments.ts";

test("segments that touch or overlap become one, in whatever order they arrive", () => {
  const map = new SegmentMap();
  for (const [start, end] of [
    [20, 30],
    [0, 10],
    [8, 20],
    [40, 50],
  ] as const)
    map.add(start, end);
  assert.deepEqual(map.list(), [
    { start: 0, end: 30 },
    { start: 40, end: 50 },
  ]);
  assert.equal(map.bytes, 40);
});

test("a reader sees only what is contiguous from its own position", () => {
  const map = new SegmentMap([
    { start: 0, end: 30 },
    { start: 40, end: 50 },
  ]);
  assert.equal(map.contiguousFrom(5), 30);
  assert.equal(map.contiguousFrom(30), 30);
  assert.equal(map.contiguousFrom(45), 50);
});

test("a resumed fill asks for the gaps only, in parts", () => {
  const map = new SegmentMap([
    { start: 10, end: 20 },
    { start: 50, end: 60 },
  ]);
  assert.deepEqual(map.gaps(100), [
    { start: 0, end: 10 },
    { start: 20, end: 50 },
    { start: 60, end: 100 },
  ]);
  assert.deepEqual(planRanges(map.gaps(60), 16), [
    { start: 0, end: 10 },
    { start: 20, end: 36 },
    { start: 36, end: 50 },
  ]);
});

test("random adds agree with a byte map", () => {
  for (let round = 0; round < 200; round += 1) {
    const bytes = new Array<boolean>(64).fill(false);
    const map = new SegmentMap();
    for (let add = 0; add < 8; add += 1) {
      const start = Math.floor(Math.random() * 64);
      const end = Math.min(64, start + Math.floor(Math.random() * 20));
      map.add(start, end);
      bytes.fill(true, start, end);
    }
    assert.equal(map.bytes, bytes.filter(Boolean).length);
    assert.equal(
      map.gaps(64).reduce((sum, gap) => sum + gap.end - gap.start, 0),
      bytes.filter((there) => !there).length,
    );
  }
});
