/** Upstreams in the words of Harbor Cache: made, changed, routed and removed by its API, and used by the next request. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY_REGISTRY } from "../../../src/proxy/registry-store.ts";
import { FakeRegistry } from "../../support/fake-registry.ts";
import { loadOpenApi } from "../../support/openapi.ts";
import { ask as get } from "../../support/proxy-server.ts";
import { ADMIN, basic, startRegistry } from "../../support/registry-server.ts";

const API = "/api/v1";
const document = await loadOpenApi();

test("upstreams are made, changed, routed and removed, and each change holds from the next pull on", async (t) => {
  const upstream = await new FakeRegistry({ auth: { type: "basic", username: "robot", password: "secret-1" } }).start();
  t.after(() => upstream.stop());
  const digest = upstream.putImage("team/app", "1");
  const routed = upstream.putImage("team/apps/app", "1");
  const server = await startRegistry(t, { roles: ["proxy", "api"] });
  const call = async (method: string, path: string, body?: object, authorization = ADMIN) => {
    const headers = { authorization, "content-type": "application/json" };
    const answer = await fetch(`${server.url}${API}${path}`, { method, headers, ...(body && { body: JSON.stringify(body) }) });
    const text = await answer.text();
    const json = text === "" ? undefined : (JSON.parse(text) as unknown);
    const operation = document.operationOf(method, `${API}${path}`);
    assert.ok(operation, `${method} ${path}`);
    if (json !== undefined) assert.deepEqual(document.checkResponse(operation, answer.status, json), [], path);
    // oxlint-disable-next-line typescript/no-explicit-any -- a test looks into whatever was answered
    return { status: answer.status, json: json as any };
  };
  const pull = async (path: string): Promise<string | number> => {
    const answer = await get(`${server.url}/v2/${path}/manifests/1`);
    return answer.status === 200 ? (answer.digest ?? "") : answer.status;
  };
  const draft = {
    name: "Team-Cache",
    display_name: "Of the team",
    url: upstream.url,
    registry: "team",
    username: "robot",
    password: "wrong",
  };

  const tested = (await call("POST", "/upstreams/test", { url: upstream.url, registry: "team", username: "robot", password: "wrong" }))
    .json;
  assert.equal(tested.success, false);
  assert.doesNotMatch(tested.message, /wrong|robot/);
  const trial = { url: upstream.url, registry: "team", username: "robot", password: "secret-1", skip_tls_verify: false };
  assert.equal((await call("POST", "/upstreams/test", trial)).json.success, true);

  const made = await call("POST", "/upstreams", draft);
  assert.equal(made.status, 201);
  assert.deepEqual(
    [made.json.name, made.json.display_name, made.json.registry, made.json.has_credentials, made.json.priority, made.json.enabled],
    ["Team-Cache", "Of the team", "team", true, 100, true],
  );
  assert.equal((await server.app.catalog.projects.find("team-cache"))?.public, false, "what needs a credential is not for everybody");
  assert.equal(await pull("team-cache/app"), 502, "a wrong credential is our trouble");
  assert.equal((await call("PUT", "/upstreams/Team-Cache", { password: "secret-1" })).status, 200);
  assert.equal(await pull("team-cache/app"), digest);

  assert.equal(await pull("apps/app"), 404);
  const route = (await call("POST", "/upstreams/Team-Cache/routes", { pattern: "apps/**", priority: 5 })).json;
  assert.deepEqual([route.id, route.pattern, route.priority], [0, "apps/**", 5]);
  assert.equal(await pull("apps/app"), routed);
  assert.equal((await call("DELETE", "/upstreams/Team-Cache/routes/1")).status, 404);
  assert.equal((await call("DELETE", "/upstreams/Team-Cache/routes/0")).status, 204);

  const projects = [
    { name: "team", is_default: true },
    { name: "other", pattern: "o-*" },
  ];
  const several = (await call("PUT", `/upstreams/${made.json.id}`, { projects, priority: 7 })).json;
  assert.deepEqual(
    [several.uses_multi_project, several.priority, several.projects.map((one: { effective_pattern: string }) => one.effective_pattern)],
    [true, 7, ["team/*", "o-*"]],
  );
  assert.equal((await call("PUT", "/upstreams/Team-Cache", { enabled: false })).json.enabled, false);
  assert.equal(await pull("team-cache/app"), digest, "what is here is served on");
  assert.equal((await call("POST", "/upstreams/reload")).json.success, true);

  const kept = await call("DELETE", "/upstreams/Team-Cache");
  assert.equal(kept.status, 412, "content is not lost with a word about its upstream");
  const empty = await call("POST", "/upstreams", { name: "empty", url: "https://empty.example.com", registry: "x" });
  assert.equal(empty.status, 201);
  assert.equal((await call("DELETE", "/upstreams/empty")).status, 204);
  assert.equal((await call("GET", "/upstreams/empty")).status, 404);
  assert.equal(await server.app.catalog.projects.find("empty"), null);
});

test("bad input, taken names, what the file keeps and strangers are refused, and nothing is left of it", async (t) => {
  const server = await startRegistry(t, { roles: ["proxy", "api"] });
  const { registries } = server.app.proxy;
  await registries.save({ ...EMPTY_REGISTRY, name: "filed", url: "https://filed.example.com", origin: "config" });
  const call = async (method: string, path: string, body?: object, authorization = ADMIN): Promise<number> => {
    const headers = { authorization, "content-type": "application/json" };
    return (await fetch(`${server.url}${API}${path}`, { method, headers, ...(body && { body: JSON.stringify(body) }) })).status;
  };
  const draft = { name: "new", url: "https://new.example.com", registry: "x" };
  const refused: [object, number][] = [
    [{ ...draft, url: "ftp://new.example.com" }, 400],
    [{ ...draft, url: "https://user:word@new.example.com" }, 400],
    [{ ...draft, name: "" }, 400],
    [{ ...draft, name: "a/b" }, 400],
    [{ ...draft, registry: "../x" }, 400],
    [{ ...draft, routes: [{ pattern: "a/../b" }] }, 400],
    [{ ...draft, cache_isolation: "none" }, 400],
    [{ ...draft, name: "library" }, 409],
    [{ ...draft, name: "filed" }, 409],
  ];
  for (const [body, status] of refused) assert.equal(await call("POST", "/upstreams", body), status, JSON.stringify(body));
  assert.deepEqual(
    (await registries.listAll()).map(({ name }) => name),
    ["filed"],
  );
  assert.equal(await call("PUT", "/upstreams/filed", { priority: 1 }), 409);
  assert.equal(await call("POST", "/upstreams/filed/routes", { pattern: "a/*" }), 409);
  assert.equal(await call("DELETE", "/upstreams/filed"), 409);
  assert.equal(await call("PUT", "/upstreams/nobody", { priority: 1 }), 404);
  for (const [method, path] of [
    ["POST", "/upstreams"],
    ["PUT", "/upstreams/filed"],
    ["DELETE", "/upstreams/filed"],
    ["POST", "/upstreams/test"],
  ] as const) {
    assert.equal(await call(method, path, draft, ""), 401);
    assert.equal(await call(method, path, draft, basic("admin", "wrong")), 401);
  }
});
