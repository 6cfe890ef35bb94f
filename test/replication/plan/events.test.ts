/** Which changes of local content concern a policy. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { changesFor } from "../../../src/replication/plan/events.ts";
import type { ContentChange } from "../../../src/replication/plan/events.ts";
import type { Policy, PolicyFilter } from "../../../src/replication/plan/policy.ts";

const A = `sha256:${"a".repeat(64)}`;
const B = `sha256:${"b".repeat(64)}`;

function policy(parts: { filters?: PolicyFilter[]; deletion?: boolean; targets?: number[] } = {}): Policy {
  const destinations = (parts.targets ?? [7]).map((registryId, position) => ({
    position,
    registryId,
    namespace: "",
    replaceCount: -1,
    ownNamespace: null,
    ownReplaceCount: null,
  }));
  return {
    id: 1,
    name: "p",
    description: "",
    creator: "",
    sourceRegistryId: 0,
    destinations,
    destNamespace: "",
    destNamespaceReplaceCount: -1,
    trigger: { type: "event_based" },
    timezone: "UTC",
    filters: parts.filters ?? [],
    deletion: parts.deletion ?? false,
    override: true,
    enabled: true,
    speedKb: 0,
    copyByChunk: false,
    singleActive: false,
    overlap: "queue-one",
    mirror: false,
    maxDeletions: 100,
    maxDeletionPercent: 10,
    createdAt: new Date(0),
    updatedAt: new Date(0),
  };
}

function change(parts: Partial<ContentChange>): ContentChange {
  return {
    type: "tag",
    repository: "team/app",
    digest: A,
    tag: "v1",
    mediaType: null,
    artifactType: null,
    origin: "push",
    originRegistry: null,
    ...parts,
  };
}

function filter(type: "name" | "tag" | "label", value: string | string[]): PolicyFilter {
  return { type, kind: "glob", value, decoration: "matches" };
}

function noted(of: Policy, ...changes: ContentChange[]): string[] {
  return changesFor(of, changes).map(
    ({ action, repository, reference, digest }) => `${action} ${repository} ${reference} ${digest === null ? "-" : digest.slice(7, 8)}`,
  );
}

test("a push by tag is carried out once, by its tag; content without a tag by its digest", () => {
  const pushed = [change({ type: "push", tag: null }), change({})];
  assert.deepEqual(noted(policy(), ...pushed), ["copy team/app v1 a"]);
  assert.deepEqual(noted(policy(), change({ type: "push", tag: null })), [`copy team/app ${A} a`]);
});

test("names and tags decide whether there is a run; what only planning can tell does not keep a change back", () => {
  const named = policy({ filters: [filter("name", "team/**"), filter("tag", "v*"), filter("label", ["release"])] });
  assert.deepEqual(noted(named, change({})), ["copy team/app v1 a"]);
  assert.deepEqual(noted(named, change({ tag: "latest" })), []);
  assert.deepEqual(noted(named, change({ repository: "other/app" })), []);
});

test("deletions are followed only by policies that say so, with the digest of what was deleted", () => {
  const untag = change({ type: "untag" });
  const gone = change({ type: "delete", tag: null });
  assert.deepEqual(noted(policy(), untag, gone), []);
  assert.deepEqual(noted(policy({ deletion: true }), untag, gone), ["delete team/app v1 a", `delete team/app ${A} a`]);
  assert.deepEqual(noted(policy({ deletion: true }), change({ type: "delete-repository", tag: null, digest: null })), []);
});

test("fills are no changes, and nothing goes back to where it came from", () => {
  assert.deepEqual(noted(policy(), change({ origin: "fill" })), []);
  const replicated = change({ origin: "replication", originRegistry: 7 });
  assert.deepEqual(noted(policy(), replicated), []);
  assert.deepEqual(noted(policy({ targets: [8] }), replicated), ["copy team/app v1 a"], "but on to others");
});

test("a signature asks for what it belongs to, whatever the tags that are wanted", () => {
  const signature = change({ tag: `${B.replace(":", "-")}.sig` });
  assert.deepEqual(noted(policy({ filters: [filter("tag", "v*")] }), signature), [`copy team/app ${B} -`]);
  assert.deepEqual(noted(policy({ deletion: true }), { ...signature, type: "untag" }), []);
});

test("what refers to something by its manifest asks for that, and goes by its own tag only where everything does", () => {
  const referrer = change({ type: "push", tag: null, subject: B });
  assert.deepEqual(noted(policy({ filters: [filter("tag", "v*")] }), referrer), [`copy team/app ${B} -`]);
  const tagged = change({ tag: "sbom", subject: B });
  assert.deepEqual(noted(policy(), tagged), [`copy team/app ${B} -`, "copy team/app sbom a"]);
  assert.deepEqual(noted(policy({ filters: [filter("tag", "*bom")] }), tagged), [`copy team/app ${B} -`]);
  assert.deepEqual(noted(policy({ deletion: true }), { ...referrer, type: "delete" }), []);
});
