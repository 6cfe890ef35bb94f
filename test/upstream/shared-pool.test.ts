/** Shared memory is used again, and bounded. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedPool } from "../../src/upstream/shared-pool.ts";

test("what is given back is taken again, and beyond the limit there is ordinary memory, which is not kept", () => {
  const pool = new SharedPool(1_000, 2);
  const [first, second, third] = [pool.take(), pool.take(), pool.take()];
  assert.deepEqual(
    [first, second, third].map(({ buffer }) => buffer instanceof SharedArrayBuffer),
    [true, true, false],
  );
  assert.equal(third.length, 1_000);
  pool.give(third);
  pool.give(second);
  const again = [pool.take(), pool.take()];
  assert.equal(again[0]?.buffer, second.buffer);
  assert.ok(!(again[1]?.buffer instanceof SharedArrayBuffer));
});
