/** Two processes' worth of pools that share what they learn about a host, over real key-value services. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { openKv } from "../../src/kv/open-kv.ts";
import type { UpstreamPool } from "../../src/upstream/pool.ts";
import { KvHostState } from "../../src/upstream/shared-host-state.ts";
import { fail, send } from "../support/fake-answers.ts";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { testDatabase, testRedisUrl } from "../support/services.ts";
import { endpointFor, startPool, until, withCode } from "./support.ts";

type Driver = "redis" | "postgres";

async function startSharing(t: TestContext, driver: Driver): Promise<() => Promise<UpstreamPool>> {
  const { database } = await testDatabase(t);
  const prefix = `upstream-test-${randomBytes(4).toString("hex")}`;
  return async () => {
    const kv = await openKv({ redisUrl: driver === "redis" ? await testRedisUrl() : null, database, prefix });
    const shared = await KvHostState.start(kv);
    t.after(async () => {
      await shared.close();
      await kv.close();
    });
    return startPool(t, { shared, firstByteMs: 300, probeIntervalMs: 500 });
  };
}

for (const driver of ["redis", "postgres"] as const) {
  test(`a block and a budget are known to the other process within a second (${driver})`, async (t) => {
    const start = await startSharing(t, driver);
    const [one, two] = [await start(), await start()];
    const registry = await startFakeRegistry(t);
    const limited = endpointFor(registry.url);
    registry.on({ path: "/v2/" }, (_, response) =>
      send(response, 200, { "ratelimit-limit": "100;w=3600", "ratelimit-remaining": "77;w=3600" }),
    );
    registry.on({ path: /manifests/ }, (_, response) => fail(response, 429, "TOOMANYREQUESTS", { "retry-after": "60" }));
    await two.client(limited).ping();
    registry.on({ path: "/v2/" }, (_, response) =>
      send(response, 200, { "ratelimit-limit": "100;w=3600", "ratelimit-remaining": "50;w=3600" }),
    );
    await one.client(limited).ping();
    await until(() => two.stats().hosts[0]?.remaining === 50, "the budget of the other process");
    await assert.rejects(one.client(limited).getManifest("a", "v1"), withCode("UPSTREAM_LIMITED"));
    await until(() => (two.stats().hosts[0]?.blockedMs ?? 0) > 50_000, "the block of the other process");
    const calls = registry.calls.length;
    await assert.rejects(two.client(limited).getManifest("a", "v1"), withCode("UPSTREAM_LIMITED"));
    assert.equal(registry.calls.length, calls);

    // One that starts later finds what was left for it.
    const three = await start();
    await until(
      () => (
        three
          .client(limited)
          .ping()
          .catch(() => undefined),
        (three.stats().hosts[0]?.blockedMs ?? 0) > 0
      ),
      "the kept block",
    );
  });

  test(`a breaker opens and closes for all processes (${driver})`, async (t) => {
    const start = await startSharing(t, driver);
    const [one, two] = [await start(), await start()];
    const registry = await startFakeRegistry(t);
    registry.putImage("a", "v1");
    const proxy = await startFaultProxy(t, registry);
    const endpoint = endpointFor(proxy.url);
    await two.client(endpoint).getManifest("a", "v1");
    proxy.set({ hang: true });
    for (let round = 0; round < 2; round += 1)
      await one
        .client(endpoint)
        .getManifest("a", "v1")
        .catch(() => undefined);
    await until(() => two.stats().hosts[0]?.breaker !== "closed", "the breaker of the other process");
    await assert.rejects(two.client(endpoint).getManifest("a", "v1"), withCode("UPSTREAM_UNAVAILABLE"));
    proxy.heal();
    proxy.dropConnections();
    for (const pool of [one, two]) await until(() => pool.stats().hosts[0]?.breaker === "closed", "recovery");
    assert.ok(!(await two.client(endpoint).getManifest("a", "v1")).notModified);
  });
}
