import assert from "node:assert/strict";
import { test } from "node:test";
import { addSample, estimate } from "../../../src/replication/plan/progress.ts";
import type { ProgressSample } from "../../../src/replication/plan/progress.ts";

function sample(seconds: number, bytesCopied: number, itemsDone = 0, elsewhere = 0): ProgressSample {
  return { atMs: seconds * 1000, bytesCopied, bytesDone: bytesCopied + elsewhere, itemsDone };
}

const goal = { bytesTotal: 10_000, itemsTotal: 100, planned: true };

test("the pace counts copied bytes, the time left whatever is furthest behind", () => {
  assert.deepEqual(estimate([sample(0, 0)], sample(10, 1_000, 50), goal), { bytesPerSecond: 100, secondsLeft: 90 });
  assert.deepEqual(estimate([sample(0, 0)], sample(10, 9_000, 10), goal), { bytesPerSecond: 900, secondsLeft: 90 });
  assert.deepEqual(estimate([sample(0, 0)], sample(10, 0, 100, 10_000), goal), { bytesPerSecond: 0, secondsLeft: 0 });
});

test("no end is told before planning is complete, nor when nothing moves, nor at once", () => {
  assert.deepEqual(estimate([sample(0, 0)], sample(10, 1_000, 50), { ...goal, planned: false }), {
    bytesPerSecond: 100,
    secondsLeft: null,
  });
  assert.deepEqual(estimate([sample(0, 500, 5)], sample(10, 500, 5), goal), { bytesPerSecond: 0, secondsLeft: null });
  assert.deepEqual(estimate([sample(0, 0)], sample(0.5, 1_000, 50), goal), { bytesPerSecond: null, secondsLeft: null });
  assert.deepEqual(estimate([], sample(10, 1_000), goal), { bytesPerSecond: null, secondsLeft: null });
  assert.equal(estimate([sample(0, 1_000)], sample(10, 0), goal).bytesPerSecond, 0, "figures never go back");
});

test("the last half minute counts, in one sample a second however many ask", () => {
  let samples: ProgressSample[] = [sample(0, 0)];
  for (let tenth = 1; tenth <= 1_000; tenth += 1) samples = addSample(samples, sample(tenth / 10, tenth));
  assert.ok(samples.length <= 32, String(samples.length));
  const first = samples[0];
  assert.ok(first && first.atMs >= 68_000 && first.atMs <= 70_000, String(first?.atMs));
  assert.equal(estimate(samples, sample(100, 1_000), goal).bytesPerSecond, 10);
});
