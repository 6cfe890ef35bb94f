import assert from "node:assert/strict";
import { test } from "node:test";
import { addUser, basic, PASSWORD, startApi, testAuth } from "../../support/auth.ts";
import type { TestApi, TestAuth } from "../../support/auth.ts";
import { testDatabase } from "../../support/services.ts";
import { testBus } from "../../support/test-bus.ts";

const USERS = "/api/v2.0/users";

async function start(t: {
  after(fn: () => Promise<void> | void): void;
}): Promise<{ api: TestApi; parts: TestAuth; ids: { root: number; alice: number } }> {
  const { database } = await testDatabase(t);
  const parts = testAuth(t, { database, bus: await testBus(t) });
  const ids = { root: await addUser(parts, "root", { sysadmin: true }), alice: await addUser(parts, "alice") };
  return { api: await startApi(t, parts), parts, ids };
}

test("users", async (t) => {
  const { api, ids } = await start(t);
  const bob = { username: "bob", email: "bob@example.com", realname: "Bob", password: PASSWORD, comment: "builds" };

  await t.test("are made, read, changed and removed by an administrator", async () => {
    const created = await api.request("POST", USERS, { as: "root", body: bob });
    assert.equal(created.status, 201);
    const location = created.headers.get("location") ?? "";
    assert.match(location, /^\/api\/v2\.0\/users\/\d+$/);
    const read = await api.request("GET", location, { as: "root" });
    assert.deepEqual([read.json.username, read.json.comment, read.json.sysadmin_flag], ["bob", "builds", false]);
    assert.equal((await api.request("PUT", location, { as: "bob", body: { email: "b@example.com", realname: "B" } })).status, 200);
    const changed = (await api.request("GET", location, { as: "bob" })).json;
    assert.deepEqual([changed.email, changed.realname, "comment" in changed], ["b@example.com", "B", false]);
    assert.equal((await api.request("DELETE", location, { as: "root" })).status, 200);
    assert.equal((await api.request("GET", location, { as: "root" })).status, 404);
    assert.equal((await api.request("GET", `${USERS}/current`, { as: "bob" })).status, 401, "a removed user is nobody");
    assert.equal((await api.request("POST", USERS, { as: "root", body: bob })).status, 201, "the name is free again");
  });

  await t.test("are refused when taken or malformed", async () => {
    const post = async (change: object): Promise<number> =>
      (await api.request("POST", USERS, { as: "root", body: { ...bob, username: "carol", email: "carol@example.com", ...change } })).status;
    assert.equal(await post({ username: "ALICE" }), 409, "names that differ in case only are one name");
    assert.equal(await post({ email: "Alice@example.com" }), 409);
    assert.equal(await post({ password: "short1A" }), 400);
    assert.equal(await post({ password: "nouppercase1" }), 400);
    assert.equal(await post({ username: "a$b" }), 400);
    assert.equal(await post({ email: "nowhere" }), 400);
    assert.equal(await post({ realname: "" }), 400);
    assert.equal(await post({ username: 7 }), 400);
  });

  await t.test("are for administrators, except one's own", async () => {
    for (const [method, path] of [
      ["GET", USERS],
      ["POST", USERS],
      ["GET", `${USERS}/${ids.root}`],
      ["DELETE", `${USERS}/${ids.alice}`],
      ["PUT", `${USERS}/${ids.alice}/sysadmin`],
    ] as const) {
      assert.equal(
        (await api.request(method, path, { as: "alice", body: method === "GET" ? undefined : {} })).status,
        403,
        `${method} ${path}`,
      );
      assert.equal(
        (await api.request(method, path, { body: method === "GET" ? undefined : {} })).status,
        401,
        `${method} ${path} anonymously`,
      );
    }
    assert.equal((await api.request("GET", `${USERS}/${ids.alice}`, { as: "alice" })).json.username, "alice");
    assert.equal((await api.request("GET", `${USERS}/x`, { as: "root" })).status, 422);
  });

  await t.test("are searched by anybody who is logged in", async () => {
    const found = await api.request("GET", `${USERS}/search?username=LIC`, { as: "alice" });
    assert.deepEqual(found.json, [{ user_id: ids.alice, username: "alice" }]);
    assert.equal(found.headers.get("x-total-count"), "1");
    assert.equal((await api.request("GET", `${USERS}/search?username=a`)).status, 401);
    assert.equal((await api.request("GET", `${USERS}/search`, { as: "alice" })).status, 422);
  });

  await t.test("never lose the last administrator, whatever happens at the same moment", async () => {
    assert.equal((await api.request("PUT", `${USERS}/${ids.root}/sysadmin`, { as: "root", body: { sysadmin_flag: false } })).status, 412);
    assert.equal((await api.request("DELETE", `${USERS}/${ids.root}`, { as: "root" })).status, 403);
    assert.equal((await api.request("PUT", `${USERS}/${ids.alice}/sysadmin`, { as: "root", body: { sysadmin_flag: true } })).status, 200);
    const both = await Promise.all(
      [ids.root, ids.alice].map((id) => api.request("PUT", `${USERS}/${id}/sysadmin`, { as: "root", body: { sysadmin_flag: false } })),
    );
    assert.deepEqual(both.map((answer) => answer.status).filter((status) => status === 200).length, 1);
    const admins = await Promise.all(["root", "alice"].map((as) => api.request("GET", USERS, { as })));
    assert.equal(admins.filter((answer) => answer.status === 200).length, 1);
  });
});

test("a password", async (t) => {
  const { api, ids } = await start(t);
  const path = `${USERS}/${ids.alice}/password`;
  const next = "Another12345";

  await t.test("is changed by its owner with the old one only", async () => {
    const put = async (body: object): Promise<number> => (await api.request("PUT", path, { as: "alice", body })).status;
    assert.equal(await put({ new_password: next }), 400);
    assert.equal(await put({ old_password: "Wrong12345", new_password: next }), 403);
    assert.equal(await put({ old_password: PASSWORD, new_password: PASSWORD }), 400);
    assert.equal(await put({ old_password: PASSWORD, new_password: "weak" }), 400);
    assert.equal(await put({ old_password: PASSWORD, new_password: next }), 200);
  });

  await t.test("that was changed ends the old one at once", async () => {
    assert.equal((await api.request("GET", `${USERS}/current`, { as: basic("alice", PASSWORD) })).status, 401);
    assert.equal((await api.request("GET", `${USERS}/current`, { as: basic("alice", next) })).status, 200);
  });

  await t.test("is set by an administrator without the old one", async () => {
    assert.equal((await api.request("PUT", path, { as: "root", body: { new_password: PASSWORD } })).status, 200);
    assert.equal((await api.request("GET", `${USERS}/current`, { as: "alice" })).status, 200);
  });

  await t.test("of two changes at once one wins and the other is told", async () => {
    const answers = await Promise.all(
      ["First12345x", "Second12345x"].map((new_password) =>
        api.request("PUT", path, { as: "alice", body: { old_password: PASSWORD, new_password } }),
      ),
    );
    const statuses = answers.map((answer) => answer.status).toSorted();
    assert.equal(statuses[0], 200);
    assert.ok([401, 403, 409].includes(statuses[1] ?? 0), String(statuses[1]));
  });
});

test("the caller's own page", async (t) => {
  const { api, parts } = await start(t);
  assert.equal((await api.request("GET", `${USERS}/current`)).status, 401);
  const robot = await api.request("POST", "/api/v2.0/robots", {
    as: "root",
    body: {
      name: "ci",
      level: "system",
      duration: -1,
      permissions: [{ kind: "project", namespace: "*", access: [{ resource: "repository", action: "pull" }] }],
    },
  });
  assert.equal((await api.request("GET", `${USERS}/current`, { as: basic(robot.json.name, robot.json.secret) })).status, 412);

  const project = await parts.projects.create({ name: "web", public: true, ownerId: null });
  const permissions = async (as: string, relative: boolean): Promise<string[]> =>
    (await api.request("GET", `${USERS}/current/permissions?scope=/project/${project.id}&relative=${relative}`, { as })).json.map(
      ({ resource, action }: { resource: string; action: string }) => `${resource}:${action}`,
    );
  assert.ok((await permissions("root", true)).includes("project:delete"));
  assert.ok(!(await permissions("alice", true)).includes("repository:push"));
  assert.ok((await permissions("alice", false)).includes(`/project/${project.id}/repository:pull`));
  assert.deepEqual((await api.request("GET", `${USERS}/current/permissions`, { as: "alice" })).json, []);
});
