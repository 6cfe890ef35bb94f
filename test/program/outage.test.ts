/** Database and Redis away and back: what is known is still served, the rest says when to come again, and nobody has to help. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startFaultProxy } from "../support/fault-proxy.ts";
import type { FaultProxy } from "../support/fault-proxy.ts";
import { bytesOf, codeOf, OciClient, randomContent } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { missingRedis, testRedisUrl } from "../support/services.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { adminClient, tokenFor, until } from "./support.ts";

function takeAway(service: FaultProxy): void {
  service.set({ refuse: true });
  service.dropConnections();
}

async function through(t: Parameters<typeof startFaultProxy>[0], address: string): Promise<{ url: string; proxy: FaultProxy }> {
  const url = new URL(address);
  const proxy = await startFaultProxy(t, { address: url.hostname, port: Number(url.port || "5432") });
  url.hostname = "127.0.0.1";
  url.port = String(proxy.port);
  return { url: url.href, proxy };
}

test("Postgres away for ten seconds: cached content is served, pushes and unknown names get 503, then all works again", async (t) => {
  const s = scope(t);
  const shared = await sharedServices(s);
  const database = await through(s, String(shared["SLIPWAY_DATABASE_URL"]));
  const slipway = await startSlipway(s, {
    env: { ...shared, SLIPWAY_DATABASE_URL: database.url },
    args: ["--role", "proxy", "--role", "api"],
  });
  const admin = adminClient(slipway);
  const blob = randomContent(200_000);
  await admin.pushBlob("library/warm", blob);
  const manifest = await admin.pushImage("library/warm", "v1");
  const token = await tokenFor(slipway, "repository:library/warm:pull");
  const readers = [admin, new OciClient(slipway.url, { authorization: `Bearer ${token}` }), new OciClient(slipway.url)];
  const warm = [`/v2/library/warm/manifests/v1`, `/v2/library/warm/manifests/${manifest.digest}`, `/v2/library/warm/blobs/${blob.digest}`];
  const expected = [manifest.bytes, manifest.bytes, blob.bytes];
  async function readAll(): Promise<void> {
    for (const [index, path] of warm.entries()) {
      for (const [who, reader] of readers.entries()) {
        const answer = await reader.request(path);
        assert.equal(answer.status, 200, `${path} by reader ${who}: ${answer.status}`);
        assert.deepEqual(await bytesOf(answer), expected[index]);
      }
    }
  }
  await readAll();

  takeAway(database.proxy);
  const end = Date.now() + 10_000;
  for (let round = 0; Date.now() < end; round += 1) {
    await readAll();
    const unknown = [
      `/v2/library/warm/manifests/other-${round}`,
      `/v2/library/never-${round}/manifests/v1`,
      `/v2/nothing-${round}/app/manifests/v1`,
      `/v2/library/warm/blobs/sha256:${String(round).padStart(64, "0")}`,
      "/v2/library/warm/tags/list",
      "/v2/_catalog",
    ];
    for (const path of unknown) {
      const answer = await admin.request(path);
      assert.equal(answer.status, 503, `${path}: ${answer.status} ${await answer.clone().text()}`);
      assert.match(String(answer.headers.get("retry-after")), /^\d+$/, path);
      await codeOf(answer);
    }
    const pushes = [
      await admin.start("library/warm"),
      await admin.request(`/v2/library/warm/blobs/uploads/?digest=${blob.digest}`, { method: "POST", body: new Uint8Array(blob.bytes) }),
      await admin.putManifest("library/warm", "v2", manifest.bytes),
    ];
    for (const answer of pushes) {
      assert.equal(answer.status, 503);
      assert.match(String(answer.headers.get("retry-after")), /^\d+$/);
      await codeOf(answer);
    }
    const login = await fetch(`${slipway.url}/service/token?service=slipway`, { headers: { authorization: "Basic bmV3OmxvZ2lu" } });
    assert.equal(login.status, 503, "an unknown login is not a wrong one");
    assert.equal((await fetch(`${slipway.url}/health/live`)).status, 200);
    await delay(500);
  }
  const ready = await fetch(`${slipway.url}/health/ready`);
  assert.equal(ready.status, 503);
  assert.deepEqual(((await ready.json()) as { missing: string[] }).missing, ["database"]);

  database.proxy.heal();
  await until("the program is ready again", async () => ((await fetch(`${slipway.url}/health/ready`)).ok ? true : undefined));
  await readAll();
  const next = await admin.pushImage("library/warm", "v3");
  assert.equal((await admin.request("/v2/library/warm/manifests/v3")).headers.get("docker-content-digest"), next.digest);
  assert.equal((await admin.request("/v2/library/warm/manifests/nothing")).status, 404);
  assert.equal(await slipway.stop(), 0);
});

test(
  "Redis away: pulls and pushes go on, and after its return processes tell each other of changes again",
  { skip: missingRedis() },
  async (t) => {
    const s = scope(t);
    const shared = await sharedServices(s);
    const redis = await through(s, await testRedisUrl());
    const env = { ...shared, REDIS_URL: redis.url, SLIPWAY_STORAGE_PATH: await tempDir(s, "slipway-blobs-") };
    const [one, two] = await Promise.all([1, 2].map(() => startSlipway(s, { env, args: ["--role", "proxy"] })));
    assert.ok(one && two);
    const [first, second] = [adminClient(one), adminClient(two)];
    await first.pushImage("library/app", "v1");
    assert.equal((await second.request("/v2/library/app/manifests/v1")).status, 200);

    takeAway(redis.proxy);
    const end = Date.now() + 5_000;
    for (let round = 0; Date.now() < end; round += 1) {
      const image = await first.pushImage("library/app", "v1");
      for (const client of [first, second]) {
        const answer = await client.request("/v2/library/app/manifests/v1");
        assert.equal(answer.status, 200);
        assert.equal(answer.headers.get("docker-content-digest"), image.digest, `round ${round}`);
      }
      assert.equal((await fetch(`${one.url}/health/ready`)).status, 200);
      await delay(200);
    }
    const health = (await (await fetch(`${one.url}/health`)).json()) as { components: { name: string; status: string }[] };
    assert.equal(health.components.find((component) => component.name === "redis")?.status, "unhealthy");

    redis.proxy.heal();
    await until("Redis is seen again", async () => {
      const report = (await (await fetch(`${one.url}/health`)).json()) as { components: { name: string; status: string }[] };
      return report.components.every((component) => component.status === "healthy") ? true : undefined;
    });
    for (let round = 0; round < 10; round += 1) {
      const image = await first.pushImage("library/app", "v1");
      const answer = await second.request("/v2/library/app/manifests/v1");
      assert.equal(answer.headers.get("docker-content-digest"), image.digest, `round ${round} after the return`);
    }
  },
);
