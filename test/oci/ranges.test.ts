// Ranges as clients send them, and as nobody should.
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseContentRange } from "../../src/oci/content-range.ts";
import { parseRange } from "../../src/oci/ranges.ts";

const SIZE = 2048;

function range(start: number, end: number): object {
  return { kind: "range", start, end };
}

test("single ranges are clamped to the content", () => {
  assert.deepEqual(parseRange("bytes=500-1499", SIZE), range(500, 1499));
  assert.deepEqual(parseRange("bytes=500-", SIZE), range(500, 2047));
  assert.deepEqual(parseRange("bytes=-500", SIZE), range(1548, 2047));
  assert.deepEqual(parseRange("bytes=2000-5000", SIZE), range(2000, 2047));
  assert.deepEqual(parseRange("bytes=-5000", SIZE), range(0, 2047));
  assert.deepEqual(parseRange("Bytes=0-0", SIZE), range(0, 0));
  assert.deepEqual(parseRange(`bytes=0-${"9".repeat(40)}`, SIZE), range(0, 2047));
});

test("ranges that name no byte are unsatisfiable", () => {
  for (const header of ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0", `bytes=${"9".repeat(200)}-`])
    assert.deepEqual(parseRange(header, SIZE), { kind: "unsatisfiable" }, header);
  assert.deepEqual(parseRange("bytes=1-", 0), { kind: "unsatisfiable" });
});

test("several ranges, other units and nonsense are ignored", () => {
  const ignored = [
    undefined,
    "",
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes=0-1,5-6",
    "items=0-5",
    "bytes=1.5-2",
    "bytes=--5",
    `bytes=${"0-1,".repeat(5000)}`,
  ];
  for (const header of ignored) assert.deepEqual(parseRange(header, SIZE), { kind: "full" }, header);
  assert.deepEqual(parseRange("bytes=0-", 0), { kind: "full" });
});

test("the range of a chunk has no unit, and the HTTP form is understood", () => {
  assert.deepEqual(parseContentRange("0-1023"), { start: 0, end: 1023, length: 1024 });
  assert.deepEqual(parseContentRange("bytes 5-9/*"), { start: 5, end: 9, length: 5 });
  for (const header of ["", "5", "-5", "9-5", "a-b", "0-99999999999999999999", "0-1,2-3"])
    assert.equal(parseContentRange(header), null, header);
});
