import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY_REGISTRY } from "../../../src/proxy/registry-store.ts";
import { FakeRegistry } from "../../support/fake-registry.ts";
import { ADMIN, startRegistry } from "../../support/registry-server.ts";

test("answers of a proxy from memory tell where they are from and how old they are", async (t) => {
  const upstream = await new FakeRegistry().start();
  t.after(() => upstream.stop());
  const digest = upstream.putImage("app", "1");
  const server = await startRegistry(t);
  const registry = await server.app.proxy.registries.save({ ...EMPTY_REGISTRY, name: "fake", url: upstream.url });
  await server.app.catalog.projects.create({ name: "open", public: true, ownerId: null, registryId: registry.id });
  const states: (string | null)[] = [];
  let fromMemory = 0;
  for (const reference of ["1", "1", "1", digest, digest]) {
    const answer = await fetch(`${server.url}/v2/open/app/manifests/${reference}`);
    await answer.arrayBuffer();
    assert.equal(answer.headers.get("docker-content-digest"), digest);
    assert.match(answer.headers.get("age") ?? "", /^\d+$/);
    // The hot path answers without a request id.
    if (!answer.headers.has("x-request-id")) fromMemory += 1;
    states.push(answer.headers.get("x-cache"));
  }
  assert.deepEqual(states, ["MISS", "HIT", "HIT", "HIT", "HIT"]);
  assert.ok(fromMemory > 0);
});

test("what the short way knows of a name ends with the project's and the upstream's rows", async (t) => {
  const upstream = await new FakeRegistry().start();
  t.after(() => upstream.stop());
  const digest = upstream.putImage("app", "1");
  const server = await startRegistry(t, { auth: "anonymous-pull" });
  const { catalog, proxy } = server.app;
  const registry = await proxy.registries.save({ ...EMPTY_REGISTRY, name: "fake", url: upstream.url });
  const project = await catalog.projects.create({ name: "open", public: true, ownerId: null, registryId: registry.id });
  const ask = async (authorization?: string): Promise<{ readonly status: number; readonly isHot: boolean }> => {
    const headers = authorization === undefined ? {} : { authorization };
    const answer = await fetch(`${server.url}/v2/open/app/manifests/${digest}`, { headers });
    await answer.arrayBuffer();
    return { status: answer.status, isHot: !answer.headers.has("x-request-id") };
  };
  const untilHot = async (authorization?: string): Promise<void> => {
    for (let turn = 0; turn < 50; turn += 1) if ((await ask(authorization)).isHot) return;
    assert.fail("never answered the short way");
  };
  await untilHot();
  // Over the same connection, by turns.
  assert.deepEqual(await ask("Basic bm9ib2R5Ondyb25n"), { status: 401, isHot: false });
  await untilHot(ADMIN);
  await catalog.projects.update(project.id, { public: false });
  assert.deepEqual(await ask(), { status: 401, isHot: false });
  await untilHot(ADMIN);
  assert.equal((await ask()).status, 401);
  await catalog.projects.update(project.id, { public: true, metadata: { proxy_deny: "app" } });
  assert.deepEqual(await ask(ADMIN), { status: 404, isHot: false });
  await catalog.projects.update(project.id, { metadata: {} });
  await untilHot(ADMIN);
});
