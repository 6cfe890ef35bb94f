import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { createEncryption } from "../../src/auth/encryption.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { RegistryProbe } from "../../src/proxy/registry-probe.ts";
import { EMPTY_REGISTRY, RegistryStore } from "../../src/proxy/registry-store.ts";
import { RegistryWatch } from "../../src/proxy/registry-watch.ts";
import { silentLogger } from "../../src/telemetry/logger.ts";
import { UpstreamPool } from "../../src/upstream/pool.ts";
import { FakeRegistry } from "../support/fake-registry.ts";
import { testDatabase } from "../support/services.ts";
import { testBus } from "../support/test-bus.ts";

test("registries are asked by one process in each interval, and their status follows", async (t) => {
  const { database } = await testDatabase(t);
  const kv = await openKv({ redisUrl: null, database, prefix: "watch:" });
  t.after(() => kv.close());
  const store = new RegistryStore(database, createEncryption(randomBytes(32)), await testBus(t));
  const probe = new RegistryProbe({ openPool: () => new UpstreamPool({ attempts: 1 }), timeoutMs: 2_000 });
  const open = (owner: string): RegistryWatch => {
    const watch = new RegistryWatch({ store, probe, kv, owner, logger: silentLogger, intervalMs: 600 });
    t.after(() => watch.close());
    return watch;
  };
  const upstream = await new FakeRegistry().start();
  const { id } = await store.save({ ...EMPTY_REGISTRY, name: "here", url: upstream.url });
  const off = await store.save({ ...EMPTY_REGISTRY, name: "off", url: upstream.url, enabled: false });
  const watches = [open("one"), open("other")];
  const did = await Promise.all(watches.map((watch) => watch.check()));
  assert.deepEqual(did.toSorted(), [false, true]);
  assert.equal((await store.find(id))?.status, "healthy");
  await upstream.stop();
  for (const end = Date.now() + 8_000; (await store.find(id))?.status !== "unhealthy";) {
    assert.ok(Date.now() < end, "the status changes by itself");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.equal((await store.find(off.id))?.status, "healthy", "one that is switched off is left alone");
});
