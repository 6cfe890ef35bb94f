/** Calls of one turn share a statement, and never each other's trouble. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SlipwayError } from "../../src/core/errors.ts";
import { gathered } from "../../src/db/gathered.ts";

function collector(fail: (keys: readonly string[]) => Error | null = () => null, max = 3) {
  const batches: (readonly string[])[] = [];
  const call = gathered<string, string>({
    run: async (keys) => {
      batches.push(keys);
      const error = fail(keys);
      if (error) throw error;
      return keys.map((key) => key.toUpperCase());
    },
    identityOf: (key) => key,
    max,
  });
  return { batches, call };
}

test("calls of one turn become one statement, each with its own answer", async () => {
  const { batches, call } = collector();
  assert.deepEqual(await Promise.all([call("a"), call("b")]), ["A", "B"]);
  assert.equal(await call("c"), "C");
  assert.deepEqual(batches, [["a", "b"], ["c"]]);
});

test("the same key never stands twice in a statement, and a statement has a bound", async () => {
  const { batches, call } = collector();
  assert.deepEqual(await Promise.all([call("a"), call("a"), call("b"), call("c"), call("d")]), ["A", "A", "B", "C", "D"]);
  assert.deepEqual(batches.flat().toSorted(), ["a", "a", "b", "c", "d"]);
  assert.ok(batches.every((keys) => keys.length <= 3 && new Set(keys).size === keys.length));
});

test("one bad call fails alone; a database that is away is asked once", async () => {
  const bad = collector((keys) => (keys.includes("bad") ? new Error("refused") : null));
  const settled = await Promise.allSettled([bad.call("a"), bad.call("bad")]);
  assert.deepEqual(
    settled.map(({ status }) => status),
    ["fulfilled", "rejected"],
  );
  const away = collector(() => new SlipwayError("DATABASE_UNAVAILABLE"));
  const lost = await Promise.allSettled([away.call("a"), away.call("b")]);
  assert.ok(lost.every(({ status }) => status === "rejected"));
  assert.equal(away.batches.length, 1);
});
