import assert from "node:assert/strict";
import { test } from "node:test";
import { byName, byNamespace, isRepositoryAllowed, matchesGlob, pathAtUpstream, splitPatterns } from "../../../src/proxy/plan/naming.ts";
import type { NamingWorld, UpstreamName } from "../../../src/proxy/plan/naming.ts";

function upstream(overrides: Partial<UpstreamName> & { name: string }): UpstreamName {
  return {
    registryId: 1,
    hosts: [],
    project: overrides.name,
    enabled: true,
    priority: 100,
    isDefault: false,
    routes: [],
    impliesLibrary: false,
    ...overrides,
  };
}

const hub = upstream({ name: "docker.io", hosts: ["docker.io"], impliesLibrary: true });
const ghcr = upstream({ name: "ghcr.io", hosts: ["ghcr.io"] });
const team = upstream({ name: "team", hosts: ["registry.corp:5000"], routes: [{ pattern: "team-*/**", priority: 10 }] });
const world: NamingWorld = { upstreams: [hub, ghcr, team], mirrorHost: null };

test("a namespace names an upstream by its host; Docker Hub's one-component names get library/", () => {
  assert.deepEqual(byNamespace(world, { requested: "alpine", namespace: "docker.io" }), {
    upstream: hub,
    path: "library/alpine",
    via: "namespace",
  });
  assert.equal(byNamespace(world, { requested: "a/b", namespace: "registry-1.docker.io" })?.path, "a/b");
});

test("a namespace that nobody configured is refused", () => {
  assert.equal(byNamespace(world, { requested: "alpine", namespace: "evil.example.com" }), null);
});

test("a host-style name goes to its upstream, an unknown host to none, default or not", () => {
  const withDefault = { ...world, upstreams: [...world.upstreams, upstream({ name: "fallback", isDefault: true })] };
  assert.equal(byName(withDefault, "ghcr.io/owner/app")?.path, "owner/app");
  assert.equal(byName(withDefault, "registry.corp:5000/x/y")?.upstream, team);
  assert.equal(byName(withDefault, "unknown.example.com/x"), null);
  assert.equal(byName(withDefault, "plain/name")?.via, "default");
});

test("routes go by priority before the default", () => {
  const later = upstream({ name: "later", routes: [{ pattern: "**", priority: 50 }], isDefault: true });
  const routed = { ...world, upstreams: [later, team] };
  assert.equal(byName(routed, "team-a/app")?.upstream, team);
  assert.equal(byName(routed, "other/app")?.upstream, later);
});

test("a disabled upstream and one without a project are never chosen", () => {
  const off = {
    ...world,
    upstreams: [
      { ...ghcr, enabled: false },
      { ...hub, project: null },
    ],
  };
  assert.equal(byName(off, "ghcr.io/a/b"), null);
  assert.equal(byNamespace(off, { requested: "alpine", namespace: "docker.io" }), null);
});

test("with a mirror host, plain names go to that upstream", () => {
  assert.deepEqual(byName({ ...world, mirrorHost: "docker.io" }, "alpine")?.path, "library/alpine");
});

test("globs: a star stays in its component, two stars cross them", () => {
  assert.ok(matchesGlob("library/*", "library/alpine"));
  assert.ok(!matchesGlob("library/*", "library/a/b"));
  assert.ok(matchesGlob("**/app", "x/y/app"));
  assert.ok(matchesGlob("**/app", "app"));
  assert.ok(!matchesGlob("a.b", "axb"));
});

test("deny wins over allow, and an empty allow list allows", () => {
  assert.ok(isRepositoryAllowed({ allow: [], deny: [] }, "a/b"));
  assert.ok(!isRepositoryAllowed({ allow: ["a/**"], deny: ["a/b"] }, "a/b"));
  assert.ok(!isRepositoryAllowed({ allow: ["a/**"], deny: [] }, "c/b"));
});

test("braces in a pattern are alternatives, and their commas do not separate patterns", () => {
  assert.ok(matchesGlob("{library,bitnami}/*", "bitnami/redis"));
  assert.ok(!matchesGlob("{library,bitnami}/*", "evil/redis"));
  assert.deepEqual(splitPatterns(" {a,b}/** ,c/*,, d"), ["{a,b}/**", "c/*", "d"]);
});

test("a prefix is put before what does not begin with it", () => {
  const mirrored = upstream({ name: "harbor", prefix: "hub-proxy" });
  assert.equal(pathAtUpstream(mirrored, "library/alpine"), "hub-proxy/library/alpine");
  assert.equal(pathAtUpstream(mirrored, "hub-proxy/library/alpine"), "hub-proxy/library/alpine");
  assert.equal(pathAtUpstream(mirrored, "alpine"), "hub-proxy/alpine");
});

test("where an upstream has projects, a name goes to the one it begins with, the first pattern that takes it, or the default", () => {
  const harbor = upstream({
    name: "harbor",
    projects: [
      { name: "misc", pattern: "misc/*", priority: 100, isDefault: true },
      { name: "team-a", pattern: "{web,api}-*", priority: 50, isDefault: false },
    ],
  });
  assert.equal(pathAtUpstream(harbor, "team-a/app"), "team-a/app");
  assert.equal(pathAtUpstream(harbor, "web-shop"), "team-a/web-shop");
  assert.equal(pathAtUpstream(harbor, "other"), "misc/other");
  const routed = upstream({ name: "routed", routes: [{ pattern: "web-*", priority: 900 }] });
  const two: NamingWorld = { upstreams: [harbor, routed], mirrorHost: null };
  assert.equal(byName(two, "api-gate")?.upstream.name, "harbor");
  assert.equal(byName(two, "web-shop")?.upstream.name, "routed", "routes come before patterns of projects");
});
