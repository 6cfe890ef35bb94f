/** What every driver of the key-value contract must do; each driver's test runs all of it against the real service. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { isSlipwayError } from "../../src/core/errors.ts";
import { MAX_MESSAGE_BYTES } from "../../src/kv/kv.ts";
import type { Kv, SubscribeHandlers } from "../../src/kv/kv.ts";

export interface KvSubject {
  /** Two processes that share the service and a prefix. */
  readonly a: Kv;
  readonly b: Kv;
  /** Cuts the listening connections of `b` at the server. */
  cutSubscriber(): Promise<void>;
}

export interface Recorder extends SubscribeHandlers {
  readonly events: string[];
}

export function recorder(): Recorder {
  const events: string[] = [];
  return {
    events,
    onMessage: (message) => void events.push(`message ${message}`),
    onLost: () => void events.push("lost"),
    onReady: () => void events.push("ready"),
  };
}

export async function eventually(condition: () => boolean | Promise<boolean>, what: string, withinMs = 10_000): Promise<void> {
  const until = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > until) assert.fail(`did not happen in time: ${what}`);
    await pause(10);
  }
}

export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Keys of a test's own. */
function name(what: string): string {
  return `${what}-${randomUUID().slice(0, 8)}`;
}

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

function queueTests(driver: string, subject: () => KvSubject): void {
  test(`${driver}: marks coalesce, slots and queues are apart, oldest marks are claimed first`, async () => {
    const { a, b } = subject();
    const queue = name("queue");
    const [qa, qb] = [a.queue(queue), b.queue(queue)];
    await qa.mark(1, ["x", "y", "x"]);
    await pause(20);
    await Promise.all([qb.mark(1, ["y", "z"]), qa.mark(1, ["z", "y", "x"])]);
    await qa.mark(2, ["x"]);
    await a.queue(`${queue}-other`).mark(1, ["x"]);
    assert.equal(await qb.depth(1), 3);
    assert.ok((await qb.oldestAgeMs(1)) >= 15);
    const first = await qb.claim(1, 2, 5_000);
    assert.deepEqual(first.map((claim) => claim.member).toSorted(), ["x", "y"]);
    const rest = await qa.claim(1, 10, 5_000);
    assert.deepEqual(
      rest.map((claim) => claim.member),
      ["z"],
    );
    assert.equal(await qa.depth(1), 3);
    assert.equal(await qa.oldestAgeMs(1), 0);
    await qb.complete(1, first);
    await qa.complete(1, rest);
    assert.equal(await qa.depth(1), 0);
    assert.deepEqual(await qa.claim(1, 10, 5_000), []);
    assert.equal(await qa.depth(2), 1);
    await qa.complete(2, await qa.claim(2, 1, 5_000));
    await qa.mark(2, []);
    await qa.complete(2, []);
    await a.queue(`${queue}-other`).complete(1, await a.queue(`${queue}-other`).claim(1, 1, 5_000));
  });

  test(`${driver}: a mark during a claim keeps the member, claimable at once after complete`, async () => {
    const { a, b } = subject();
    const queue = a.queue(name("queue"));
    await queue.mark(0, ["again", "done"]);
    const claims = await queue.claim(0, 10, 60_000);
    await Promise.all([queue.mark(0, ["again"]), queue.mark(0, ["again"])]);
    assert.deepEqual(await queue.claim(0, 10, 60_000), [], "a claimed member was given out twice");
    await queue.complete(0, claims);
    assert.equal(await queue.depth(0), 1);
    const next = await queue.claim(0, 10, 60_000);
    assert.deepEqual(
      next.map((claim) => claim.member),
      ["again"],
    );
    await queue.complete(0, next);
    assert.equal(await queue.depth(0), 0);
    await b.check();
  });

  test(`${driver}: what a crashed claimer held goes to another, and the first cannot complete it any more`, async () => {
    const { a, b } = subject();
    const queue = name("queue");
    await a.queue(queue).mark(3, ["m1", "m2"]);
    const lost = await a.queue(queue).claim(3, 10, 250);
    assert.equal(lost.length, 2);
    assert.deepEqual(await b.queue(queue).claim(3, 10, 5_000), []);
    await pause(400);
    assert.ok((await b.queue(queue).oldestAgeMs(3)) >= 350, "an expired claim counts from its mark");
    const taken = await b.queue(queue).claim(3, 10, 5_000);
    assert.deepEqual(taken.map((claim) => claim.member).toSorted(), ["m1", "m2"]);
    await a.queue(queue).complete(3, lost);
    assert.equal(await a.queue(queue).depth(3), 2, "a former claimer completed");
    await b.queue(queue).complete(3, taken);
    assert.equal(await a.queue(queue).depth(3), 0);
  });

  test(`${driver}: an extended claim outlives its first lease; a former claimer cannot extend`, async () => {
    const { a, b } = subject();
    const queue = name("queue");
    await a.queue(queue).mark(0, ["m"]);
    const claims = await a.queue(queue).claim(0, 1, 250);
    await a.queue(queue).extend(0, claims, 1_200);
    await pause(400);
    assert.deepEqual(await b.queue(queue).claim(0, 1, 250), []);
    await pause(1_000);
    const [next] = await b.queue(queue).claim(0, 1, 250);
    assert.equal(next?.member, "m");
    await a.queue(queue).extend(0, claims, 60_000);
    await pause(400);
    assert.equal((await a.queue(queue).claim(0, 1, 5_000)).length, 1, "a former claimer held the member");
  });

  test(`${driver}: concurrent claimers never share a member, and with marks all the while nothing is lost`, async () => {
    const { a, b } = subject();
    const queue = name("queue");
    const total = 600;
    const held = new Set<string>();
    const worked = new Map<string, number>();
    const wanted = new Map<string, number>();
    let producing = true;
    async function produce(kv: Kv): Promise<void> {
      for (let turn = 0; turn < 12; turn += 1) {
        const members = Array.from({ length: 100 }, () => `m${Math.floor(Math.random() * total)}`);
        // The wish is older than the mark: whoever claims after the mark must see it.
        for (const member of members) wanted.set(member, (wanted.get(member) ?? 0) + 1);
        await kv.queue(queue).mark(0, members);
      }
    }
    async function work(kv: Kv): Promise<void> {
      for (;;) {
        const last = !producing;
        const claims = await kv.queue(queue).claim(0, 37, 60_000);
        if (claims.length === 0 && last) return;
        const seen = new Map<string, number>();
        for (const { member } of claims) {
          assert.ok(!held.has(member), `${member} is held twice`);
          held.add(member);
          seen.set(member, wanted.get(member) ?? 0);
        }
        await pause(Math.random() * 3);
        for (const [member, wish] of seen) {
          worked.set(member, Math.max(wish, worked.get(member) ?? 0));
          held.delete(member);
        }
        await kv.queue(queue).complete(0, claims);
      }
    }
    const workers = [work(a), work(b), work(a), work(b)];
    await Promise.all([produce(a), produce(b)]).finally(() => {
      producing = false;
    });
    await Promise.all(workers);
    assert.equal(await a.queue(queue).depth(0), 0);
    assert.deepEqual(new Map([...worked].toSorted()), new Map([...wanted].toSorted()));
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
