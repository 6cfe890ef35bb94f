/** The Redis driver against a real Redis: the contract, and what happens while Redis is away. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { Redis } from "ioredis";
import { isSlipwayError } from "../../src/core/errors.ts";
import { RedisKv } from "../../src/kv/redis-kv.ts";
import { eventually, kvConformance, recorder } from "../support/kv-conformance.ts";
import type { KvSubject } from "../support/kv-conformance.ts";
import { ownRedis, stopRedis } from "../support/own-redis.ts";
import { testRedisUrl } from "../support/services.ts";

const prefix = `test-${randomBytes(4).toString("hex")}:`;
let subject: KvSubject;
let admin: Redis;

before(async () => {
  const url = await testRedisUrl();
  admin = new Redis(url, { protocol: 2 });
  // Under load a test may wait long for its turn; the deadline has a test of its own.
  const a = await RedisKv.open({ url, prefix, commandTimeoutMs: 5_000 });
  const b = await RedisKv.open({ url, prefix, commandTimeoutMs: 5_000, connectionName: prefix });
  subject = { a, b, cutSubscriber };
});

after(async () => {
  await subject.a.close();
  await subject.b.close();
  const left = await admin.keys(`${prefix}*`);
  if (left.length > 0) await admin.del(...left);
  admin.disconnect();
});

async function cutSubscriber(): Promise<void> {
  const clients = String(await admin.client("LIST"));
  const line = clients.split("\n").find((client) => client.includes(`name=${prefix}-subscriber`));
  const id = line?.match(/^id=(\d+)/)?.[1];
  assert.ok(id, "the subscriber is not in the server's list");
  await admin.client("KILL", "ID", id);
}

kvConformance("redis", () => subject);

function unavailable(error: unknown): boolean {
  return isSlipwayError(error, "KV_UNAVAILABLE");
}

test("redis: a driver opens while Redis is away, fails at once, and works when Redis comes", async (t) => {
  const redis = await ownRedis(t);
  const kv = await RedisKv.open({ url: redis.url, prefix, connectWaitMs: 100 });
  t.after(() => kv.close());
  const heard = recorder();
  await kv.subscribe("channel", heard);
  const started = performance.now();
  for (let index = 0; index < 20; index += 1) await assert.rejects(kv.get("x"), unavailable);
  await assert.rejects(kv.queue("q").claim([0], 1, 1), unavailable);
  await assert.rejects(kv.check(), unavailable);
  assert.ok(performance.now() - started < 1_500, "commands waited for a connection");
  assert.deepEqual(heard.events, []);
  await redis.start();
  await eventually(() => heard.events.includes("ready"), "it subscribes");
  await eventually(() => kv.set("x", "1").catch(() => false), "commands work");
});

test("redis: after a restart that lost everything scripts work and fences still grow", async (t) => {
  const redis = await ownRedis(t);
  let server = await redis.start();
  const kv = await RedisKv.open({ url: redis.url, prefix, commandTimeoutMs: 5_000 });
  t.after(() => kv.close());
  const heard = recorder();
  await kv.subscribe("channel", heard);
  const lease = await kv.acquireLease("l", "me", 60_000);
  assert.ok(lease);
  await stopRedis(server);
  await eventually(() => heard.events.includes("lost"), "the loss is told");
  server = await redis.start();
  await eventually(() => heard.events.join() === "ready,lost,ready", "it subscribes again");
  await eventually(
    () =>
      kv.check().then(
        () => true,
        () => false,
      ),
    "commands work again",
  );
  assert.equal(await lease.renew(60_000), false);
  const next = await kv.acquireLease("l", "me", 60_000);
  assert.ok(next && next.fence > lease.fence);
  await kv.queue("q").mark([{ slot: 0, member: "a" }]);
  assert.equal((await kv.queue("q").claim([0], 1, 1_000)).length, 1);
});

test("redis: a server that hangs costs a command its deadline, and the channel is given up", async (t) => {
  const redis = await ownRedis(t);
  const server = await redis.start();
  const kv = await RedisKv.open({ url: redis.url, prefix, commandTimeoutMs: 150 });
  t.after(() => kv.close());
  const heard = recorder();
  await kv.subscribe("channel", heard);
  await eventually(() => heard.events.includes("ready"), "ready");
  server.kill("SIGSTOP");
  const started = performance.now();
  await assert.rejects(kv.get("x"), unavailable);
  assert.ok(performance.now() - started < 1_000);
  await eventually(() => heard.events.includes("lost"), "the loss is told");
  server.kill("SIGCONT");
  await eventually(() => heard.events.at(-1) === "ready", "it subscribes again");
  await eventually(() => kv.set("x", "1").catch(() => false), "commands work again");
});
