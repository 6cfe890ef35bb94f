import assert from "node:assert/strict";
import { test } from "node:test";
import { parseRoute } from "../../../api/v2/routes/parse.ts";
import { isSlipwayError } from "../../../src/core/errors.ts";
import type { ErrorCode } from "../../../src/core/errors.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

function refused(url: string, code: ErrorCode): void {
  assert.throws(
    () => parseRoute(url),
    (error) => isSlipwayError(error, code),
    url,
  );
}

test("each path of the API is recognised with its name and reference", () => {
  const cases: [string, string, string, string][] = [
    ["/v2/", "base", "", ""],
    ["/v2", "base", "", ""],
    ["/v2/_catalog?n=3", "catalog", "", ""],
    ["/v2/a/b/manifests/latest", "manifest", "a/b", "latest"],
    [`/v2/a/b/manifests/${DIGEST}`, "manifest", "a/b", DIGEST],
    [`/v2/a/b/blobs/${DIGEST}`, "blob", "a/b", DIGEST],
    ["/v2/a/b/blobs/uploads/", "uploads", "a/b", ""],
    ["/v2/a/b/blobs/uploads", "uploads", "a/b", ""],
    ["/v2/a/b/blobs/uploads/123?digest=x", "upload", "a/b", "123"],
    ["/v2/a/b/tags/list", "tags", "a/b", ""],
    [`/v2/a/b/referrers/${DIGEST}`, "referrers", "a/b", DIGEST],
  ];
  for (const [url, kind, requested, reference] of cases) {
    const route = parseRoute(url);
    assert.deepEqual([route.kind, route.requested, route.reference], [kind, requested, reference], url);
  }
});

test("names may hold the words of the API", () => {
  assert.equal(parseRoute("/v2/blobs/manifests/tags/manifests/v1").requested, "blobs/manifests/tags");
  assert.equal(parseRoute("/v2/a/blobs/uploads/manifests/v1").requested, "a/blobs/uploads");
  assert.equal(parseRoute("/v2/tags/list/tags/list").requested, "tags/list");
  assert.equal(parseRoute("/v2/uploads/blobs/uploads/").requested, "uploads");
});

test("a one-component name lives in the default project and is repeated as it was written", () => {
  const route = parseRoute("/v2/alpine/manifests/3");
  assert.equal(route.repository, "library/alpine");
  assert.equal(route.requested, "alpine");
});

test("names that are not names are NAME_INVALID", () => {
  const names = [
    "..",
    "a/../b",
    "a/./b",
    "A/b",
    "a/B",
    "a//b",
    "a%2Fb",
    "a%2f..%2fb",
    "%2e%2e/a",
    "a/%00",
    "a b",
    "a%20b",
    "_a",
    "a_",
    "a.-b",
    "é",
  ];
  for (const name of [...names, "a%", "a%zz", `${"a".repeat(300)}`, `a/${"b/".repeat(150)}c`]) {
    refused(`/v2/${name}/manifests/latest`, "NAME_INVALID");
    refused(`/v2/${name}/tags/list`, "NAME_INVALID");
    refused(`/v2/${name}/blobs/${DIGEST}`, "NAME_INVALID");
  }
});

test("encoded characters are decoded exactly once", () => {
  assert.equal(parseRoute(`/v2/a/b/blobs/${DIGEST.replace(":", "%3A")}`).reference, DIGEST);
  assert.equal(parseRoute("/v2/%61/b/manifests/v1").requested, "a/b");
  assert.equal(parseRoute("/v2/a/b/manifests/%2576").reference, "%76");
  refused("/v2/%2561/b/manifests/v1", "NAME_INVALID");
  assert.equal(parseRoute("/v2/a/b/manifests/%").reference, "");
});

test("what is not a path of the API is unknown, and a target without end is refused", () => {
  for (const url of ["/v2/a", "/v2/a/b", "/v2/a/b/manifests", "/v2/_catalog/x", "/v2//", "/v2/a/b/tags/lists", "*", "nonsense"])
    refused(url, "NAME_UNKNOWN");
  refused(`/v2/a/manifests/x?${"y".repeat(20_000)}`, "URI_TOO_LONG");
});

test("the absolute form of a target is understood", () => {
  assert.equal(parseRoute("http://registry.test:5000/v2/a/b/manifests/v1?ns=x").requested, "a/b");
});
