/** What policies select: by name, tag, label, type, age, number and version. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Artifact } from "../../../src/replication/adapters/adapter.ts";
import { compileFilters } from "../../../src/replication/plan/filters.ts";
import type { PolicyFilter } from "../../../src/replication/plan/policy.ts";
import { isSlipwayError } from "../../../src/core/errors.ts";

const NOW = new Date("2026-11-26T12:00:00Z");

function filter(type: PolicyFilter["type"], value: PolicyFilter["value"], fields: Partial<PolicyFilter> = {}): PolicyFilter {
  return { type, value, kind: "glob", decoration: "", ...fields };
}

function artifact(tag: string | null, fields: Partial<Artifact> = {}): Artifact {
  return { tag, digest: null, mediaType: null, artifactType: null, pushedAt: null, labels: null, ...fields };
}

/** Offers page by page, and returns what is selected in the end. */
function select(filters: PolicyFilter[], artifacts: Artifact[], pageSize = 2): (string | null)[] {
  const selector = compileFilters(filters, NOW).selector();
  const selected: Artifact[] = [];
  for (let at = 0; at < artifacts.length; at += pageSize) selected.push(...selector.offer(artifacts.slice(at, at + pageSize)));
  return [...selected, ...selector.finish()].map(({ tag }) => tag);
}

const tags = (names: (string | null)[]): Artifact[] => names.map((name) => artifact(name));

test("repositories are selected by all names that are given, and not by those that are excluded", () => {
  const both = compileFilters([filter("name", "{library,team}/**"), filter("name", "**/*-test", { decoration: "excludes" })]);
  const table: [name: string, expected: boolean][] = [
    ["library/app", true],
    ["team/x/app", true],
    ["other/app", false],
    ["library/app-test", false],
  ];
  for (const [name, expected] of table) assert.equal(both.matchesRepository(name), expected, name);
  assert.deepEqual([both.names, both.namespaces], [null, ["library", "team"]]);
  const named = compileFilters([
    filter("name", "library/{a,b,c}"),
    filter("name", "library/b", { decoration: "excludes" }),
    filter("name", "library/(a|b)", { kind: "regex" }),
  ]);
  assert.deepEqual([named.names, named.namespaces], [["library/a"], ["library"]]);
  for (const none of [[], [filter("name", "")], [filter("name", "", { decoration: "excludes" })]]) {
    const all = compileFilters(none);
    assert.deepEqual([all.names, all.namespaces, all.matchesRepository("any/thing")], [null, null, true]);
  }
  const regex = compileFilters([filter("name", "library/[a-z]+", { kind: "regex" })]);
  assert.deepEqual(
    [
      regex.namespaces,
      regex.matchesRepository("library/app"),
      regex.matchesRepository("my-library/app"),
      regex.matchesRepository("library/a/b"),
    ],
    [["library"], true, false, false],
    "the whole name has to match",
  );
});

test("tags are selected by pattern, expression or version", () => {
  const list = tags(["v1.0.0", "v1.2.3", "v2.0.0-rc.1", "1.4", "latest", "1.9.0_5", null]);
  const table: [filters: PolicyFilter[], expected: (string | null)[]][] = [
    [[], ["v1.0.0", "v1.2.3", "v2.0.0-rc.1", "1.4", "latest", "1.9.0_5", null]],
    [[filter("tag", "")], ["v1.0.0", "v1.2.3", "v2.0.0-rc.1", "1.4", "latest", "1.9.0_5", null]],
    [[filter("tag", "**")], ["v1.0.0", "v1.2.3", "v2.0.0-rc.1", "1.4", "latest", "1.9.0_5", null]],
    [[filter("tag", "v*")], ["v1.0.0", "v1.2.3", "v2.0.0-rc.1"]],
    [[filter("tag", "v*", { decoration: "excludes" })], ["1.4", "latest", "1.9.0_5", null]],
    [[filter("tag", "*", { decoration: "excludes" })], []],
    [
      [filter("tag", "v*"), filter("tag", "*-rc*", { decoration: "excludes" })],
      ["v1.0.0", "v1.2.3"],
    ],
    [[filter("tag", "v\\d+\\.\\d+\\.\\d+", { kind: "regex" })], ["v1.0.0", "v1.2.3"]],
    [[filter("tag", "^1.2", { kind: "semver" })], ["v1.2.3", "1.9.0_5"]],
    [[filter("tag", ">=2.0.0-0", { kind: "semver" })], ["v2.0.0-rc.1"]],
    [[filter("tag", "1.x", { kind: "semver", decoration: "excludes" })], ["v2.0.0-rc.1", "1.4", "latest", null]],
    [[filter("resource", "image")], ["v1.0.0", "v1.2.3", "v2.0.0-rc.1", "1.4", "latest", "1.9.0_5", null]],
  ];
  for (const [filters, expected] of table) assert.deepEqual(select(filters, list), expected, JSON.stringify(filters));
});

test("labels have to be there all together", () => {
  const list = [
    artifact("both", { labels: ["a", "b"] }),
    artifact("one", { labels: ["a"] }),
    artifact("none", { labels: [] }),
    artifact("unknown"),
  ];
  assert.deepEqual(select([filter("label", ["a", "b"])], list), ["both"]);
  assert.deepEqual(select([filter("label", ["a", "b"], { decoration: "excludes" })], list), ["one", "none", "unknown"]);
  assert.deepEqual(select([filter("label", [])], list), ["both", "one", "none", "unknown"]);
});

test("types and ages are judged where they are known", () => {
  const list = [
    artifact("helm", {
      mediaType: "m/manifest",
      artifactType: "application/vnd.cncf.helm.config.v1+json",
      pushedAt: new Date("2026-11-26T11:00:00Z"),
    }),
    artifact("index", { mediaType: "m/index", pushedAt: new Date("2026-11-20T12:00:00Z") }),
    artifact("unknown"),
  ];
  const table: [filter: PolicyFilter, expected: string[]][] = [
    [filter("media_type", "m/index"), ["index"]],
    [filter("media_type", ["m/index", "m/man*"]), ["helm", "index"]],
    [filter("media_type", "m/index", { decoration: "excludes" }), ["helm", "unknown"]],
    [filter("artifact_type", ".*helm.*", { kind: "regex" }), ["helm"]],
    [filter("artifact_type", "application/**", { decoration: "excludes" }), ["index", "unknown"]],
    [filter("max_age", 86_400), ["helm"]],
    [filter("max_age", 7 * 86_400), ["helm", "index"]],
    [filter("max_age", 6 * 86_400), ["helm", "index"]],
  ];
  for (const [one, expected] of table) assert.deepEqual(select([one], list), expected, JSON.stringify(one));
});

test("the newest are kept while the list goes by, by time or by version", () => {
  const day = (number: number): Date => new Date(Date.UTC(2026, 0, number));
  const list = Array.from({ length: 1000 }, (_, index) => artifact(`t${(index * 617) % 1000}`, { pushedAt: day((index * 617) % 1000) }));
  assert.deepEqual(select([filter("newest", 3)], list), ["t999", "t998", "t997"]);
  assert.deepEqual(select([filter("newest", 3), filter("tag", "*5")], list), ["t995", "t985", "t975"]);
  assert.deepEqual(select([filter("newest", 5)], [artifact("x", { pushedAt: day(1) }), artifact(null), artifact("y")]), ["x", "y"]);
  assert.deepEqual(select([filter("newest", 2, { kind: "semver" })], tags(["1.9.0", "1.10.0", "latest", "2.0.0-rc.1", "1.2.0"])), [
    "2.0.0-rc.1",
    "1.10.0",
  ]);
  assert.deepEqual(select([filter("newest", 2), filter("newest", 1)], [artifact("a"), artifact("b")]), ["b"], "names decide among equals");
});

test("signatures go with what they belong to", () => {
  const signature = `sha256-${"a".repeat(64)}.sig`;
  const referrers = `sha256-${"b".repeat(64)}`;
  const list = [...tags(["v1", signature, referrers]), artifact(null, { subject: `sha256:${"c".repeat(64)}` })];
  for (const filters of [[], [filter("tag", "**")], [filter("tag", "*")]]) {
    assert.deepEqual(select(filters, list), ["v1", signature, referrers, null], JSON.stringify(filters));
  }
  for (const filters of [[filter("tag", "v*")], [filter("tag", "x", { decoration: "excludes" })], [filter("newest", 9)]]) {
    assert.deepEqual(select(filters, list), ["v1"], JSON.stringify(filters));
  }
});

test("filters tell what has to be known, and which platforms are wanted", () => {
  const none = { times: false, labels: false, mediaTypes: false, artifactTypes: false };
  assert.deepEqual(compileFilters([filter("tag", "v*"), filter("newest", 3, { kind: "semver" })]).needs, none);
  assert.deepEqual(compileFilters([filter("newest", 3)]).needs, { ...none, times: true });
  assert.deepEqual(compileFilters([filter("max_age", 3), filter("label", ["a"])]).needs, { ...none, times: true, labels: true });
  assert.deepEqual(compileFilters([filter("media_type", "a"), filter("artifact_type", "a")]).needs, {
    ...none,
    mediaTypes: true,
    artifactTypes: true,
  });
  assert.equal(compileFilters([]).platforms, null);
  assert.deepEqual(compileFilters([filter("platform", "linux/amd64")]).platforms, ["linux/amd64"]);
  assert.deepEqual(
    compileFilters([filter("platform", ["linux/amd64", "linux/arm64"]), filter("platform", ["linux/arm64", "windows/amd64"])]).platforms,
    ["linux/arm64"],
  );
  assert.deepEqual(
    [compileFilters([filter("name", "a/**")]).takesEverything, compileFilters([filter("tag", "a")]).takesEverything],
    [true, false],
  );
});

test("expressions take time in proportion to the text", () => {
  const evil = compileFilters([filter("tag", "(a+)+b", { kind: "regex" })]);
  assert.deepEqual(evil.selector().offer([artifact("a".repeat(128))]), []);
  for (const wrong of ["(a", "(?=a)", "a{1001}", "((a{100}){100}){100}", "\\1", "x".repeat(1025)]) {
    assert.throws(
      () => compileFilters([filter("tag", wrong, { kind: "regex" })]),
      (error) => isSlipwayError(error, "BAD_REQUEST"),
      wrong,
    );
  }
});
