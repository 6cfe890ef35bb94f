/** Compares bytes without the diff of deepEqual, which takes gigabytes for megabytes. */
import assert from "node:assert/strict";

export function assertSameBytes(actual: Uint8Array, expected: Uint8Array, message = "bytes"): void {
  assert.equal(actual.length, expected.length, `${message}: length`);
  const first = Buffer.compare(actual, expected) === 0 ? -1 : actual.findIndex((byte, index) => byte !== expected[index]);
  assert.equal(first, -1, `${message}: differ from position ${first} on`);
}
