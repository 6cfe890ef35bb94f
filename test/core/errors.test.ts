import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { ERROR_CATALOGUE, SlipwayError, toSlipwayError } from "../../src/core/errors.ts";

test("docs/errors.md lists every code of the catalogue with its status, and nothing else", async () => {
  const text = await readFile(new URL("../../docs/errors.md", import.meta.url), "utf8");
  const documented = [...text.matchAll(/^\| `([A-Z_]+)` \| (\d{3}) \| (yes|no) \|/gm)].map(
    (match) => `${match[1]} ${match[2]} ${match[3]}`,
  );
  const expected = Object.entries(ERROR_CATALOGUE).map(([code, spec]) => `${code} ${spec.status} ${spec.retryable ? "yes" : "no"}`);
  assert.deepEqual(documented.toSorted(), expected.toSorted());
});

test("an error of the catalogue keeps its cause; anything else becomes INTERNAL with the cause kept", () => {
  const cause = new Error("disk on fire");
  assert.equal(new SlipwayError("STORAGE_UNAVAILABLE", { cause }).cause, cause);
  const wrapped = toSlipwayError(cause);
  assert.equal(wrapped.code, "INTERNAL");
  assert.equal(wrapped.status, 500);
  assert.equal(wrapped.cause, cause);
  assert.ok(!wrapped.message.includes("fire"));
});
