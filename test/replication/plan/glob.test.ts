/** Patterns as doublestar 1.3.4 reads them; the table was compared with it, and so were 300,000 random pairs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { compileGlob } from "../../../src/replication/plan/glob.ts";
import { isSlipwayError } from "../../../src/core/errors.ts";

test("names match as in doublestar", () => {
  const table: [pattern: string, matching: string[], other: string[]][] = [
    ["", ["", "a", "a/b"], []],
    ["*", ["", "a", "v1.2"], ["a/b"]],
    ["**", ["", "a", "a/b", "a/b/c"], []],
    ["a/*", ["a/b"], ["a", "a/b/c", "b/a"]],
    ["a/**", ["a/b", "a/b/c"], ["a", "ab"]],
    ["**/c", ["c", "b/c", "a/b/c"], ["abc", "a/cb"]],
    ["a/**/d", ["a/d", "a/b/d", "a/b/c/d"], ["a", "d", "a/b/d/e"]],
    ["**/b/**", ["b/x", "a/b/x/y"], ["b", "a/b"]],
    ["abc**", ["abc", "abcd"], ["abc/b"]],
    ["a**/b", ["a/b", "ax/b"], ["a/x/b"]],
    ["library/hello-?", ["library/hello-1"], ["library/hello-", "library/hello-12"]],
    ["v[0-9]*", ["v1", "v1.2"], ["v", "vx"]],
    ["v[^0-9]", ["vx"], ["v1", "v"]],
    ["[a-cx]", ["a", "b", "x"], ["d", "-"]],
    ["[\\]a]", ["]", "a"], ["b"]],
    ["[\\-x]", ["-", "x"], ["a"]],
    ["{a,b}", ["a", "b"], ["c", "{a,b}"]],
    ["a{,bc}", ["a", "abc"], ["ab"]],
    ["a/{b/c,c/b}", ["a/b/c", "a/c/b"], ["a/b", "a/c/c"]],
    ["{a/{b,c},abc}", ["a/b", "a/c", "abc"], ["a/b/c"]],
    ["{library,team-*}/**/app", ["library/app", "team-x/y/app"], ["other/app"]],
    ["x/{a/**,b}", ["x/a/b/c", "x/b"], ["x/a"]],
    // Only a whole element is a double star, and a brace before it makes it a part of one.
    ["x/{**,b}", ["x/a", "x/b"], ["x/a/b"]],
    ["a\\*b", ["a*b"], ["ab", "axb"]],
    ["a\\{b", ["a{b"], ["ab"]],
    ["a*b*c", ["abc", "axbxc", "abcbc"], ["ab", "acb"]],
    ["V1", ["V1"], ["v1"]],
    ["v1", ["v1"], ["", "v1/"]],
    ["*-{alpine,slim}", ["1-alpine", "-slim"], ["1-bookworm"]],
  ];
  for (const [pattern, matching, other] of table) {
    const glob = compileGlob(pattern);
    for (const name of matching) assert.equal(glob.matches(name), true, `${pattern} ${name}`);
    for (const name of other) assert.equal(glob.matches(name), false, `${pattern} ${name}`);
  }
});

test("patterns without wildcards are names, and first elements narrow a listing", () => {
  const table: [pattern: string, literals: string[] | null, namespaces: string[] | null][] = [
    ["library/alpine", ["library/alpine"], ["library"]],
    ["library/{alpine,busybox}", ["library/alpine", "library/busybox"], ["library"]],
    ["{a,b}/{c,d}", ["a/c", "a/d", "b/c", "b/d"], ["a", "b"]],
    ["a/b\\*", ["a/b*"], ["a"]],
    ["{a,b}/**", null, ["a", "b"]],
    ["library/*", null, ["library"]],
    ["team-*/x", null, null],
    ["**", null, null],
    ["", null, null],
    ["{a/b,*/c}", null, null],
  ];
  for (const [pattern, literals, namespaces] of table) {
    const glob = compileGlob(pattern);
    assert.deepEqual([glob.literals, glob.namespaces], [literals, namespaces], pattern);
  }
});

test("what is no pattern is refused with the reason", () => {
  const wrong = ["[", "[]a]", "[^", "a[", "[x-]", "[-x]", "[a-b-c]", "{a", "{a,{b}", "a\\", "{a,b\\}", "{[a,b],c}", "[a\\]", "a\u0000"];
  for (const pattern of [...wrong, "x".repeat(1025), "{a,b}".repeat(10)]) {
    assert.throws(
      () => compileGlob(pattern),
      (error) => isSlipwayError(error, "BAD_REQUEST") && error.message.startsWith("invalid pattern "),
      pattern,
    );
  }
});

// A matcher that tries one way after the other would not come back.
test("no pattern takes long, whatever the name", () => {
  const evil = [`${"*a".repeat(200)}b`, `${"**/a/".repeat(100)}b`, `${"{a,aa}".repeat(9)}*b`];
  const name = Array.from({ length: 100 }, () => "aaa").join("/");
  for (const pattern of evil) for (const text of [name, "a".repeat(500)]) assert.equal(compileGlob(pattern).matches(text), false);
});
