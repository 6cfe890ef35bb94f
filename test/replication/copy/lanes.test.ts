/** Turns at a host, the shared pace, and streams cut into stretches. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "node:test";
import { isSlipwayError } from "../../../src/core/errors.ts";
import { Feed } from "../../../src/replication/copy/feed.ts";
import { Governor } from "../../../src/replication/copy/governor.ts";
import { Lane, Shares } from "../../../src/replication/copy/lanes.ts";
import { RangeReader } from "../../../src/replication/copy/range-reader.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { readAll } from "../../upstream/support.ts";

const SIGNAL = new AbortController().signal;
const away = { increment: () => Promise.reject(new Error("away")) };

function governor(kv = away): Governor {
  return new Governor({ kv, key: "test", workers: () => 2 });
}

test("the largest goes first, and who leaves the queue takes no turn", async () => {
  const lane = new Lane(1);
  const order: number[] = [];
  const leaving = new AbortController();
  let finish = (): void => undefined;
  const first = lane.run(1, () => new Promise<void>((resolve) => (finish = resolve)), SIGNAL);
  const others = [5, 9, 7].map((size) => lane.run(size, () => Promise.resolve(void order.push(size)), SIGNAL));
  const left = lane.run(100, () => Promise.resolve(), leaving.signal);
  leaving.abort();
  await assert.rejects(left, (error) => isSlipwayError(error, "CANCELLED"));
  finish();
  await Promise.all([first, ...others]);
  assert.deepEqual(order, [9, 7, 5]);
  assert.ok(lane.idle);
});

test("a target gets half of the slots, at least one", () => {
  const shares = new Shares(4);
  assert.deepEqual([shares.enter(1), shares.enter(1), shares.enter(1), shares.enter(2)], [true, true, false, true]);
  shares.leave(1);
  assert.equal(shares.enter(1), true);
  assert.equal(new Shares(1).enter(1), true);
});

test("a target gets no more batches than its lanes need, so that other workers find something to do", () => {
  const shares = new Shares(100);
  assert.equal(Array.from({ length: 50 }, () => shares.enter(1)).filter(Boolean).length, 4);
});

test("without the shared counter each worker keeps to its part of the speed", async () => {
  const own = governor();
  own.setSpeed(1_000);
  const begun = Date.now();
  // 64,000 bytes a second are the part of one of two: 200,000 take a little more than two seconds, whenever the first second began.
  for (let sent = 0; sent < 200_000; sent += 10_000) await own.take(10_000, SIGNAL);
  assert.ok(Date.now() - begun > 1_900);
  own.setSpeed(0);
  assert.equal(own.take(1_000_000, SIGNAL), null);
});

test("a stream is cut into stretches without losing a byte", async () => {
  const bytes = randomBytes(1_000_000);
  const source = Readable.from([bytes.subarray(0, 10), bytes.subarray(10, 400_001), bytes.subarray(400_001)]);
  const parts: Buffer[] = [];
  for (const size of [5, 399_995, 1, 599_999]) {
    parts.push(await readAll(new Feed({ source, size, governor: governor(), signal: SIGNAL, stallMs: 1_000 })));
    assert.equal(parts.at(-1)?.length, size);
  }
  assertSameBytes(Buffer.concat(parts), bytes);
});

test("a target that stops taking bytes is given up", async () => {
  const feed = new Feed({
    source: Readable.from([randomBytes(2_000_000), randomBytes(10)]),
    size: 2_000_010,
    governor: governor(),
    signal: SIGNAL,
    stallMs: 50,
  });
  feed.read(0);
  await assert.rejects(new Promise((_resolve, reject) => feed.once("error", reject)), (error) => isSlipwayError(error, "UPSTREAM_TIMEOUT"));
});

test("ranges that come in any order are put together in the right one, a few at a time", async () => {
  const bytes = randomBytes(100_000);
  let open = 0;
  let most = 0;
  const reader = new RangeReader({
    start: 7,
    end: bytes.length,
    rangeBytes: 9_000,
    parallel: 3,
    mayDivide: () => true,
    open: async (start, end) => {
      most = Math.max(most, (open += 1));
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
      const part = Readable.from([bytes.subarray(start, start + 3), bytes.subarray(start + 3, end)]);
      return part.once("close", () => (open -= 1));
    },
  });
  assertSameBytes(await readAll(reader), bytes.subarray(7));
  assert.ok(most <= 4, `${most} at once`);
});

test("a source without ranges is read in one piece", async () => {
  const bytes = randomBytes(50_000);
  const opened: number[] = [];
  const reader = new RangeReader({
    start: 0,
    end: bytes.length,
    rangeBytes: 9_000,
    parallel: 3,
    mayDivide: () => opened.length === 0,
    open: (start, end) => {
      opened.push(start);
      return Promise.resolve(Readable.from([bytes.subarray(start, end)]));
    },
  });
  assertSameBytes(await readAll(reader), bytes);
  assert.deepEqual(opened, [0, 9_000]);
});
