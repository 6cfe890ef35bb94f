/** Registries that limit, hang, fail and come back; several addresses of one upstream. */
import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { test } from "node:test";
import { isSlipwayError } from "../../src/core/errors.ts";
import type { SlipwayError } from "../../src/core/errors.ts";
import { fail, send } from "../support/fake-answers.ts";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { endpointFor, startClient, startPool, until, withCode } from "./support.ts";

async function failureOf(promise: Promise<unknown>): Promise<SlipwayError> {
  const error = await promise.then(
    () => assert.fail("it worked"),
    (caught: unknown) => caught,
  );
  assert.ok(isSlipwayError(error), String(error));
  return error;
}

for (const [form, header] of [
  ["seconds", () => "30"],
  ["a date", () => new Date(Date.now() + 31_000).toUTCString()],
] as const) {
  test(`429 with Retry-After as ${form} stops all calls to the host until then`, async (t) => {
    const registry = await startFakeRegistry(t);
    registry.on({ path: /manifests/ }, (_, response) => fail(response, 429, "TOOMANYREQUESTS", { "retry-after": header() }));
    const client = startClient(t, registry.url);
    for (let round = 0; round < 3; round += 1) {
      const error = await failureOf(client.getManifest("a", "v1"));
      assert.equal(error.code, "UPSTREAM_LIMITED");
      assert.ok((error.retryAfterSeconds ?? 0) > 20 && (error.retryAfterSeconds ?? 0) <= 31);
    }
    assert.equal(registry.calls.length, 1);
  });
}

test("503 with Retry-After is unavailable for so long, without being asked again", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /manifests/ }, (_, response) => fail(response, 503, "UNAVAILABLE", { "retry-after": "20" }));
  const client = startClient(t, registry.url);
  for (let round = 0; round < 3; round += 1) {
    const error = await failureOf(client.getManifest("a", "v1"));
    assert.deepEqual([error.code, (error.retryAfterSeconds ?? 0) > 15], ["UPSTREAM_UNAVAILABLE", true]);
  }
  assert.equal(registry.calls.length, 1);
});

test("429 without Retry-After is waited out for a moment and then tried again", async (t) => {
  const registry = await startFakeRegistry(t);
  const digest = registry.putImage("a", "v1");
  registry.on({ path: /manifests/, times: 1 }, (_, response) => fail(response, 429, "TOOMANYREQUESTS"));
  const answer = await startClient(t, registry.url).getManifest("a", "v1");
  assert.ok(!answer.notModified && answer.digest === digest);
  assert.equal(registry.calls.length, 2);
});

test("a short Retry-After is waited for within the call's patience, and not by one that has none", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putImage("a", "v1");
  registry.on({ path: /manifests/, times: 1 }, (_, response) => fail(response, 429, "TOOMANYREQUESTS", { "retry-after": "1" }));
  const client = startClient(t, registry.url);
  await assert.rejects(client.getManifest("a", "v1", { waitMs: 0 }), withCode("UPSTREAM_LIMITED"));
  assert.ok(!(await client.getManifest("a", "v1")).notModified);
});

test("a Retry-After of some seconds is told to an interactive call, and any to a revalidation, instead of being waited for", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putImage("a", "v1");
  registry.on({ path: /manifests/, times: 1 }, (_, response) => fail(response, 429, "TOOMANYREQUESTS", { "retry-after": "3" }));
  const client = startClient(t, registry.url);
  const error = await failureOf(client.getManifest("a", "v1"));
  assert.deepEqual([error.code, error.retryAfterSeconds], ["UPSTREAM_LIMITED", 3]);
  const other = await failureOf(client.headManifest("a", "v1", { priority: "revalidation" }));
  assert.equal(other.code, "UPSTREAM_LIMITED");
  assert.ok(!(await client.getManifest("a", "v1", { priority: "replication" })).notModified, "who may wait for hours does wait");
  assert.equal(registry.calls.length, 2);
});

test("an announced pull budget keeps its rest for interactive pulls; HEAD is not counted", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putImage("a", "v1");
  const limit = { "ratelimit-limit": "100;w=21600", "ratelimit-remaining": "5;w=21600" };
  registry.on({ path: "/v2/" }, (_, response) => send(response, 200, limit));
  const pool = startPool(t);
  const client = pool.client(endpointFor(registry.url));
  await client.ping();
  assert.deepEqual([pool.stats().hosts[0]?.remaining, pool.stats().hosts[0]?.limit], [5, 100]);
  await assert.rejects(client.getManifest("a", "v1", { priority: "replication" }), withCode("UPSTREAM_LIMITED"));
  await assert.rejects(client.getManifest("a", "v1", { priority: "prefetch" }), withCode("UPSTREAM_LIMITED"));
  await client.headManifest("a", "v1", { priority: "revalidation" });
  await client.getManifest("a", "v1");
  assert.equal(pool.stats().hosts[0]?.remaining, 4);
});

test("an exhausted pull budget stops manifest pulls, while HEAD and blobs go on", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putImage("a", "v1");
  const digest = registry.putBlob("a", Buffer.from("x"));
  registry.on({ method: "GET", path: /manifests/ }, (_, response) => {
    fail(response, 429, "TOOMANYREQUESTS", { "retry-after": "600", "ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600" });
  });
  const client = startClient(t, registry.url);
  for (let round = 0; round < 2; round += 1) await assert.rejects(client.getManifest("a", "v1"), withCode("UPSTREAM_LIMITED"));
  assert.equal(registry.count("manifest-get"), 1);
  await client.headManifest("a", "v1");
  (await client.getBlob("a", digest)).body.destroy();
});

test("a 5xx is tried again within limits and then reported", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putImage("a", "v1");
  registry.on({ path: /manifests/, times: 2 }, (_, response) => fail(response, 502, "BAD_GATEWAY"));
  const client = startClient(t, registry.url, { pool: { breakerThreshold: 100 } });
  assert.ok(!(await client.getManifest("a", "v1")).notModified);
  registry.resetCalls();
  registry.on({ path: /manifests/ }, (_, response) => fail(response, 500, "UNKNOWN"));
  await assert.rejects(client.getManifest("a", "v1"), withCode("UPSTREAM_UNAVAILABLE"));
  assert.equal(registry.calls.length, 3);
});

test("retries of a failing host stay a small part of its calls", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /manifests/ }, (_, response) => fail(response, 500, "UNKNOWN"));
  const pool = startPool(t, { breakerThreshold: 1_000_000 });
  const client = pool.client(endpointFor(registry.url));
  await Promise.all(Array.from({ length: 60 }, () => failureOf(client.getManifest("a", "v1"))));
  assert.ok(pool.stats().retries <= 30, String(pool.stats().retries));
});

test("a refused connection is unreachable, a hanging one a timeout; then the breaker answers at once", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putImage("a", "v1");
  for (const [fault, code] of [
    [{ refuse: true }, "UPSTREAM_UNREACHABLE"],
    [{ hang: true }, "UPSTREAM_TIMEOUT"],
  ] as const) {
    const proxy = await startFaultProxy(t, registry);
    proxy.set(fault);
    const pool = startPool(t, { firstByteMs: 300, probeIntervalMs: 60_000 });
    const client = pool.client(endpointFor(proxy.url));
    await assert.rejects(client.getManifest("a", "v1"), withCode(code, "UPSTREAM_UNAVAILABLE"));
    await failureOf(client.getManifest("a", "v1"));
    assert.equal(pool.stats().hosts[0]?.breaker, "open");
    const seen = proxy.counts.connections;
    const start = performance.now();
    const errors = await Promise.all(Array.from({ length: 50 }, () => failureOf(client.getManifest("a", "v1"))));
    assert.ok(performance.now() - start < 250);
    assert.ok(errors.every((error) => error.code === "UPSTREAM_UNAVAILABLE" && (error.retryAfterSeconds ?? 0) >= 1));
    assert.equal(proxy.counts.connections, seen);
  }
});

test("a dead host is probed every so often, and calls go through again once it is back", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putImage("a", "v1");
  const proxy = await startFaultProxy(t, registry);
  proxy.set({ hang: true });
  const pool = startPool(t, { firstByteMs: 300, probeIntervalMs: 150, probeMs: 200 });
  const client = pool.client(endpointFor(proxy.url));
  const state = (): string | undefined => pool.stats().hosts[0]?.breaker;
  for (let round = 0; round < 2; round += 1) await failureOf(client.getManifest("a", "v1"));
  await until(() => proxy.counts.requests >= 4, "probes");
  assert.notEqual(state(), "closed");
  proxy.heal();
  proxy.dropConnections();
  await until(() => state() === "closed", "recovery");
  assert.ok(!(await client.getManifest("a", "v1")).notModified);
  assert.ok(pool.stats().calls.some((call) => call.kind === "probe" && call.status === "200"));
});

test("those who wait in the queue of a host that is found dead are told at once", async (t) => {
  const registry = await startFakeRegistry(t);
  const proxy = await startFaultProxy(t, registry);
  proxy.set({ hang: true });
  const pool = startPool(t, { firstByteMs: 500, probeIntervalMs: 60_000, metaConcurrency: { initial: 2, ceiling: 2 } });
  const client = pool.client(endpointFor(proxy.url));
  const start = performance.now();
  const errors = await Promise.all(Array.from({ length: 20 }, () => failureOf(client.getManifest("a", "v1", { waitMs: 60_000 }))));
  assert.ok(performance.now() - start < 5000);
  assert.ok(errors.some((error) => error.code === "UPSTREAM_UNAVAILABLE"));
});

test("concurrency halves when the host says that it has too much", async (t) => {
  const registry = await startFakeRegistry(t);
  let overloaded = true;
  registry.on({ path: /manifests/ }, (_, response) => {
    if (overloaded) setTimeout(() => fail(response, 503, "UNAVAILABLE"), 30);
    else send(response, 200, {}, '{"schemaVersion":2,"layers":[]}');
  });
  const pool = startPool(t, { metaConcurrency: { initial: 16, ceiling: 32 }, breakerThreshold: 1000, attempts: 1 });
  const client = pool.client(endpointFor(registry.url));
  const limit = (): number => pool.stats().hosts[0]?.queue.meta.limit ?? 0;
  await Promise.all(Array.from({ length: 16 }, () => failureOf(client.getManifest("a", "v1"))));
  assert.equal(limit(), 8);
  await Promise.all(Array.from({ length: 8 }, () => failureOf(client.getManifest("a", "v1"))));
  assert.equal(limit(), 4);
  overloaded = false;
  for (let round = 0; round < 10; round += 1) await Promise.all(Array.from({ length: 8 }, () => client.getManifest("a", "v1")));
  assert.ok(limit() > 4);
});

test("a full queue answers with Retry-After after the patience of the call", async (t) => {
  const registry = await startFakeRegistry(t);
  const held: ServerResponse[] = [];
  registry.on({ path: /manifests/ }, (_, response) => void held.push(response));
  const client = startClient(t, registry.url, { pool: { metaConcurrency: { initial: 1, ceiling: 1 } } });
  const first = client.getManifest("a", "v1");
  await until(() => held.length === 1, "the first call");
  const error = await failureOf(client.getManifest("a", "v2", { waitMs: 100 }));
  assert.deepEqual([error.code, (error.retryAfterSeconds ?? 0) >= 1], ["UPSTREAM_LIMITED", true]);
  for (const response of held) send(response, 200, {}, '{"schemaVersion":2,"layers":[]}');
  await first;
});

test("an interactive pull overtakes the prefetches that wait", async (t) => {
  const registry = await startFakeRegistry(t);
  const order: string[] = [];
  registry.on({ path: /manifests/ }, async (request, response) => {
    order.push(request.url?.split("/").at(-1) ?? "");
    await new Promise((resolve) => setTimeout(resolve, 30));
    send(response, 200, {}, '{"schemaVersion":2,"layers":[]}');
  });
  const client = startClient(t, registry.url, { pool: { metaConcurrency: { initial: 1, ceiling: 1 } } });
  const running = client.getManifest("a", "first");
  const rest = [
    ...["p1", "p2"].map((tag) => client.getManifest("a", tag, { priority: "prefetch" })),
    client.getManifest("a", "replication", { priority: "replication" }),
    client.getManifest("a", "interactive", { priority: "interactive" }),
  ];
  await Promise.all([running, ...rest]);
  assert.deepEqual(order, ["first", "interactive", "replication", "p1", "p2"]);
});

test("the next address is tried when the first cannot be reached, fails or is limited", async (t) => {
  const [first, second] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const digest = second.putImage("a", "v1");
  for (const status of [429, 500, 503]) {
    first.on({ path: /manifests/ }, (_, response) => fail(response, status, "TROUBLE", { "retry-after": "60" }));
    const pool = startPool(t);
    const answer = await pool.client(endpointFor([first.url, second.url])).getManifest("a", "v1");
    assert.ok(!answer.notModified && answer.digest === digest, String(status));
    assert.equal(pool.stats().failovers, 1);
  }
  await first.stop();
  const client = startClient(t, [`http://127.0.0.1:${second.port === 1 ? 2 : 1}`, second.url]);
  for (let round = 0; round < 4; round += 1) assert.ok(!(await client.getManifest("a", "v1")).notModified);
});

test("a refusal or an absence is final: no other address is asked", async (t) => {
  const [first, second] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  second.putImage("a", "v1");
  for (const [status, code] of [
    [401, "UPSTREAM_REFUSED"],
    [403, "UPSTREAM_REFUSED"],
    [404, "MANIFEST_UNKNOWN"],
  ] as const) {
    first.on({ path: /manifests/ }, (_, response) => fail(response, status, "DENIED"));
    await assert.rejects(startClient(t, [first.url, second.url]).getManifest("a", "v1"), withCode(code));
  }
  assert.equal(second.calls.length, 0);
});

test("a caller that goes away is not kept by a hanging registry", async (t) => {
  const registry = await startFakeRegistry(t);
  const proxy = await startFaultProxy(t, registry);
  proxy.set({ hang: true });
  const pool = startPool(t);
  const start = performance.now();
  await assert.rejects(
    pool.client(endpointFor(proxy.url)).getManifest("a", "v1", { signal: AbortSignal.timeout(100) }),
    withCode("CANCELLED"),
  );
  assert.ok(performance.now() - start < 3000);
  assert.equal(pool.stats().hosts[0]?.breaker, "closed");
});

test("a trouble of the storage behind a redirect is not held against the registry", async (t) => {
  const registry = await startFakeRegistry(t);
  const storage = await startFakeRegistry(t);
  const digest = registry.putBlob("a", Buffer.from("x"));
  registry.on({ path: /blobs/ }, (_, response) => send(response, 307, { location: `${storage.url}/x` }));
  storage.on({ path: "/x" }, (_, response) => send(response, 503, { "retry-after": "100" }));
  const pool = startPool(t);
  const client = pool.client(endpointFor(registry.url));
  for (let round = 0; round < 3; round += 1) await assert.rejects(client.getBlob("a", digest), withCode("UPSTREAM_UNAVAILABLE"));
  assert.equal(pool.stats().hosts[0]?.breaker, "closed");
  assert.equal((await client.ping()).status, 200);
});

test("names that do not resolve are unreachable", async (t) => {
  const resolver = (_: string, callback: (error: Error | null, addresses: []) => void): void => {
    callback(Object.assign(new Error("getaddrinfo ENOTFOUND"), { code: "ENOTFOUND" }), []);
  };
  await assert.rejects(
    startClient(t, "http://nowhere.test", { pool: { resolver } }).ping(),
    withCode("UPSTREAM_UNREACHABLE", "UPSTREAM_UNAVAILABLE"),
  );
});
