/** The APIs of products, played by a server on a real socket: listing, creating, deleting, and what they are asked with. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { TestContext } from "node:test";
import type { Artifact, RegistryAdapter, RepositoryQuery } from "../../../src/replication/adapters/adapter.ts";
import type { RegistryDraft } from "../../../src/proxy/registry-store.ts";
import { send } from "../../support/fake-answers.ts";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import type { FakeRegistry } from "../../support/fake-registry.ts";
import { withCode } from "../../upstream/support.ts";
import { replicationSetting } from "../support.ts";

const SIGNAL = new AbortController().signal;
const ALL: RepositoryQuery = { names: null, namespaces: null };
const BASIC = `Basic ${Buffer.from("robot:a-long-secret").toString("base64")}`;

interface Opened {
  readonly product: FakeRegistry;
  readonly adapter: RegistryAdapter;
}

async function open(t: TestContext, type: string, rest: Partial<RegistryDraft> = {}): Promise<Opened> {
  const setting = await replicationSetting(t);
  const product = await startFakeRegistry(t);
  const id = await setting.addRegistry({ url: product.url, type, accessKey: "robot", accessSecret: "a-long-secret", ...rest });
  return { product, adapter: await setting.adapters.open(id, SIGNAL) };
}

/** Answers a path (with or without query) with a document. */
function answer(product: FakeRegistry, path: RegExp | string, document: unknown, headers: Record<string, string> = {}): void {
  product.on({ method: "GET", path }, (_request, response) =>
    send(response, 200, { "content-type": "application/json", ...headers }, JSON.stringify(document)),
  );
}

async function repositories(adapter: RegistryAdapter, query: RepositoryQuery): Promise<string[][]> {
  const pages: string[][] = [];
  let cursor: string | null = null;
  do {
    const page = await adapter.listRepositories(query, cursor, SIGNAL);
    pages.push([...page.repositories]);
    cursor = page.next;
  } while (cursor !== null && pages.length < 50);
  return pages;
}

async function artifacts(adapter: RegistryAdapter, repository: string): Promise<Artifact[]> {
  const found: Artifact[] = [];
  let cursor: string | null = null;
  do {
    const page = await adapter.listArtifacts(repository, cursor, SIGNAL);
    found.push(...page.artifacts);
    cursor = page.next;
  } while (cursor !== null);
  return found;
}

test("Harbor: repositories by project, artifacts with tags, labels and times, by pages", async (t) => {
  const { product, adapter } = await open(t, "harbor");
  const digest = `sha256:${"a".repeat(64)}`;
  answer(product, /^\/api\/v2\.0\/projects\?.*page=1&/, [{ name: "empty" }, { name: "team" }], { link: '</x>; rel="next"' });
  answer(product, /^\/api\/v2\.0\/projects\?.*page=2&/, [{ name: "other" }]);
  answer(product, /projects\/empty\/repositories\?/, []);
  answer(product, /projects\/team\/repositories\?.*page=1&/, [{ name: "team/app" }], { link: '</y>; rel="next"' });
  answer(product, /projects\/team\/repositories\?.*page=2&/, [{ name: "team/deep/web" }]);
  answer(product, /projects\/other\/repositories\?/, [{ name: "other/app" }]);
  answer(product, /projects\/team\/repositories\/deep%252Fweb\/artifacts\?/, [
    {
      digest,
      manifest_media_type: "application/vnd.oci.image.index.v1+json",
      push_time: "2026-01-02T03:04:05.000Z",
      labels: [{ name: "prod" }],
      tags: [{ name: "v1", push_time: "2026-02-02T00:00:00.000Z" }, { name: "latest" }],
      accessories: [{ digest }],
    },
    { digest, tags: null, labels: null },
  ]);
  assert.deepEqual(await repositories(adapter, ALL), [["team/app"], ["team/deep/web"], ["other/app"], []]);
  assert.equal(
    product.calls.filter(({ url }) => url.startsWith("/api/v2.0/projects?")).length,
    2,
    "each page of projects is asked for once",
  );
  product.resetCalls();
  assert.deepEqual(await repositories(adapter, { names: null, namespaces: ["other", "absent"] }), [["other/app"], []]);
  assert.deepEqual(await repositories(adapter, { names: ["x/y"], namespaces: ["x"] }), [["x/y"]]);
  assert.equal(product.calls.length, 2);
  assert.ok(product.calls.every(({ headers }) => headers.authorization === BASIC));
  assert.deepEqual(
    (await artifacts(adapter, "team/deep/web")).map((each) => [each.tag, each.labels, each.pushedAt?.toISOString() ?? null]),
    [
      ["v1", ["prod"], "2026-02-02T00:00:00.000Z"],
      ["latest", ["prod"], "2026-01-02T03:04:05.000Z"],
      [null, [], null],
    ],
  );
  assert.deepEqual(await artifacts(adapter, "team/absent"), []);
});

test("Harbor: makes projects, skips proxy projects, deletes tags by its API", async (t) => {
  const { product, adapter } = await open(t, "harbor");
  answer(product, /projects\?name=cache/, [
    { name: "cache-not", registry_id: 0 },
    { name: "cache", registry_id: 3 },
  ]);
  answer(product, /projects\?name=team/, [{ name: "team", metadata: { public: "true" } }]);
  answer(product, /projects\?name=fresh/, []);
  const made: string[] = [];
  product.on({ method: "POST", path: "/api/v2.0/projects" }, (_request, response, body) => {
    made.push(body.toString("utf8"));
    send(response, made.length === 1 ? 201 : 409, {}, "");
  });
  product.on({ method: "DELETE", path: /\/team\/repositories\/app\/artifacts\/v1\/tags\/v1$/ }, (_request, response) =>
    send(response, 200, {}, ""),
  );
  product.on({ method: "DELETE", path: /\/tags\/v2$/ }, (_request, response) => send(response, 404, {}, ""));
  const cached = await adapter.prepare("cache/app", { public: null }, SIGNAL);
  assert.deepEqual([cached.usable, "skip" in cached && cached.skip], [false, true]);
  assert.deepEqual(await adapter.prepare("team/app", { public: false }, SIGNAL), { usable: true });
  assert.deepEqual(await adapter.prepare("fresh/app", { public: true }, SIGNAL), { usable: true });
  assert.deepEqual(await adapter.prepare("fresh/app", { public: null }, SIGNAL), { usable: true }, "somebody else was faster");
  assert.deepEqual(made[0], '{"project_name":"fresh","metadata":{"public":"true"}}');
  assert.deepEqual([await adapter.isPublic("team/app", SIGNAL), await adapter.isPublic("fresh/app", SIGNAL)], [true, null]);
  assert.deepEqual([await adapter.deleteTag("team/app", "v1", SIGNAL), await adapter.deleteTag("team/app", "v2", SIGNAL)], [true, false]);
});

test("Docker Hub: one login, pages by number, digests and times, two path elements, a limit that is waited for", async (t) => {
  const { product, adapter } = await open(t, "docker-hub");
  const digest = `sha256:${"b".repeat(64)}`;
  product.on({ method: "POST", path: "/v2/auth/token" }, (request, response, body) => {
    assert.equal(request.headers.authorization, undefined);
    assert.deepEqual(JSON.parse(body.toString("utf8")), { identifier: "robot", secret: "a-long-secret" });
    send(response, 200, { "content-type": "application/json" }, '{"access_token":"hub-token-0123456789"}');
  });
  answer(product, "/v2/repositories/namespaces/", { namespaces: ["team"] });
  answer(product, /^\/v2\/namespaces\/team\/repositories\?page=1&/, { next: "https://elsewhere/?page=2", results: [{ name: "app" }] });
  answer(product, /^\/v2\/namespaces\/team\/repositories\?page=2&/, { next: null, results: [{ name: "web" }] });
  answer(product, /^\/v2\/namespaces\/team\/repositories\/app\/tags\?/, {
    results: [
      { name: "v1", digest, tag_last_pushed: "2026-01-02T03:04:05.123456Z" },
      { name: "v0", digest: null },
    ],
  });
  product.on({ path: /^\/v2\/namespaces\/team\/repositories\?page=2&/, times: 1 }, (_request, response) =>
    send(response, 429, { "retry-after": "1" }, ""),
  );
  product.on({ method: "DELETE", path: "/v2/repositories/team/app/tags/v1/" }, (_request, response) => send(response, 204, {}));
  assert.deepEqual(await repositories(adapter, ALL), [["team/app"], ["team/web"], []]);
  assert.deepEqual(
    (await artifacts(adapter, "team/app")).map((each) => [each.tag, each.digest]),
    [
      ["v1", digest],
      ["v0", null],
    ],
  );
  assert.equal(await adapter.deleteTag("team/app", "v1", SIGNAL), true);
  await assert.rejects(adapter.deleteManifest("team/app", digest, SIGNAL), withCode("UNSUPPORTED"));
  const logins = product.calls.filter(({ method }) => method === "POST");
  assert.equal(logins.length, 1);
  assert.ok(
    product.calls.filter(({ method }) => method !== "POST").every(({ headers }) => headers.authorization === "Bearer hub-token-0123456789"),
  );
  assert.deepEqual([adapter.capabilities.minPathElements, adapter.capabilities.maxPathElements], [2, 2]);
});

test("Docker Hub: the older login where there is no newer", async (t) => {
  const { product, adapter } = await open(t, "docker-hub");
  product.on({ method: "POST", path: "/v2/auth/token" }, (_request, response) => send(response, 404, {}, ""));
  product.on({ method: "POST", path: "/v2/users/login" }, (_request, response) =>
    send(response, 200, { "content-type": "application/json" }, '{"token":"older-token-0123456789"}'),
  );
  answer(product, "/v2/repositories/namespaces/", { namespaces: [] });
  assert.deepEqual(await repositories(adapter, ALL), [[]]);
  assert.equal(product.calls.at(-1)?.headers.authorization, "Bearer older-token-0123456789");
});

test("GitHub: given names only, and nothing is deleted", async (t) => {
  const { product, adapter } = await open(t, "github-ghcr");
  await assert.rejects(adapter.listRepositories(ALL, null, SIGNAL), {
    code: "BAD_REQUEST",
    message: "only support specific repository name",
  });
  product.putImage("owner/app", "v1");
  assert.deepEqual(await repositories(adapter, { names: ["owner/app"], namespaces: ["owner"] }), [["owner/app"]]);
  assert.deepEqual(
    (await artifacts(adapter, "owner/app")).map(({ tag }) => tag),
    ["v1"],
  );
  await assert.rejects(adapter.deleteTag("owner/app", "v1", SIGNAL), withCode("UNSUPPORTED"));
});

test("GitLab: its API is where the registry sends for a token; projects of groups and of users", async (t) => {
  const { product, adapter } = await open(t, "gitlab");
  const api = await startFakeRegistry(t);
  product.auth = { type: "bearer", realm: `${api.url}/jwt/auth` };
  const more = { "x-next-page": "2" };
  answer(api, /^\/api\/v4\/projects\?membership=true.*&page=1$/, [{ id: 7 }], more);
  answer(api, /^\/api\/v4\/projects\?membership=true.*&page=2$/, [{ id: 8 }]);
  answer(api, /^\/api\/v4\/projects\/7\/registry\/repositories\?/, [{ path: "group/app" }, { path: "group/app/web" }]);
  answer(api, /^\/api\/v4\/projects\/8\/registry\/repositories\?/, [{ path: "me/tool" }]);
  answer(api, /^\/api\/v4\/groups\/group\/projects\?/, [{ id: 7 }]);
  answer(api, /^\/api\/v4\/users\/me\/projects\?/, [{ id: 8 }]);
  assert.deepEqual(await repositories(adapter, ALL), [["group/app", "group/app/web"], ["me/tool"], []]);
  assert.deepEqual(await repositories(adapter, { names: null, namespaces: ["group", "me"] }), [
    ["group/app", "group/app/web"],
    ["me/tool"],
    [],
  ]);
  assert.ok(api.calls.every(({ headers }) => headers.authorization === "Bearer a-long-secret"));
});

test("Quay: the API with a token of its own, the registry with the account, organizations made", async (t) => {
  const secret = JSON.stringify({ account_name: "org+robot", docker_cli_password: "pull-secret-1234", oauth2_token: "oauth-token-1234" });
  const { product, adapter } = await open(t, "quay", { accessKey: "json_file", accessSecret: secret });
  answer(product, "/api/v1/user/", { username: "me", organizations: [{ name: "org" }] });
  answer(product, /^\/api\/v1\/repository\?namespace=me$/, { repositories: [] });
  answer(product, /^\/api\/v1\/repository\?namespace=org$/, { repositories: [{ namespace: "org", name: "app" }], next_page: "gAAA" });
  answer(product, /^\/api\/v1\/repository\?namespace=org&next_page=gAAA$/, { repositories: [{ namespace: "org", name: "web" }] });
  assert.deepEqual(await repositories(adapter, ALL), [["org/app"], ["org/web"], []]);
  assert.ok(product.calls.every(({ headers }) => headers.authorization === "Bearer oauth-token-1234"));
  const made: string[] = [];
  product.on({ path: "/api/v1/organization/fresh" }, (_request, response) => send(response, 404, {}, ""));
  product.on({ method: "POST", path: "/api/v1/organization/" }, (_request, response, body) => {
    made.push(body.toString("utf8"));
    send(response, 201, {}, "");
  });
  assert.deepEqual(await adapter.prepare("fresh/app", { public: null }, SIGNAL), { usable: true });
  assert.deepEqual(made, ['{"name":"fresh","email":"fresh@quay.io"}']);
  product.auth = { type: "basic", username: "org+robot", password: "pull-secret-1234" };
  product.putImage("org/app", "v1");
  assert.deepEqual(
    (await artifacts(adapter, "org/app")).map(({ tag }) => tag),
    ["v1"],
  );
});

test("any other type is a registry of the protocol; an unknown row is NOT_FOUND", async (t) => {
  const { product, adapter } = await open(t, "something-new", { accessKey: "", accessSecret: "" });
  product.putImage("a/b", "v1");
  assert.deepEqual(await repositories(adapter, ALL), [["a/b"]]);
  const setting = await replicationSetting(t);
  await assert.rejects(setting.adapters.open(999, SIGNAL), { code: "NOT_FOUND", message: "registry 999 not found" });
});
