import assert from "node:assert/strict";
import { test } from "node:test";
import { ANONYMOUS } from "../../src/auth/principal.ts";
import type { Principal, RegistryAction } from "../../src/auth/principal.ts";
import { permissionsAllow, ROLE_IDS } from "../../src/auth/roles.ts";
import type { Right, RoleId } from "../../src/auth/roles.ts";
import { addUser, login, testAuth } from "../support/auth.ts";
import { testDatabase } from "../support/services.ts";
import { testBus } from "../support/test-bus.ts";

const ACTIONS: readonly RegistryAction[] = ["pull", "push", "delete"];

/** Columns: nobody, limitedGuest, guest, developer, maintainer, projectAdmin. */
const TABLE: readonly (readonly [Right, string])[] = [
  ["project:read", "nyyyyy"],
  ["repository:list", "nyyyyy"],
  ["repository:pull", "nyyyyy"],
  ["artifact:read", "nyyyyy"],
  ["tag:list", "nyyyyy"],
  ["member:list", "nnyyyy"],
  ["repository:push", "nnnyyy"],
  ["tag:create", "nnnyyy"],
  ["artifact:create", "nnnyyy"],
  ["repository:update", "nnnyyy"],
  ["repository:delete", "nnnnyy"],
  ["artifact:delete", "nnnnyy"],
  ["tag:delete", "nnnnyy"],
  ["project:update", "nnnnny"],
  ["project:delete", "nnnnny"],
  ["member:create", "nnnnny"],
  ["metadata:update", "nnnnny"],
  ["robot:create", "nnnnny"],
];
const ROLES: readonly (RoleId | null)[] = [
  null,
  ROLE_IDS.limitedGuest,
  ROLE_IDS.guest,
  ROLE_IDS.developer,
  ROLE_IDS.maintainer,
  ROLE_IDS.projectAdmin,
];

test("rights", async (t) => {
  const { database } = await testDatabase(t);
  const bus = await testBus(t);
  const parts = testAuth(t, { database, bus });
  const { auth, projects } = parts;
  await addUser(parts, "root", { sysadmin: true });
  const secret = await projects.create({ name: "secret", public: false, ownerId: null });
  const open = await projects.create({ name: "open", public: true, ownerId: null });
  const people: Principal[] = [];
  for (const [index, role] of ROLES.entries()) {
    const id = await addUser(parts, `user${index}`);
    if (role !== null) await auth.members.create(secret, id, role);
    people.push(await login(parts, `user${index}`));
  }
  const root = await login(parts, "root");
  const allowed = async (principal: Principal, project: typeof secret): Promise<string> => {
    const decisions = await Promise.all(ACTIONS.map((action) => auth.registry.decide(principal, project, action)));
    return ACTIONS.filter((_, index) => decisions[index]).join(" ");
  };

  await t.test("follow the table of roles", async () => {
    for (const [right, row] of TABLE) {
      const found = await Promise.all(people.map(async (person) => ((await auth.decisions.may(person, secret, right)) ? "y" : "n")));
      assert.equal(found.join(""), row, right);
      assert.equal(await auth.decisions.may(root, secret, right), true);
      assert.equal(await auth.decisions.may(ANONYMOUS, secret, right), false);
    }
  });

  await t.test("of the registry follow the roles, and are known without a wait afterwards", async () => {
    const expected = ["", "pull", "pull", "pull push", "pull push delete", "pull push delete"];
    for (const [index, person] of people.entries()) {
      assert.equal(await allowed(person, secret), expected[index], person.name);
      for (const action of ACTIONS) {
        assert.equal(
          auth.registry.peekDecision(person, secret, action),
          expected[index]?.split(" ").includes(action),
          `${person.name} ${action}`,
        );
      }
    }
    assert.equal(await allowed(root, secret), "pull push delete");
  });

  await t.test("on a public project let anybody read, but not the members", async () => {
    assert.equal(await allowed(ANONYMOUS, open), "pull");
    assert.equal(auth.registry.peekDecision(ANONYMOUS, open, "pull"), true);
    assert.equal(await allowed(people[0] as Principal, open), "pull");
    assert.equal(await auth.decisions.may(ANONYMOUS, open, "repository:list"), true);
    assert.equal(await auth.decisions.may(ANONYMOUS, open, "repository:read"), false);
    assert.equal(await auth.decisions.may(ANONYMOUS, open, "member:list"), false);
  });

  await t.test("on the system belong to administrators", async () => {
    assert.equal(await auth.decisions.may(root, null, "user:list"), true);
    for (const person of people) assert.equal(await auth.decisions.may(person, null, "user:list"), false);
    assert.deepEqual([auth.registry.mayListCatalog(root), auth.registry.mayListCatalog(people[5] as Principal)], [true, false]);
    assert.deepEqual([auth.registry.mayCreateProject(root), auth.registry.mayCreateProject(people[5] as Principal)], [true, false]);
    assert.deepEqual([auth.decisions.mayCreateProject(people[0] as Principal), auth.decisions.mayCreateProject(ANONYMOUS)], [true, false]);
  });

  await t.test("depend on the mode", async () => {
    const opened = testAuth(t, { database, bus, config: { mode: "open" } }).auth.registry;
    for (const action of ACTIONS) assert.equal(opened.peekDecision(ANONYMOUS, secret, action), true);
    assert.deepEqual([opened.mayListCatalog(ANONYMOUS), opened.mayCreateProject(ANONYMOUS)], [true, true]);
    const required = testAuth(t, { database, bus, config: { mode: "required" } }).auth;
    assert.equal(await required.registry.decide(ANONYMOUS, open, "pull"), false);
    assert.equal(await required.registry.decide(people[0] as Principal, open, "pull"), true);
    assert.equal(await required.decisions.may(ANONYMOUS, open, "project:read"), false);
    const closed = testAuth(t, { database, bus, config: { createProjectsOnPush: false } }).auth.registry;
    assert.equal(closed.mayCreateProject(root), false);
  });

  await t.test("in the open mode are still needed for the management API", async () => {
    const opened = testAuth(t, { database, bus, config: { mode: "open" } }).auth.decisions;
    assert.equal(await opened.may(ANONYMOUS, secret, "project:read"), false);
    assert.equal(await opened.may(ANONYMOUS, null, "user:list"), false);
  });

  await t.test("cost no database once they are known", async () => {
    await allowed(people[3] as Principal, secret);
    const before = database.stats().statements;
    for (let round = 0; round < 100; round += 1) await allowed(people[3] as Principal, secret);
    assert.equal(database.stats().statements, before);
  });
});

test("a robot's permissions are read by namespace, with wildcards, and a denial wins", () => {
  const access = [{ resource: "repository", action: "pull" }];
  const allow = (permissions: Parameters<typeof permissionsAllow>[0], project: string | null, right: Right): boolean =>
    permissionsAllow(permissions, project, [right]);
  assert.equal(allow([{ kind: "project", namespace: "web", access }], "web", "repository:pull"), true);
  assert.equal(allow([{ kind: "project", namespace: "web", access }], "web2", "repository:pull"), false);
  assert.equal(allow([{ kind: "project", namespace: "*", access }], "any", "repository:pull"), true);
  assert.equal(allow([{ kind: "project", namespace: "*", access }], null, "repository:pull"), false);
  assert.equal(allow([{ kind: "system", namespace: "/", access }], "any", "repository:pull"), false);
  const all = [{ resource: "*", action: "*" }];
  assert.equal(allow([{ kind: "project", namespace: "web", access: all }], "web", "tag:delete"), true);
  const denied = [...all, { resource: "tag", action: "delete", effect: "deny" as const }];
  assert.equal(allow([{ kind: "project", namespace: "web", access: denied }], "web", "tag:delete"), false);
});
