import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_TAG_POLICY, decideTag, mayServeStale } from "../../../src/proxy/plan/freshness.ts";
import type { TagKnowledge, TagMode } from "../../../src/proxy/plan/freshness.ts";

const now = 1_000_000_000;
const fresh: TagKnowledge = { digest: "sha256:a", checkedAt: now - 1_000, freshUntil: now + 59_000 };
const expired: TagKnowledge = { digest: "sha256:a", checkedAt: now - 120_000, freshUntil: now - 60_000 };
const old: TagKnowledge = { digest: "sha256:a", checkedAt: now - 3_600_000, freshUntil: now - 3_540_000 };
const absent: TagKnowledge = { digest: null, checkedAt: now - 1_000, freshUntil: now + 10_000 };

const table: [TagMode, TagKnowledge | null, string][] = [
  ["revalidate", null, "check"],
  ["revalidate", fresh, "serve"],
  ["revalidate", expired, "serve-and-refresh"],
  ["revalidate", old, "check"],
  ["revalidate", absent, "absent"],
  ["always-check", fresh, "check"],
  ["local-first", old, "serve"],
  ["local-first", null, "check"],
  ["offline", old, "serve"],
  ["offline", null, "absent"],
];

for (const [mode, known, expected] of table) {
  const age =
    known === null
      ? "an unknown tag"
      : known.digest === null
        ? "a tag known to be absent"
        : `a tag checked ${(now - known.checkedAt) / 1000} s ago`;
  test(`${mode}: ${age} is ${expected}`, () => {
    assert.equal(decideTag(known, { ...DEFAULT_TAG_POLICY, mode }, now).kind, expected);
  });
}

test("a check with something to fall back on has a bounded wait; one without has none", () => {
  assert.deepEqual(decideTag(old, DEFAULT_TAG_POLICY, now), { kind: "check", waitMs: 2_000 });
  assert.deepEqual(decideTag(null, DEFAULT_TAG_POLICY, now), { kind: "check", waitMs: null });
});

test("trouble upstream never takes away a held tag; a clear 404 does unless deleted tags are kept", () => {
  assert.equal(mayServeStale(old, DEFAULT_TAG_POLICY, { absent: false }), true);
  assert.equal(mayServeStale(old, DEFAULT_TAG_POLICY, { absent: true }), false);
  assert.equal(mayServeStale(old, { ...DEFAULT_TAG_POLICY, keepDeleted: true }, { absent: true }), true);
  assert.equal(mayServeStale(null, DEFAULT_TAG_POLICY, { absent: false }), false);
});
