import assert from "node:assert/strict";
import { test } from "node:test";
import { addUser, basic, startApi, testAuth } from "../../support/auth.ts";
import type { TestApi, TestAuth } from "../../support/auth.ts";
import { testDatabase } from "../../support/services.ts";
import { testBus } from "../../support/test-bus.ts";

const PROJECTS = "/api/v2.0/projects";

interface Named {
  readonly name: string;
}

async function start(
  t: { after(fn: () => Promise<void> | void): void },
  config: Parameters<typeof testAuth>[1]["config"] = {},
): Promise<{ api: TestApi; parts: TestAuth }> {
  const { database } = await testDatabase(t);
  const parts = testAuth(t, { database, bus: await testBus(t), config });
  await addUser(parts, "root", { sysadmin: true });
  for (const name of ["alice", "bob"]) await addUser(parts, name);
  return { api: await startApi(t, parts), parts };
}

test("projects", async (t) => {
  const { api, parts } = await start(t);
  const names = async (as: string | undefined, query = ""): Promise<string[]> => {
    const answer = await api.request("GET", `${PROJECTS}${query}`, as === undefined ? {} : { as });
    assert.equal(answer.status, 200, answer.text);
    return (answer.json as Named[]).map((project) => project.name);
  };

  await t.test("are made by whoever is logged in, who administers them then", async () => {
    const created = await api.request("POST", PROJECTS, { as: "alice", body: { project_name: "web", metadata: { public: "false" } } });
    assert.equal(created.status, 201);
    assert.match(created.headers.get("location") ?? "", /^\/api\/v2\.0\/projects\/\d+$/);
    const byName = await api.request("POST", PROJECTS, {
      as: "alice",
      body: { project_name: "1234", public: true },
      headers: { "x-resource-name-in-location": "true" },
    });
    assert.equal(byName.headers.get("location"), `${PROJECTS}/1234`);
    const read = (await api.request("GET", `${PROJECTS}/web`, { as: "alice" })).json;
    assert.deepEqual([read.owner_name, read.current_user_role_id, read.metadata.public, read.repo_count], ["alice", 1, "false", 0]);
  });

  await t.test("are found by id, by name, and by a name of digits when told so", async () => {
    const { project_id: id } = (await api.request("GET", `${PROJECTS}/web`, { as: "alice" })).json;
    assert.equal((await api.request("GET", `${PROJECTS}/${id}`, { as: "alice" })).json.name, "web");
    assert.equal((await api.request("GET", `${PROJECTS}/1234`, { as: "root" })).status, 404);
    const named = await api.request("GET", `${PROJECTS}/1234`, { as: "alice", headers: { "x-is-resource-name": "true" } });
    assert.equal(named.json.name, "1234");
  });

  await t.test("are refused when malformed, taken, anonymous or beyond the caller's rights", async () => {
    const post = async (body: object, as = "alice"): Promise<number> => (await api.request("POST", PROJECTS, { as, body })).status;
    for (const name of ["", "Web", "a__b", "a..b", "-a", "a/b", "x".repeat(256)])
      assert.equal(await post({ project_name: name }), 400, name);
    assert.equal(await post({ project_name: "web" }), 409);
    assert.equal(await post({ project_name: "proxy", registry_id: 1 }), 403);
    assert.equal(await post({ project_name: "proxy", registry_id: 0 }, "root"), 400);
    assert.equal(await post({ project_name: "proxy", metadata: { public: "maybe" } }), 400);
    assert.equal((await api.request("POST", PROJECTS, { body: { project_name: "nobody" } })).status, 401);
  });

  await t.test("hide their existence, except from administrators", async () => {
    for (const project of ["web", "nothing"]) {
      assert.equal((await api.request("GET", `${PROJECTS}/${project}`)).status, 401);
      assert.equal((await api.request("GET", `${PROJECTS}/${project}`, { as: "bob" })).status, 403);
    }
    assert.equal((await api.request("GET", `${PROJECTS}/nothing`, { as: "root" })).status, 404);
  });

  await t.test("are listed as far as the caller may see", async () => {
    assert.deepEqual(await names("root"), ["1234", "web"]);
    assert.deepEqual(await names("alice"), ["1234", "web"]);
    assert.deepEqual(await names("bob"), ["1234"]);
    assert.deepEqual(await names(undefined), ["1234"]);
    assert.deepEqual(await names(undefined, "?public=false"), []);
    assert.deepEqual(await names("alice", "?public=false"), ["web"]);
    assert.deepEqual(await names("alice", "?owner=alice&name=E"), ["web"]);
    assert.deepEqual(await names("alice", "?owner=bob"), []);
    assert.deepEqual(await names(basic("alice", "Wrong12345")), ["1234"], "wrong credentials count as none");
  });

  await t.test("exist or not, for HEAD", async () => {
    const head = async (query: string, as?: string): Promise<number> =>
      (await api.request("HEAD", `${PROJECTS}${query}`, as === undefined ? {} : { as })).status;
    assert.equal(await head("?project_name=web", "bob"), 200);
    assert.equal(await head("?project_name=nothing", "bob"), 404);
    assert.equal(await head("?project_name=web"), 401);
    assert.equal(await head("", "bob"), 422);
  });

  await t.test("keep the metadata that an update does not name", async () => {
    const put = (body: object, as = "alice"): ReturnType<TestApi["request"]> => api.request("PUT", `${PROJECTS}/web`, { as, body });
    assert.equal((await put({ metadata: { auto_scan: "true", unknown_key: "x" } })).status, 200);
    assert.equal((await put({ metadata: { public: "true" }, storage_limit: 5 })).status, 200);
    const project = await parts.projects.find("web");
    assert.deepEqual([project?.metadata, project?.public, project?.storageLimit], [{ auto_scan: "true" }, true, -1]);
    assert.equal((await put({ storage_limit: 5000 }, "root")).status, 200);
    assert.equal((await parts.projects.find("web"))?.storageLimit, 5000);
    assert.equal((await put({ metadata: {} }, "bob")).status, 403);
  });

  await t.test("change single keys, also at the same moment", async () => {
    const path = `${PROJECTS}/web/metadatas`;
    const keys = ["prevent_vul", "enable_content_trust", "auto_sbom_generation", "proxy_referrer_api"];
    const answers = await Promise.all(keys.map((key) => api.request("POST", path, { as: "alice", body: { [key]: "true" } })));
    assert.deepEqual(
      answers.map((answer) => answer.status),
      [201, 201, 201, 201],
    );
    const all = (await api.request("GET", path, { as: "alice" })).json;
    for (const key of keys) assert.equal(all[key], "true", key);
    assert.equal((await api.request("POST", path, { as: "alice", body: { prevent_vul: "true" } })).status, 409);
    assert.equal((await api.request("POST", path, { as: "alice", body: { a: "1", b: "2" } })).status, 400);
    assert.equal((await api.request("PUT", `${path}/prevent_vul`, { as: "alice", body: { prevent_vul: "false" } })).status, 200);
    assert.deepEqual((await api.request("GET", `${path}/prevent_vul`, { as: "alice" })).json, { prevent_vul: "false" });
    assert.equal((await api.request("DELETE", `${path}/prevent_vul`, { as: "alice" })).status, 200);
    assert.equal((await api.request("GET", `${path}/prevent_vul`, { as: "alice" })).status, 404);
  });

  await t.test("with repositories are not removed", async () => {
    const id = (await parts.projects.find("web"))?.id;
    await parts.database.query("INSERT INTO repositories (project_id, name) VALUES ($1, 'web/app')", [id]);
    await parts.database.query("UPDATE projects SET repo_count = 1 WHERE id = $1", [id]);
    const deletable = (await api.request("GET", `${PROJECTS}/web/_deletable`, { as: "alice" })).json;
    assert.equal(deletable.deletable, false);
    assert.equal((await api.request("DELETE", `${PROJECTS}/web`, { as: "alice" })).status, 412);
    await parts.database.query("DELETE FROM repositories");
    await parts.database.query("UPDATE projects SET repo_count = 0");
    assert.deepEqual((await api.request("GET", `${PROJECTS}/web/_deletable`, { as: "alice" })).json, { deletable: true });
    assert.equal((await api.request("DELETE", `${PROJECTS}/web`, { as: "bob" })).status, 403);
    assert.equal((await api.request("DELETE", `${PROJECTS}/web`, { as: "alice" })).status, 200);
    assert.equal((await api.request("DELETE", `${PROJECTS}/web`, { as: "root" })).status, 404);
  });
});

test("members", async (t) => {
  const { api, parts } = await start(t);
  await api.request("POST", PROJECTS, { as: "alice", body: { project_name: "web" } });
  const path = `${PROJECTS}/web/members`;

  await t.test("are added, listed, changed and removed by the project's administrator", async () => {
    const added = await api.request("POST", path, { as: "alice", body: { role_id: 3, member_user: { username: "bob" } } });
    assert.equal(added.status, 201);
    const location = added.headers.get("location") ?? "";
    const listed = await api.request("GET", `${path}?entityname=BO`, { as: "bob" });
    assert.deepEqual(
      listed.json.map((member: { entity_name: string; role_name: string }) => [member.entity_name, member.role_name]),
      [["bob", "guest"]],
    );
    assert.equal((await api.request("GET", location, { as: "alice" })).json.role_id, 3);
    assert.equal((await api.request("PUT", location, { as: "alice", body: { role_id: 5 } })).status, 200);
    assert.equal(
      (await api.request("GET", path, { as: "bob" })).status,
      403,
      "a limited guest does not see the members, from the next request on",
    );
    assert.equal((await api.request("GET", `${PROJECTS}/web`, { as: "bob" })).status, 200);
    assert.equal((await api.request("DELETE", location, { as: "alice" })).status, 200);
    assert.equal((await api.request("GET", `${PROJECTS}/web`, { as: "bob" })).status, 403);
    assert.equal((await api.request("DELETE", location, { as: "alice" })).status, 404);
  });

  await t.test("are refused twice, unknown, without a role or by others", async () => {
    const post = async (body: object, as = "alice"): Promise<number> => (await api.request("POST", path, { as, body })).status;
    assert.equal(await post({ role_id: 2, member_user: { username: "alice" } }), 409);
    assert.equal(await post({ role_id: 2, member_user: { username: "nobody" } }), 404);
    assert.equal(await post({ role_id: 2, member_user: { user_id: 999 } }), 404);
    assert.equal(await post({ role_id: 6, member_user: { username: "bob" } }), 400);
    assert.equal(await post({ role_id: 2, member_group: { id: 1 } }), 400);
    assert.equal(await post({ role_id: 2, member_user: { username: "bob" } }, "bob"), 403);
  });

  await t.test("are counted in the summary for those who may see them", async () => {
    await api.request("POST", path, { as: "alice", body: { role_id: 4, member_user: { username: "bob" } } });
    const summary = (await api.request("GET", `${PROJECTS}/web/summary`, { as: "alice" })).json;
    assert.deepEqual(summary, {
      repo_count: 0,
      project_admin_count: 1,
      maintainer_count: 1,
      quota: { hard: { storage: -1 }, used: { storage: 0 } },
    });
    await parts.projects.update((await parts.projects.find("web"))?.id ?? 0, { public: true });
    assert.deepEqual((await api.request("GET", `${PROJECTS}/web/summary`)).json, { repo_count: 0 });
  });
});

test("project creation can be kept to administrators, and reading to those who are logged in", async (t) => {
  const { api } = await start(t, { adminOnly: true, mode: "required" });
  assert.equal((await api.request("POST", PROJECTS, { as: "alice", body: { project_name: "web", public: true } })).status, 403);
  assert.equal((await api.request("POST", PROJECTS, { as: "root", body: { project_name: "web", public: true } })).status, 201);
  assert.equal((await api.request("GET", PROJECTS)).status, 401);
  assert.equal((await api.request("GET", `${PROJECTS}/web`)).status, 401);
  assert.equal((await api.request("GET", `${PROJECTS}/web`, { as: "bob" })).status, 200);
});
