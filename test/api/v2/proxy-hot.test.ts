import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY_REGISTRY } from "../../../src/proxy/registry-store.ts";
import { FakeRegistry } from "../../support/fake-registry.ts";
import { startRegistry } from "../../support/registry-server.ts";

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
