/** What the claim queue of every driver must do. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Claim, ClaimQueue, Kv, Mark } from "../../src/kv/kv.ts";
import { isWokenBy } from "../../src/kv/queue-wake.ts";
import { eventually, name, pause, recorder } from "./kv-subject.ts";
import type { KvSubject } from "./kv-subject.ts";

/** Marks of one slot. */
function marks(slot: number, members: readonly string[], urgent = false): Mark[] {
  return members.map((member) => ({ slot, member, urgent }));
}

function membersOf(claims: readonly Claim[]): string[] {
  return claims.map((claim) => claim.member);
}

async function depth(queue: ClaimQueue, slot: number): Promise<number> {
  return (await queue.states([slot]))[0]?.depth ?? -1;
}

async function age(queue: ClaimQueue, slot: number): Promise<number> {
  return (await queue.states([slot]))[0]?.oldestAgeMs ?? -1;
}

export function queueTests(driver: string, subject: () => KvSubject): void {
  test(`${driver}: marks coalesce, slots and queues are apart, oldest marks are claimed first`, async () => {
    const { a, b } = subject();
    const queue = name("queue");
    const [qa, qb] = [a.queue(queue), b.queue(queue)];
    assert.equal(await qa.mark(marks(1, ["x", "y", "x"])), 2);
    assert.equal(await qa.mark(marks(1, ["x"])), 0);
    await pause(20);
    await Promise.all([qb.mark(marks(1, ["y", "z"])), qa.mark(marks(1, ["z", "y", "x"]))]);
    await qa.mark(marks(2, ["x"]));
    await a.queue(`${queue}-other`).mark(marks(1, ["x"]));
    assert.equal(await depth(qb, 1), 3);
    assert.ok((await age(qb, 1)) >= 15);
    const first = await qb.claim([1], 2, 5_000);
    assert.deepEqual(membersOf(first).toSorted(), ["x", "y"]);
    const rest = await qa.claim([1], 10, 5_000);
    assert.deepEqual(membersOf(rest), ["z"]);
    assert.equal(await depth(qa, 1), 3);
    assert.equal(await age(qa, 1), 0);
    await qb.complete(first);
    await qa.complete(rest);
    assert.equal(await depth(qa, 1), 0);
    assert.deepEqual(await qa.claim([1], 10, 5_000), []);
    assert.equal(await depth(qa, 2), 1);
    await qa.complete(await qa.claim([2], 1, 5_000));
    assert.equal(await qa.mark([]), 0);
    await qa.complete([]);
    assert.deepEqual(await qa.claim([], 10, 5_000), []);
    await a.queue(`${queue}-other`).complete(await a.queue(`${queue}-other`).claim([1], 1, 5_000));
  });

  test(`${driver}: one claim takes from many slots: an even share of each first, then what is left of the full ones`, async () => {
    const { a, b } = subject();
    const queue = a.queue(name("queue"));
    const flood = Array.from({ length: 500 }, (_, index) => `f${index}`);
    await queue.mark([...marks(0, flood), ...marks(7, ["r1", "r2", "r3"]), ...marks(9, ["s1"])]);
    assert.deepEqual(
      (await queue.states([7, 0, 8])).map((state) => [state.slot, state.depth]),
      [
        [7, 3],
        [0, 500],
        [8, 0],
      ],
    );
    const claims = await queue.claim([0, 7, 8], 100, 60_000);
    assert.equal(claims.length, 100, "the batch is full");
    assert.deepEqual(membersOf(claims.filter(({ slot }) => slot === 7)), ["r1", "r2", "r3"], "the flood does not delay the others");
    assert.equal(new Set(claims.map((claim) => `${claim.slot} ${claim.member}`)).size, 100);
    await queue.complete(claims);
    assert.deepEqual(
      (await b.queue("none").states([0])).map((state) => state.depth),
      [0],
    );
    assert.equal(await depth(queue, 0), 403);
    assert.deepEqual(membersOf(await queue.claim([9], 10, 60_000)), ["s1"]);
    for (let left = 403; left > 0;) {
      const more = await queue.claim([0, 7, 9], 250, 60_000);
      assert.ok(more.length > 0);
      await queue.complete(more);
      left -= more.length;
    }
  });

  test(`${driver}: urgent members come first, also when they waited or are claimed already, and ages stay true`, async () => {
    const { a } = subject();
    const queue = a.queue(name("queue"));
    await queue.mark(marks(0, ["old"]));
    await pause(20);
    await queue.mark(marks(0, ["moved", "plain"]));
    await queue.mark([...marks(0, ["urgent"], true), ...marks(0, ["moved"], true)]);
    assert.ok((await age(queue, 0)) >= 15 && (await age(queue, 0)) < 60_000);
    const first = await queue.claim([0], 2, 60_000);
    assert.deepEqual(membersOf(first).toSorted(), ["moved", "urgent"]);
    await queue.mark(marks(0, ["moved"]));
    await queue.mark(marks(0, ["moved"], true));
    await queue.complete(first);
    const second = await queue.claim([0], 1, 60_000);
    assert.deepEqual(membersOf(second), ["moved"]);
    const rest = await queue.claim([0], 10, 60_000);
    assert.deepEqual(membersOf(rest).toSorted(), ["old", "plain"]);
    await queue.complete([...second, ...rest]);
    assert.equal(await depth(queue, 0), 0);
  });

  test(`${driver}: a batch of marks wakes those who watch, once, and names its slots unless they are many`, async () => {
    const { a, b } = subject();
    const queue = name("queue");
    const heard = recorder();
    const watching = await b.queue(queue).watch(heard);
    await eventually(() => heard.events.includes("ready"), "it watches");
    await a.queue(queue).mark([...marks(3, ["x", "y"]), ...marks(5, ["z"])]);
    await a.queue(queue).mark(Array.from({ length: 100 }, (_, slot) => ({ slot, member: "m" })));
    await eventually(() => heard.events.length >= 3, "both messages arrive");
    assert.deepEqual(heard.events, ["ready", "message 3,5", "message "]);
    assert.ok(isWokenBy("3,5", new Set([5])) && !isWokenBy("3,5", new Set([4])) && isWokenBy("", new Set([4])));
    await watching.close();
  });

  test(`${driver}: a mark during a claim keeps the member, claimable at once after complete`, async () => {
    const { a, b } = subject();
    const queue = a.queue(name("queue"));
    await queue.mark(marks(0, ["again", "done"]));
    const claims = await queue.claim([0], 10, 60_000);
    await Promise.all([queue.mark(marks(0, ["again"])), queue.mark(marks(0, ["again"]))]);
    assert.deepEqual(await queue.claim([0], 10, 60_000), [], "a claimed member was given out twice");
    await queue.complete(claims);
    assert.equal(await depth(queue, 0), 1);
    const next = await queue.claim([0], 10, 60_000);
    assert.deepEqual(membersOf(next), ["again"]);
    await queue.complete(next);
    assert.equal(await depth(queue, 0), 0);
    await b.check();
  });

  test(`${driver}: what a crashed claimer held goes to another, and the first cannot complete it any more`, async () => {
    const { a, b } = subject();
    const queue = name("queue");
    await a.queue(queue).mark(marks(3, ["m1", "m2"]));
    const lost = await a.queue(queue).claim([3], 10, 250);
    assert.equal(lost.length, 2);
    assert.deepEqual(await b.queue(queue).claim([3], 10, 5_000), []);
    await pause(400);
    assert.ok((await age(b.queue(queue), 3)) >= 350, "an expired claim counts from its mark");
    const taken = await b.queue(queue).claim([3], 10, 5_000);
    assert.deepEqual(membersOf(taken).toSorted(), ["m1", "m2"]);
    await a.queue(queue).complete(lost);
    assert.equal(await depth(a.queue(queue), 3), 2, "a former claimer completed");
    await b.queue(queue).complete(taken);
    assert.equal(await depth(a.queue(queue), 3), 0);
  });

  test(`${driver}: an extended claim outlives its first lease, one extended by nothing ends; a former claimer cannot extend`, async () => {
    const { a, b } = subject();
    const queue = name("queue");
    await a.queue(queue).mark(marks(0, ["m"]));
    const claims = await a.queue(queue).claim([0], 1, 250);
    await a.queue(queue).extend(claims, 1_200);
    await pause(400);
    assert.deepEqual(await b.queue(queue).claim([0], 1, 250), []);
    await pause(1_000);
    const [next] = await b.queue(queue).claim([0], 1, 250);
    assert.equal(next?.member, "m");
    await a.queue(queue).extend(claims, 60_000);
    await pause(400);
    const again = await a.queue(queue).claim([0], 1, 60_000);
    assert.equal(again.length, 1, "a former claimer held the member");
    await a.queue(queue).extend(again, 0);
    assert.equal((await b.queue(queue).claim([0], 1, 60_000)).length, 1);
  });

  test(`${driver}: what was marked again as urgent is urgent too when its claimer is gone`, async () => {
    const queue = subject().a.queue(name("queue"));
    await queue.mark(marks(0, ["older"]));
    await pause(5);
    await queue.mark(marks(0, ["gone"]));
    const [older, gone] = await queue.claim([0], 2, 60_000);
    assert.ok(older && gone);
    await queue.mark(marks(0, ["gone"], true));
    await queue.extend([older, gone], 0);
    assert.deepEqual(membersOf(await queue.claim([0], 1, 60_000)), ["gone"]);
  });

  test(`${driver}: of one claim a part is completed, a part held longer, a part given back, and the rest ends with its lease`, async () => {
    const { a, b } = subject();
    const queue = a.queue(name("queue"));
    await queue.mark([...marks(0, ["done", "held", "back"]), ...marks(1, ["rest", "held"])]);
    await pause(20);
    const claims = await queue.claim([0, 1], 10, 300);
    const pick = (slot: number, member: string): Claim[] => claims.filter((claim) => claim.slot === slot && claim.member === member);
    await queue.complete(pick(0, "done"));
    await queue.extend([...pick(0, "held"), ...pick(1, "held")], 60_000);
    await queue.extend(pick(0, "back"), 0);
    const back = await queue.claim([0, 1], 10, 60_000);
    assert.deepEqual(membersOf(back), ["back"]);
    assert.ok((back[0]?.ageMs ?? 0) >= 15, "what comes back waits since its first mark");
    await pause(400);
    const rest = await queue.claim([0, 1], 10, 60_000);
    assert.deepEqual(membersOf(rest), ["rest"]);
    assert.deepEqual([await depth(queue, 0), await depth(queue, 1)], [2, 2]);
    await queue.mark(marks(1, ["held"]));
    await queue.complete(claims);
    assert.deepEqual(
      [await depth(queue, 0), await depth(queue, 1)],
      [1, 2],
      "only what was held longer was still in the hands of the first claim",
    );
    assert.deepEqual(membersOf(await queue.claim([0, 1], 10, 60_000)), ["held"], "marked again meanwhile");
    await queue.complete([...back, ...rest]);
    assert.deepEqual([await depth(queue, 0), await depth(queue, 1)], [0, 1]);
    await b.check();
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
        await kv.queue(queue).mark(marks(0, members));
      }
    }
    async function work(kv: Kv): Promise<void> {
      for (;;) {
        const last = !producing;
        const claims = await kv.queue(queue).claim([0], 37, 60_000);
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
        await kv.queue(queue).complete(claims);
      }
    }
    const workers = [work(a), work(b), work(a), work(b)];
    await Promise.all([produce(a), produce(b)]).finally(() => {
      producing = false;
    });
    await Promise.all(workers);
    assert.equal(await depth(a.queue(queue), 0), 0);
    assert.deepEqual(new Map([...worked].toSorted()), new Map([...wanted].toSorted()));
  });
}
