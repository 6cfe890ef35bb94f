/** What every driver of the key-value contract must do; each driver's test runs all of it against the real service. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isSlipwayError } from "../../src/core/errors.ts";
import { MAX_MESSAGE_BYTES } from "../../src/kv/kv.ts";
import type { SubscribeHandlers } from "../../src/kv/kv.ts";
import { queueTests } from "./kv-queue-conformance.ts";
import { eventually, name, pause, recorder } from "./kv-subject.ts";
import type { KvSubject } from "./kv-subject.ts";

export { eventually, pause, recorder } from "./kv-subject.ts";
export type { KvSubject } from "./kv-subject.ts";

export function kvConformance(driver: string, subject: () => KvSubject): void {
  valueTests(driver, subject);
  leaseTests(driver, subject);
  queueTests(driver, subject);
  channelTests(driver, subject);
}

function valueTests(driver: string, subject: () => KvSubject): void {
  test(`${driver}: a value set by one process is read by another until it is removed`, async () => {
    const { a, b } = subject();
    const key = name("value");
    assert.equal(await b.get(key), null);
    assert.equal(await a.set(key, "öne"), true);
    assert.equal(await b.get(key), "öne");
    assert.deepEqual(await b.getMany([key, `${key}-absent`, key]), ["öne", null, "öne"]);
    await b.remove(key, `${key}-absent`);
    assert.equal(await a.get(key), null);
    assert.deepEqual(await a.getMany([]), []);
  });

  test(`${driver}: a value with a TTL ends, and a set without one keeps it for good`, async () => {
    const { a } = subject();
    const [short, kept] = [name("ttl"), name("ttl")];
    await a.set(short, "x", { ttlMs: 150 });
    await a.set(kept, "x", { ttlMs: 150 });
    await a.set(kept, "y");
    assert.equal(await a.get(short), "x");
    await pause(300);
    assert.equal(await a.get(short), null);
    assert.equal(await a.get(kept), "y");
    await a.remove(kept);
  });

  test(`${driver}: set-if-absent has one winner, and again one after the TTL`, async () => {
    const { a, b } = subject();
    const key = name("absent");
    const race = Array.from({ length: 20 }, (_, index) => (index % 2 ? a : b).set(key, String(index), { ifAbsent: true, ttlMs: 300 }));
    const won = (await Promise.all(race)).flatMap((set, index) => (set ? [String(index)] : []));
    assert.equal(won.length, 1);
    assert.equal(await a.get(key), won[0]);
    await pause(450);
    assert.equal(await b.set(key, "later", { ifAbsent: true, ttlMs: 1_000 }), true);
    assert.equal(await a.get(key), "later");
  });

  test(`${driver}: concurrent increments are all counted, and the TTL runs from the first`, async () => {
    const { a, b } = subject();
    const key = name("count");
    const values = await Promise.all(Array.from({ length: 40 }, (_, index) => (index % 2 ? a : b).increment(key, 3)));
    assert.deepEqual(
      values.toSorted((x, y) => x - y),
      Array.from({ length: 40 }, (_, index) => 3 * (index + 1)),
    );
    await a.remove(key);
    assert.equal(await a.increment(key, 5, 400), 5);
    await pause(250);
    assert.equal(await a.increment(key, -2, 400), 3);
    await pause(300);
    assert.equal(await a.increment(key, 1, 400), 1);
  });

  test(`${driver}: keys are listed by prefix, without those that ended and with wildcards taken literally`, async () => {
    const { a } = subject();
    const prefix = `${name("list")}*[x]`;
    await a.set(`${prefix}1`, "1");
    await a.set(`${prefix}2`, "2", { ttlMs: 50 });
    await a.set(`${prefix}é`, "3");
    await a.set(`${prefix.replace("*[x]", "zx")}`, "other");
    await pause(100);
    const found = await a.listPrefix(prefix, 100);
    assert.deepEqual(
      found.toSorted((x, y) => (x.key < y.key ? -1 : 1)),
      [
        { key: `${prefix}1`, value: "1" },
        { key: `${prefix}é`, value: "3" },
      ],
    );
    assert.equal((await a.listPrefix(prefix, 1)).length, 1);
    await a.remove(`${prefix}1`, `${prefix}é`, prefix.replace("*[x]", "zx"));
  });

  test(`${driver}: a group lists what lives; of concurrent writers the last one sees all`, async () => {
    const { a, b } = subject();
    const group = name("group");
    const lists = await Promise.all(
      Array.from({ length: 10 }, (_, index) => (index % 2 ? a : b).group(group).put(`m${index}`, `v${index}`, 60_000)),
    );
    assert.ok(
      lists.some((list) => list.length === 10),
      "no writer saw all",
    );
    for (const [x, list] of lists.entries()) {
      for (const [y, other] of lists.entries()) {
        const seen = list.some((entry) => entry.member === `m${y}`) || other.some((entry) => entry.member === `m${x}`);
        assert.ok(seen, `m${x} and m${y} missed each other`);
      }
    }
    await a.group(group).put("short", "s", 100);
    assert.ok((await b.group(group).list()).some((entry) => entry.member === "short" && entry.value === "s"));
    await pause(250);
    await a.group(group).remove("m0");
    assert.deepEqual(
      (await b.group(group).list()).map((entry) => entry.member).toSorted(),
      Array.from({ length: 9 }, (_, index) => `m${index + 1}`),
    );
    for (let index = 1; index < 10; index += 1) await a.group(group).remove(`m${index}`);
  });

  test(`${driver}: check answers, and stops at an aborted signal`, async () => {
    const { a } = subject();
    await a.check();
    await assert.rejects(a.check(AbortSignal.abort()), { name: "AbortError" });
  });
}

function leaseTests(driver: string, subject: () => KvSubject): void {
  test(`${driver}: a lease has one owner, and its fence grows with every owner`, async () => {
    const { a, b } = subject();
    const key = name("lease");
    const race = await Promise.all(Array.from({ length: 10 }, (_, index) => (index % 2 ? a : b).acquireLease(key, `p${index}`, 5_000)));
    const winners = race.filter((lease) => lease !== null);
    assert.equal(winners.length, 1);
    const [first] = winners;
    assert.ok(first);
    assert.equal(await b.acquireLease(key, "other", 5_000), null);
    await first.release();
    const second = await b.acquireLease(key, "other", 5_000);
    assert.ok(second && second.fence > first.fence, "the fence did not grow");
    assert.equal(await first.renew(5_000), false, "a former owner renewed");
    await first.release();
    assert.equal(await a.acquireLease(key, "third", 5_000), null, "a former owner released the lease of another");
    await second.release();
  });

  test(`${driver}: a lease that is not renewed passes on, one that is renewed does not`, async () => {
    const { a, b } = subject();
    const key = name("lease");
    const lease = await a.acquireLease(key, "same-name", 300);
    assert.ok(lease);
    for (let turn = 0; turn < 4; turn += 1) {
      await pause(120);
      assert.equal(await lease.renew(600), true);
      assert.equal(await b.acquireLease(key, "same-name", 300), null);
    }
    await pause(800);
    assert.equal(await lease.renew(600), false);
    const next = await b.acquireLease(key, "same-name", 300);
    assert.ok(next && next.fence > lease.fence);
    await next.release();
  });
}

function channelTests(driver: string, subject: () => KvSubject): void {
  test(`${driver}: a message reaches every subscriber of its channel and no other, in order`, async () => {
    const { a, b } = subject();
    const channel = name("channel");
    const [inA, inB, second, other] = [recorder(), recorder(), recorder(), recorder()];
    const subscriptions = await Promise.all([
      a.subscribe(channel, inA),
      b.subscribe(channel, inB),
      b.subscribe(channel, second),
      b.subscribe(`${channel}-other`, other),
    ]);
    await eventually(() => [inA, inB, second, other].every((each) => each.events.includes("ready")), "all are ready");
    const sent = Array.from({ length: 50 }, (_, index) => `n${index} "ü'`);
    for (const message of sent) await a.publish(channel, message);
    await a.publish(channel, "");
    const expected = ["ready", ...[...sent, ""].map((message) => `message ${message}`)];
    await eventually(() => [inA, inB, second].every((each) => each.events.length >= expected.length), "all messages arrive");
    for (const each of [inA, inB, second]) assert.deepEqual(each.events, expected);
    assert.deepEqual(other.events, ["ready"]);
    await subscriptions[1]?.close();
    await a.publish(channel, "after");
    await eventually(() => second.events.includes("message after"), "the other subscriber of the process still listens");
    assert.ok(!inB.events.includes("message after"), "a closed subscription got a message");
    for (const subscription of subscriptions) await subscription.close();
  });

  test(`${driver}: a lost connection is told, and listening resumes by itself`, async () => {
    const { a, b, cutSubscriber } = subject();
    const channel = name("channel");
    const heard = recorder();
    const subscription = await b.subscribe(channel, heard);
    await eventually(() => heard.events.includes("ready"), "ready");
    await cutSubscriber();
    await eventually(() => heard.events.length >= 3, "lost, then ready");
    assert.deepEqual(heard.events, ["ready", "lost", "ready"]);
    await a.publish(channel, "back");
    await eventually(() => heard.events.at(-1) === "message back", "messages arrive again");
    await subscription.close();
  });

  test(`${driver}: a message at the limit is carried and a longer one refused`, async () => {
    const { a, b } = subject();
    const channel = name("channel");
    const heard = recorder();
    const subscription = await b.subscribe(channel, heard);
    await eventually(() => heard.events.includes("ready"), "ready");
    const longest = "x".repeat(MAX_MESSAGE_BYTES);
    await assert.rejects(a.publish(channel, `${longest}x`), (error) => isSlipwayError(error, "PAYLOAD_TOO_LARGE"));
    await a.publish(channel, longest);
    await eventually(() => heard.events.at(-1) === `message ${longest}`, "the longest message arrives");
    await subscription.close();
  });

  test(`${driver}: a listener that throws disturbs nobody`, async () => {
    const { a, b } = subject();
    const channel = name("channel");
    const heard = recorder();
    const bad: SubscribeHandlers = {
      onMessage: () => {
        throw new Error("bad listener");
      },
      onLost: () => undefined,
      onReady: () => undefined,
    };
    const subscriptions = [await b.subscribe(channel, bad), await b.subscribe(channel, heard)];
    await eventually(() => heard.events.includes("ready"), "ready");
    await a.publish(channel, "1");
    await a.publish(channel, "2");
    await eventually(() => heard.events.at(-1) === "message 2", "the good listener hears all");
    for (const subscription of subscriptions) await subscription.close();
  });
}
