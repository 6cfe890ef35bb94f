import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { createEncryption } from "../../src/auth/encryption.ts";
import { addUser, basic, login, ORIGIN, testAuth } from "../support/auth.ts";
import { testDatabase } from "../support/services.ts";
import { openTestBuses } from "../support/test-bus.ts";

for (const driver of ["redis", "postgres"] as const) {
  test(`what one process revokes is revoked for the next request to another (${driver})`, async (t) => {
    await testRevocation(t, driver);
  });
}

async function testRevocation(t: TestContext, driver: "redis" | "postgres"): Promise<void> {
  const { database } = await testDatabase(t);
  const [busHere, busThere] = await openTestBuses(t, 2, driver === "redis" ? null : database);
  assert.ok(busHere && busThere);
  const encryption = createEncryption(randomBytes(32));
  const here = testAuth(t, { database, bus: busHere, encryption });
  const there = testAuth(t, { database, bus: busThere, encryption });
  const web = await here.projects.create({ name: "web", public: false, ownerId: null });
  const { registry } = there.auth;

  async function tokenOf(username: string, project = "web"): Promise<string> {
    const request = { service: "slipway", scopes: [`repository:${project}/x:pull,push`], offline: false, resolveProject: async () => web };
    return `Bearer ${(await here.auth.tokenService.issueForHeader(basic(username), request, ORIGIN)).token}`;
  }

  await t.test("a changed password ends Basic and Bearer", async () => {
    const id = await addUser(here, "alice");
    const headers = [basic("alice"), await tokenOf("alice")];
    for (const header of headers) await registry.authenticate(header, ORIGIN);
    for (const header of headers) assert.ok(registry.peekPrincipal(header));
    await here.auth.users.changePassword(id, await here.auth.passwords.hash("Another12345"));
    for (const header of headers) {
      assert.equal(registry.peekPrincipal(header), undefined);
      await assert.rejects(registry.authenticate(header, ORIGIN), { code: "UNAUTHORIZED" });
    }
    await login(there, "alice", "Another12345");
  });

  await t.test("a removed user, also when another takes the name", async () => {
    const id = await addUser(here, "bob");
    const headers = [basic("bob"), await tokenOf("bob")];
    for (const header of headers) await registry.authenticate(header, ORIGIN);
    await here.auth.users.remove(id);
    for (const header of headers) await assert.rejects(registry.authenticate(header, ORIGIN), { code: "UNAUTHORIZED" });
    const next = await addUser(here, "bob");
    assert.equal((await registry.authenticate(basic("bob"), ORIGIN)).id, next);
    await assert.rejects(registry.authenticate(headers[1], ORIGIN), { code: "UNAUTHORIZED" });
  });

  await t.test("a withdrawn administrator", async () => {
    await addUser(here, "root", { sysadmin: true });
    const id = await addUser(here, "second", { sysadmin: true });
    const header = basic("second");
    assert.equal((await registry.authenticate(header, ORIGIN)).sysadmin, true);
    await here.auth.users.setSysadmin(id, false);
    assert.equal(registry.peekPrincipal(header), undefined);
    assert.equal((await registry.authenticate(header, ORIGIN)).sysadmin, false);
  });

  await t.test("a changed or withdrawn role", async () => {
    const id = await addUser(here, "dora");
    const dora = await login(there, "dora");
    assert.equal(await registry.decide(dora, web, "pull"), false);
    const member = await here.auth.members.create(web, id, 2);
    assert.equal(registry.peekDecision(dora, web, "push"), undefined);
    assert.equal(await registry.decide(dora, web, "push"), true);
    await here.auth.members.update(web, member, 3);
    assert.equal(await registry.decide(dora, web, "push"), false);
    assert.equal(await registry.decide(dora, web, "pull"), true);
    await here.auth.members.remove(web, member);
    assert.equal(await registry.decide(dora, web, "pull"), false);
  });

  await t.test("rights that change all the time are never read from before the last change", async () => {
    const id = await addUser(here, "eve");
    const eve = await login(there, "eve");
    const member = await here.auth.members.create(web, id, 3);
    const stop = new AbortController();
    const readers = Array.from({ length: 4 }, async () => {
      while (!stop.signal.aborted) {
        await registry.decide(eve, web, "push");
        await setImmediate();
      }
    });
    for (let round = 0; round < 40; round += 1) {
      const role = round % 2 === 0 ? 2 : 3;
      await here.auth.members.update(web, member, role);
      assert.equal(await registry.decide(eve, web, "push"), role === 2, `round ${round}`);
    }
    stop.abort();
    await Promise.all(readers);
  });
}
