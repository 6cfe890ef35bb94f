import assert from "node:assert/strict";
import { test } from "node:test";
import { parseQ } from "../../../api/harbor/list-params.ts";
import { addUser, basic, startApi, testAuth } from "../../support/auth.ts";
import { testDatabase } from "../../support/services.ts";
import { testBus } from "../../support/test-bus.ts";

const USERS = "/api/v2.0/users";

test("the API keeps Harbor's conventions", async (t) => {
  const { database } = await testDatabase(t);
  const parts = testAuth(t, { database, bus: await testBus(t) });
  await addUser(parts, "root", { sysadmin: true });
  for (const name of ["ann", "ben", "cid", "dan"]) await addUser(parts, name);
  const api = await startApi(t, parts);
  const get = (path: string, headers: Record<string, string> = {}): ReturnType<typeof api.request> =>
    api.request("GET", path, { as: "root", headers });
  const names = async (query: string): Promise<string[]> => {
    const answer = await get(`${USERS}?${query}`);
    assert.equal(answer.status, 200, answer.text);
    return answer.json.map((user: { username: string }) => user.username);
  };

  await t.test("pages name their neighbours and the total", async () => {
    const middle = await get(`${USERS}?page=2&page_size=2&sort=username`);
    assert.equal(middle.headers.get("x-total-count"), "5");
    assert.equal(
      middle.headers.get("link"),
      `<${USERS}?page=1&page_size=2&sort=username>; rel="prev" , <${USERS}?page=3&page_size=2&sort=username>; rel="next"`,
    );
    const last = await get(`${USERS}?page=3&page_size=2`);
    assert.equal(last.json.length, 1);
    assert.doesNotMatch(last.headers.get("link") ?? "", /next/);
    const empty = await get("/api/v2.0/projects");
    assert.deepEqual([empty.text, empty.headers.get("x-total-count"), empty.headers.get("link")], ["[]", "0", null]);
  });

  await t.test("a size of nothing asks for everything, without neighbours", async () => {
    for (const size of ["0", "-1"]) {
      const all = await get(`${USERS}?page_size=${size}&page=2&sort=username`);
      assert.deepEqual([all.status, all.json.length, all.headers.get("x-total-count"), all.headers.get("link")], [200, 5, "5", null]);
    }
  });

  await t.test("pages out of bounds are refused", async () => {
    for (const query of ["page_size=101", "page=0", "page=x"]) {
      const answer = await get(`${USERS}?${query}`);
      assert.deepEqual([answer.status, answer.json.errors[0].code], [422, "UNPROCESSABLE_ENTITY"], query);
    }
  });

  await t.test("lists are sorted by known keys", async () => {
    assert.deepEqual(await names("sort=-username&page_size=2"), ["root", "dan"]);
    assert.deepEqual(await names("sort=nonsense"), ["ann", "ben", "cid", "dan", "root"]);
  });

  await t.test("q selects", async () => {
    const q = (text: string): string => `q=${encodeURIComponent(text)}`;
    assert.deepEqual(await names(q("username=ben")), ["ben"]);
    assert.deepEqual(await names(q("username=~N")), ["ann", "ben", "dan"]);
    assert.deepEqual(await names(q("username={ann cid}")), ["ann", "cid"]);
    assert.deepEqual(await names(q("username={'ann' 'cid'}")), ["ann", "cid"]);
    assert.deepEqual(await names(q("username=~n,email=~b")), ["ben"]);
    assert.deepEqual(await names(q("user_id=[2~3]")), ["ann", "ben"]);
    assert.deepEqual(await names(q("user_id=[~2]")), ["ann", "root"]);
    assert.deepEqual(await names(q(`creation_time=[2020-01-01T00:00:00~2020-12-31T00:00:00]`)), []);
    assert.deepEqual(await names(q(encodeURIComponent("username=~an"))), ["ann", "dan"], "encoded twice");
    assert.deepEqual(await names(q(encodeURIComponent("username=~%_"))), [], "wildcards of SQL are letters here");
  });

  await t.test("q ignores unknown keys unless asked to be strict, and refuses what it cannot read", async () => {
    assert.equal((await names("q=shoe%3D43")).length, 5);
    assert.equal((await get(`${USERS}?q=shoe%3D43&strict=true`)).status, 400);
    for (const q of ["username", "=x", "username=", "a=b,,c=d", "user_id=[1", "user_id=abc", "%25zz"]) {
      assert.equal((await get(`${USERS}?q=${encodeURIComponent(q)}`)).status, 400, q);
    }
  });

  await t.test("errors have the envelope and its final line end", async () => {
    const missing = await get(`${USERS}/999`);
    assert.equal(missing.headers.get("content-type"), "application/json; charset=utf-8");
    assert.equal(missing.text, '{"errors":[{"code":"NOT_FOUND","message":"user not found"}]}\n');
  });

  await t.test("bad bodies are refused in the envelope", async () => {
    const post = (options: Parameters<typeof api.request>[2]): ReturnType<typeof api.request> =>
      api.request("POST", USERS, { as: "root", ...options });
    assert.deepEqual((await post({ body: "{" })).json.errors[0].code, "BAD_REQUEST");
    assert.equal((await post({ body: "[]" })).status, 400);
    assert.equal((await post({ body: '"text"' })).status, 400);
    assert.equal(
      (await post({ body: "{}", headers: { "content-type": "text/plain" } })).status,
      400,
      "a form on a foreign page can send this",
    );
    assert.equal((await post({ body: JSON.stringify({ comment: "x".repeat(1_100_000) }) })).status, 413);
  });

  await t.test("the request id is echoed, or made; no cookie is set", async () => {
    const answer = await get("/api/v2.0/projects", { "x-request-id": "abc-1" });
    assert.equal(answer.headers.get("x-request-id"), "abc-1");
    assert.match((await get("/api/v2.0/projects")).headers.get("x-request-id") ?? "", /.{8,}/);
    assert.equal(answer.headers.get("set-cookie"), null);
  });

  await t.test("system endpoints answer, and tell strangers less", async () => {
    assert.equal((await api.request("GET", "/api/v2.0/ping")).text, "Pong");
    assert.deepEqual((await api.request("GET", "/api/version")).json, { version: "v2.0" });
    const health = (await api.request("GET", "/api/v2.0/health")).json;
    assert.deepEqual(
      health.components.map((part: { name: string }) => part.name),
      ["core", "database"],
    );
    assert.equal((await api.request("GET", "/api/v2.0/systeminfo")).json.harbor_version, undefined);
    const info = (await get("/api/v2.0/systeminfo")).json;
    assert.equal(info.registry_url, new URL(api.url).host);
  });

  await t.test("a 5xx says the request id and nothing else", async () => {
    const token = basic("ann");
    await database.query("ALTER TABLE users RENAME COLUMN realname TO gone");
    const answer = await api.request("GET", USERS, { as: "root", headers: { "x-request-id": "trace-me" } });
    await database.query("ALTER TABLE users RENAME COLUMN gone TO realname");
    assert.equal(answer.status, 500);
    assert.deepEqual(answer.json.errors, [{ code: "UNKNOWN", message: "internal server error", detail: { requestId: "trace-me" } }]);
    assert.equal((await api.request("GET", `${USERS}/current`, { as: token })).status, 200);
  });
});

test("q is read as written", () => {
  assert.deepEqual(parseQ('name="a, b",tag=\\~x'), [
    { key: "name", kind: "equals", value: "a, b" },
    { key: "tag", kind: "equals", value: "~x" },
  ]);
  assert.deepEqual(parseQ("l=(a b),n={1,2 3}"), [
    { key: "l", kind: "all", values: ["a", "b"] },
    { key: "n", kind: "any", values: ["1,2", "3"] },
  ]);
  assert.deepEqual(parseQ("t=[~9]"), [{ key: "t", kind: "range", min: null, max: "9" }]);
  assert.deepEqual(
    parseQ("Name__icontains=x,ID__gte=5,update_time__lte=9,SrcRegistryID__exact=3,id__in={1 2},speed_kb__gt=1,a__b__lt=2,a__b=3"),
    [
      { key: "name", kind: "contains", value: "x" },
      { key: "id", kind: "range", min: "5", max: null },
      { key: "update_time", kind: "range", min: null, max: "9" },
      { key: "src_registry_id", kind: "equals", value: "3" },
      { key: "id", kind: "any", values: ["1", "2"] },
      { key: "speed_kb", kind: "beyond", above: "1", below: null },
      { key: "a__b", kind: "beyond", above: null, below: "2" },
      { key: "a__b", kind: "equals", value: "3" },
    ],
  );
});
