/** What sources are called at destinations, with Harbor's texts, and when two could be called the same. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { canCollide, checkDestinationName, destinationName } from "../../../src/replication/plan/naming.ts";
import { isSlipwayError } from "../../../src/core/errors.ts";

function says(message: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isSlipwayError(error, "BAD_REQUEST"));
    assert.equal(error.message, message);
    return true;
  };
}

test("a namespace replaces leading path elements", () => {
  const table: [source: string, namespace: string, replaceCount: number, expected: string][] = [
    ["a/b/c/img", "", 2, "a/b/c/img"],
    ["a/b/c/img", "", -1, "a/b/c/img"],
    ["a/b/c/img", "n", -1, "n/img"],
    ["a/b/c/img", "n", -100, "n/img"],
    ["a/b/c/img", "n", 0, "n/a/b/c/img"],
    ["a/b/c/img", "n", 1, "n/b/c/img"],
    ["a/b/c/img", "n/m", 2, "n/m/c/img"],
    ["a/b/c/img", "n", 3, "n/img"],
    ["img", "n", 0, "n/img"],
    ["img", "n", -1, "n/img"],
  ];
  for (const [source, namespace, replaceCount, expected] of table) {
    assert.equal(destinationName(source, { namespace, replaceCount }), expected, `${source} ${namespace} ${replaceCount}`);
  }
  assert.throws(
    () => destinationName("a/b/img", { namespace: "n", replaceCount: 3 }),
    says(
      'the source repository "a/b/img" contains only 2 path components [a b] excepting the last one, but the destination namespace flattening level is 3',
    ),
  );
  assert.throws(
    () => destinationName("img", { namespace: "n", replaceCount: 1 }),
    says(
      'the source repository "img" contains only 0 path components [] excepting the last one, but the destination namespace flattening level is 1',
    ),
  );
});

test("destinations have rules for the number of path elements", () => {
  const two = { minPathElements: 2, maxPathElements: 2 };
  const atLeastTwo = { minPathElements: 2, maxPathElements: null };
  checkDestinationName("a/b", two);
  checkDestinationName("a/b/c", atLeastTwo);
  checkDestinationName("a", { minPathElements: 1, maxPathElements: null });
  assert.throws(
    () => checkDestinationName("a/b/c", two),
    says('the destination repository "a/b/c" contains 3 path components [a b c], but the destination registry only supports 2'),
  );
  assert.throws(
    () => checkDestinationName("a", two),
    says('the destination repository "a" contains 1 path components [a], but the destination registry only supports 2'),
  );
  assert.throws(
    () => checkDestinationName("a", atLeastTwo),
    says('the destination repository "a" contains only 1 path components [a], but the destination registry requires at least 2'),
  );
  assert.throws(() => checkDestinationName(`a/${"b".repeat(300)}`, atLeastTwo), /has a name that is not valid$/);
});

test("two sources can become one destination where elements are dropped or namespaces meet", () => {
  const flat = { registryId: 1, namespace: "n", replaceCount: -1 };
  assert.equal(canCollide([flat]), true);
  assert.equal(canCollide([{ ...flat, replaceCount: 0 }]), false);
  assert.equal(canCollide([{ ...flat, namespace: "" }]), false);
  assert.equal(
    canCollide([
      { ...flat, namespace: "" },
      { registryId: 2, namespace: "", replaceCount: -1 },
    ]),
    false,
  );
  assert.equal(
    canCollide([
      { ...flat, namespace: "" },
      { ...flat, replaceCount: 0 },
    ]),
    true,
    "two namespaces of one registry",
  );
});
