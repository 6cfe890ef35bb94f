import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { createEncryption } from "../../src/auth/encryption.ts";
import type { Invalidations } from "../../src/auth/invalidations.ts";
import { Database } from "../../src/db/pool.ts";
import { addUser, basic, login, ORIGIN, PASSWORD, startApi, testAuth } from "../support/auth.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { testDatabase } from "../support/services.ts";
import { testBus } from "../support/test-bus.ts";

test("while the database is away", async (t) => {
  const direct = await testDatabase(t);
  const target = new URL(direct.url);
  const network = await new FaultProxy({ address: target.hostname, port: Number(target.port) }).start();
  target.host = `127.0.0.1:${network.port}`;
  const database = new Database({ url: target.href, poolSize: 4, acquireTimeoutMs: 1_000, onError: () => undefined });
  t.after(async () => {
    await database.close();
    await network.stop();
  });
  const time = { offset: 0 };
  const clock = { now: () => Date.now() + time.offset };
  const channel = { trusted: true };
  const real = await testBus(t);
  const bus: Invalidations = {
    publish: (scopes) => real.publish(scopes),
    subscribe: (listener) => real.subscribe(listener),
    onReset: (listener) => real.onReset(listener),
    trusted: () => channel.trusted && real.trusted(),
  };
  const parts = testAuth(t, { database, bus, clock, encryption: createEncryption(randomBytes(32)) });
  const { registry } = parts.auth;
  const api = await startApi(t, parts);
  const alice = await addUser(parts, "alice");
  await addUser(parts, "bob");
  const carol = await addUser(parts, "carol");
  const web = await parts.projects.create({ name: "web", public: false, ownerId: alice });
  const other = await parts.projects.create({ name: "other", public: false, ownerId: alice });
  await parts.auth.members.create(web, alice, 2);

  const known = await login(parts, "alice");
  assert.equal(await registry.decide(known, web, "push"), true);
  const scope = "/service/token?scope=repository:web/app:push";
  const bearer = `Bearer ${(await api.request("GET", scope, { as: "alice" })).json.token}`;
  await registry.authenticate(bearer, ORIGIN);
  await login(parts, "carol");

  function goAway(): void {
    network.set({ refuse: true });
    network.dropConnections();
  }

  await t.test("known tokens, passwords and decisions hold on, and are counted", async () => {
    goAway();
    // Longer than an entry is fresh by itself.
    time.offset += 61_000;
    const before = parts.auth.stats().accounts.staleUses;
    assert.equal((await registry.authenticate(basic("alice"), ORIGIN)).name, "alice");
    assert.equal((await registry.authenticate(bearer, ORIGIN)).name, "alice");
    assert.equal(await registry.decide(known, web, "push"), true);
    assert.equal(await registry.decide(known, web, "delete"), false);
    assert.ok(parts.auth.stats().accounts.staleUses > before);
    assert.equal(registry.peekPrincipal(bearer)?.name, "alice", "the hot path goes on as well");
  });

  await t.test("a wrong password of a known user is still wrong", async () => {
    await assert.rejects(registry.authenticate(basic("alice", "Wrong12345"), ORIGIN), { code: "UNAUTHORIZED" });
  });

  await t.test("what is not known is answered 503 with Retry-After, not 401", async () => {
    await assert.rejects(registry.authenticate(basic("bob"), ORIGIN), { code: "DATABASE_UNAVAILABLE" });
    await assert.rejects(registry.decide(known, other, "pull"), { code: "DATABASE_UNAVAILABLE" });
    const answer = await api.request("GET", "/service/token?service=slipway", { as: "bob" });
    assert.deepEqual([answer.status, Number(answer.headers.get("retry-after")) > 0], [503, true]);
    assert.equal((await api.request("GET", "/api/v2.0/projects", { as: "bob" })).status, 503);
  });

  await t.test("the channel of invalidations may be away too", async () => {
    channel.trusted = false;
    assert.equal((await registry.authenticate(bearer, ORIGIN)).name, "alice");
    assert.equal(await registry.decide(known, web, "push"), true);
    channel.trusted = true;
  });

  await t.test("a revocation that arrived counts all the same", async () => {
    await bus.publish([`principal:user:${carol}`]);
    await assert.rejects(registry.authenticate(basic("carol"), ORIGIN), { code: "DATABASE_UNAVAILABLE" });
  });

  await t.test("nothing holds longer than allowed", async () => {
    time.offset += 300_000;
    await assert.rejects(registry.authenticate(bearer, ORIGIN), { code: "DATABASE_UNAVAILABLE" });
    await assert.rejects(registry.authenticate(basic("alice"), ORIGIN), { code: "DATABASE_UNAVAILABLE" });
    await assert.rejects(registry.decide(known, web, "push"), { code: "DATABASE_UNAVAILABLE" });
  });

  await t.test("it recovers by itself", async () => {
    network.heal();
    time.offset += 2_000;
    assert.equal((await registry.authenticate(basic("alice", PASSWORD), ORIGIN)).name, "alice");
    assert.equal(await registry.decide(known, other, "pull"), false);
    assert.equal((await registry.authenticate(basic("bob"), ORIGIN)).name, "bob");
  });
});
