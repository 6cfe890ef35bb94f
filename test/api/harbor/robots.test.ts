import assert from "node:assert/strict";
import { test } from "node:test";
import { addUser, basic, ORIGIN, startApi, testAuth } from "../../support/auth.ts";
import { testDatabase } from "../../support/services.ts";
import { testBus } from "../../support/test-bus.ts";

const ROBOTS = "/api/v2.0/robots";

test("robots", async (t) => {
  const { database } = await testDatabase(t);
  const parts = testAuth(t, { database, bus: await testBus(t) });
  await addUser(parts, "root", { sysadmin: true });
  for (const name of ["alice", "bob"]) await addUser(parts, name);
  const api = await startApi(t, parts);
  for (const [as, name] of [
    ["alice", "web"],
    ["bob", "db"],
  ] as const) {
    assert.equal((await api.request("POST", "/api/v2.0/projects", { as, body: { project_name: name } })).status, 201);
  }
  const web = await parts.projects.find("web");
  const db = await parts.projects.find("db");
  assert.ok(web && db);

  function draft(name: string, change: object = {}): object {
    const permissions = [{ kind: "project", namespace: "web", access: [{ resource: "repository", action: "push" }] }];
    return { name, level: "project", duration: -1, description: "", disable: false, permissions, ...change };
  }

  await t.test("of a project are made by its administrator, and can do in it what they were given", async () => {
    const created = await api.request("POST", ROBOTS, { as: "alice", body: draft("ci", { secret: "Chosen12345" }) });
    assert.equal(created.status, 201);
    assert.equal(created.json.name, "robot$web+ci");
    assert.notEqual(created.json.secret, "Chosen12345", "a secret in the request is not taken");
    const robot = await parts.auth.registry.authenticate(basic(created.json.name, created.json.secret), ORIGIN);
    const decide = (project: typeof web, action: "pull" | "push" | "delete"): Promise<boolean> =>
      parts.auth.registry.decide(robot, project, action);
    assert.deepEqual([await decide(web, "push"), await decide(web, "pull"), await decide(db, "push")], [true, false, false]);
    const listed = await api.request("GET", `${ROBOTS}?q=${encodeURIComponent(`Level=project,ProjectID=${web.id}`)}`, { as: "alice" });
    assert.deepEqual(
      listed.json.map((one: { name: string }) => one.name),
      ["robot$web+ci"],
    );
    assert.equal(listed.text.includes("secret"), false);
  });

  await t.test("are refused outside of the caller's project, twice, or malformed", async () => {
    const post = async (body: object, as = "alice"): Promise<number> => (await api.request("POST", ROBOTS, { as, body })).status;
    assert.equal(await post(draft("ci")), 409);
    assert.equal(await post(draft("x"), "bob"), 403);
    assert.equal(await post(draft("x", { level: "system" })), 403);
    assert.equal(await post(draft("Upper")), 400);
    assert.equal(await post(draft("x", { duration: 0 })), 400);
    assert.equal(await post(draft("x", { permissions: [] })), 400);
    const everywhere = [{ kind: "project", namespace: "*", access: [{ resource: "repository", action: "push" }] }];
    assert.equal(await post(draft("x", { permissions: everywhere })), 400);
    assert.equal((await api.request("POST", ROBOTS, { body: draft("x") })).status, 401);
    const nowhere = [{ kind: "project", namespace: "nothing", access: [{ resource: "repository", action: "push" }] }];
    assert.equal(await post(draft("x", { level: "system", permissions: nowhere }), "root"), 400);
  });

  await t.test("expire, and live again when prolonged", async () => {
    const created = (await api.request("POST", ROBOTS, { as: "alice", body: draft("short", { duration: 1 }) })).json;
    const header = basic(created.name, created.secret);
    assert.ok(Math.abs(created.expires_at * 1000 - Date.now() - 86_400_000) < 60_000);
    await parts.auth.registry.authenticate(header, ORIGIN);
    await database.query(
      "UPDATE robots SET created_at = now() - interval '2 days', expires_at = now() - interval '1 second' WHERE id = $1",
      [created.id],
    );
    // The API's own write is what tells the processes.
    assert.equal((await api.request("PUT", `${ROBOTS}/${created.id}`, { as: "alice", body: draft("short", { duration: 1 }) })).status, 200);
    await assert.rejects(parts.auth.registry.authenticate(header, ORIGIN), { code: "UNAUTHORIZED" });
    assert.equal(
      (await api.request("PUT", `${ROBOTS}/${created.id}`, { as: "alice", body: draft("short", { duration: 30 }) })).status,
      200,
    );
    assert.equal((await parts.auth.registry.authenticate(header, ORIGIN)).kind, "robot");
  });

  await t.test("that are disabled, changed or removed are so at the next request", async () => {
    const created = (await api.request("POST", ROBOTS, { as: "alice", body: draft("worker") })).json;
    const path = `${ROBOTS}/${created.id}`;
    const { registry } = parts.auth;
    let header = basic(created.name, created.secret);
    await registry.authenticate(header, ORIGIN);
    assert.ok(registry.peekPrincipal(header));

    const pull = [{ kind: "project", namespace: "web", access: [{ resource: "repository", action: "pull" }] }];
    assert.equal((await api.request("PUT", path, { as: "alice", body: draft("worker", { permissions: pull }) })).status, 200);
    assert.equal(registry.peekPrincipal(header), undefined);
    const changed = await registry.authenticate(header, ORIGIN);
    assert.deepEqual([await registry.decide(changed, web, "pull"), await registry.decide(changed, web, "push")], [true, false]);

    assert.equal((await api.request("PUT", path, { as: "alice", body: draft("worker", { disable: true }) })).status, 200);
    await assert.rejects(registry.authenticate(header, ORIGIN), { code: "UNAUTHORIZED" });
    assert.equal((await api.request("PUT", path, { as: "alice", body: draft("worker") })).status, 200);

    const refreshed = await api.request("PATCH", path, { as: "alice", body: {} });
    await assert.rejects(registry.authenticate(header, ORIGIN), { code: "UNAUTHORIZED" });
    header = basic(created.name, refreshed.json.secret);
    await registry.authenticate(header, ORIGIN);

    assert.deepEqual((await api.request("PATCH", path, { as: "alice", body: { secret: "Chosen12345" } })).json, {});
    await registry.authenticate(basic(created.name, "Chosen12345"), ORIGIN);
    assert.equal((await api.request("PATCH", path, { as: "alice", body: { secret: "weak" } })).status, 400);

    assert.equal((await api.request("DELETE", path, { as: "bob" })).status, 403);
    assert.equal((await api.request("DELETE", path, { as: "alice" })).status, 200);
    await assert.rejects(registry.authenticate(basic(created.name, "Chosen12345"), ORIGIN), { code: "UNAUTHORIZED" });
    assert.equal((await api.request("GET", path, { as: "root" })).status, 404);
  });

  await t.test("keep name and level", async () => {
    const created = (await api.request("POST", ROBOTS, { as: "alice", body: draft("fixed") })).json;
    const put = async (body: object): Promise<number> =>
      (await api.request("PUT", `${ROBOTS}/${created.id}`, { as: "alice", body })).status;
    assert.equal(await put(draft("other")), 400);
    assert.equal(await put(draft("fixed", { level: "system" })), 400);
    assert.equal(await put(draft("robot$web+fixed", { description: "same" })), 200);
  });

  await t.test("that manage robots make none that can do more than themselves", async () => {
    const access = ["create", "update", "list"].map((action) => ({ resource: "robot", action }));
    const permissions = [{ kind: "project", namespace: "web", access: [...access, { resource: "repository", action: "pull" }] }];
    const manager = (await api.request("POST", ROBOTS, { as: "alice", body: draft("manager", { permissions }) })).json;
    const as = basic(manager.name, manager.secret);
    const child = (action: string): object =>
      draft(`child-${action}`, { permissions: [{ kind: "project", namespace: "web", access: [{ resource: "repository", action }] }] });
    assert.equal((await api.request("POST", ROBOTS, { as, body: child("pull") })).status, 201);
    assert.equal((await api.request("POST", ROBOTS, { as, body: child("push") })).status, 403);
    const strong = (await api.request("POST", ROBOTS, { as: "alice", body: draft("strong") })).json;
    assert.equal((await api.request("PATCH", `${ROBOTS}/${strong.id}`, { as, body: {} })).status, 403);
  });

  await t.test("of the system see and do what their permissions cover", async () => {
    const permissions = [
      { kind: "project", namespace: "db", access: [{ resource: "repository", action: "pull" }] },
      { kind: "system", namespace: "/", access: [{ resource: "catalog", action: "read" }] },
    ];
    const made = (await api.request("POST", ROBOTS, { as: "root", body: draft("auditor", { level: "system", permissions }) })).json;
    assert.equal(made.name, "robot$auditor");
    const as = basic(made.name, made.secret);
    const robot = await parts.auth.registry.authenticate(as, ORIGIN);
    assert.equal(parts.auth.registry.mayListCatalog(robot), true);
    const visible = (await api.request("GET", "/api/v2.0/projects", { as })).json.map((one: { name: string }) => one.name);
    assert.deepEqual(visible, ["db"]);
    assert.deepEqual(
      (await api.request("GET", ROBOTS, { as: "root" })).json.map((one: { name: string }) => one.name),
      ["robot$auditor"],
    );
    assert.equal((await api.request("GET", ROBOTS, { as: "alice" })).status, 403);
  });

  await t.test("go with their project", async () => {
    const robots = await parts.auth.robots.list(web.id, { filters: [], sort: [], page: 1, pageSize: 100 });
    assert.ok(robots.total > 0);
    const made = (await api.request("POST", ROBOTS, { as: "alice", body: draft("last") })).json;
    const header = basic(made.name, made.secret);
    await parts.auth.registry.authenticate(header, ORIGIN);
    assert.equal((await api.request("DELETE", "/api/v2.0/projects/web", { as: "alice" })).status, 200);
    await assert.rejects(parts.auth.registry.authenticate(header, ORIGIN), { code: "UNAUTHORIZED" });
  });
});
