/** Who goes first, how many at a time, and how long anybody waits. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { HostQueue } from "../../src/upstream/host-queue.ts";
import type { Slot } from "../../src/upstream/host-queue.ts";
import type { Priority } from "../../src/upstream/types.ts";
import { withCode } from "./support.ts";

function startQueue(options: { initial?: number; ceiling?: number; queueBound?: number; processes?: () => number } = {}): {
  queue: HostQueue;
  time: { now: number };
} {
  const time = { now: 1000 };
  const queue = new HostQueue({ clock: { now: () => time.now }, initial: 1, ceiling: 16, ...options });
  return { queue, time };
}

test("serves interactive calls first, then revalidation, replication and prefetch", async () => {
  const { queue } = startQueue();
  const first = await queue.acquire({ priority: "interactive", waitMs: 1000 });
  const order: Priority[] = [];
  const waiting = (["prefetch", "replication", "revalidation", "interactive", "prefetch"] as const).map(async (priority) => {
    const slot = await queue.acquire({ priority, waitMs: 5000 });
    order.push(priority);
    slot.release("neutral");
  });
  first.release("neutral");
  await Promise.all(waiting);
  assert.deepEqual(order, ["interactive", "revalidation", "replication", "prefetch", "prefetch"]);
});

test("keeps a part of the slots free for interactive calls", async () => {
  const { queue } = startQueue({ initial: 8 });
  const background = await Promise.all(Array.from({ length: 6 }, () => queue.acquire({ priority: "prefetch", waitMs: 0 })));
  await assert.rejects(queue.acquire({ priority: "prefetch", waitMs: 0 }), withCode("UPSTREAM_LIMITED"));
  const interactive = await Promise.all([0, 1].map(() => queue.acquire({ priority: "interactive", waitMs: 0 })));
  for (const slot of [...background, ...interactive]) slot.release("neutral");
  assert.equal(queue.running, 0);
});

test("gives up after the wait budget with a Retry-After, and leaves no waiter behind", async () => {
  const { queue } = startQueue();
  const slot = await queue.acquire({ priority: "interactive", waitMs: 0 });
  await assert.rejects(queue.acquire({ priority: "interactive", waitMs: 30 }), (error: unknown) => {
    withCode("UPSTREAM_LIMITED")(error);
    assert.ok(((error as { retryAfterSeconds?: number }).retryAfterSeconds ?? 0) >= 1);
    return true;
  });
  assert.equal(queue.waiting, 0);
  slot.release("neutral");
});

test("a caller that goes away leaves the queue at once", async () => {
  const { queue } = startQueue();
  const slot = await queue.acquire({ priority: "interactive", waitMs: 0 });
  const controller = new AbortController();
  const waiting = queue.acquire({ priority: "interactive", waitMs: 60_000, signal: controller.signal });
  controller.abort();
  await assert.rejects(waiting, withCode("CANCELLED"));
  assert.equal(queue.waiting, 0);
  slot.release("neutral");
});

test("when the queue is full an urgent call takes the place of the least urgent", async () => {
  const { queue } = startQueue({ queueBound: 1 });
  const slot = await queue.acquire({ priority: "interactive", waitMs: 0 });
  const prefetch = queue.acquire({ priority: "prefetch", waitMs: 5000 });
  const refused = assert.rejects(prefetch, withCode("UPSTREAM_LIMITED"));
  const urgent = queue.acquire({ priority: "interactive", waitMs: 5000 });
  await refused;
  await assert.rejects(queue.acquire({ priority: "prefetch", waitMs: 5000 }), withCode("UPSTREAM_LIMITED"));
  slot.release("neutral");
  (await urgent).release("neutral");
});

test("halves once for a burst of overloads, and again for news that is newer", async () => {
  const { queue, time } = startQueue({ initial: 8 });
  const burst = await Promise.all(Array.from({ length: 8 }, () => queue.acquire({ priority: "interactive", waitMs: 0 })));
  time.now += 10;
  for (const slot of burst) slot.release("overload");
  assert.equal(queue.limit, 4);
  time.now += 10;
  const later = await queue.acquire({ priority: "interactive", waitMs: 0 });
  time.now += 10;
  later.release("overload");
  assert.equal(queue.limit, 2);
});

test("a limit that is reached grows with successes, also when only background calls reach their share of it", async () => {
  const { queue } = startQueue({ initial: 2, ceiling: 4 });
  for (let round = 0; round < 20; round += 1) {
    const others = await Promise.all(Array.from({ length: queue.limit - 2 }, () => queue.acquire({ priority: "replication", waitMs: 0 })));
    const slot = await queue.acquire({ priority: round % 2 === 0 ? "replication" : "interactive", waitMs: 0 });
    slot.release("ok");
    for (const other of others) other.release("neutral");
  }
  assert.equal(queue.limit, 4);
});

test("the ceiling is shared by the live processes", () => {
  const { queue } = startQueue({ initial: 16, ceiling: 16, processes: () => 4 });
  assert.equal(queue.limit, 4);
});

test("long bodies that have begun well let the limit grow before they end", async () => {
  const { queue } = startQueue({ initial: 2, ceiling: 4 });
  const slots: Slot[] = [];
  for (let call = 0; call < 8; call += 1) {
    const waiting = queue.acquire({ priority: "interactive", waitMs: 20 }).catch(() => null);
    for (const slot of slots) slot.wentWell();
    const slot = await waiting;
    if (slot) slots.push(slot);
  }
  assert.equal(queue.running, 4);
  for (const slot of slots) slot.release("neutral");
});
