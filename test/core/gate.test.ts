import assert from "node:assert/strict";
import { test } from "node:test";
import { SlipwayError } from "../../src/core/errors.ts";
import { Gate } from "../../src/core/gate.ts";

const refusal = { message: "too many", retryAfterSeconds: 2 };

test("places are given out in order of arrival, never more than there are, and pass on from hand to hand", async () => {
  const gate = new Gate({ places: 2, maxWaiting: 10, refusal });
  const order: number[] = [];
  let running = 0;
  const work = Array.from({ length: 8 }, (_, index) =>
    gate.run(async () => {
      running += 1;
      assert.ok(running <= 2);
      order.push(index);
      await new Promise((resolve) => setTimeout(resolve, 2));
      running -= 1;
      if (index === 3) throw new Error("its own trouble");
    }),
  );
  await Promise.allSettled(work);
  assert.deepEqual(order, [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual([gate.waiting, gate.refused], [0, 0]);
});

test("whoever finds the queue full is refused at once, whoever waits too long a little later", async () => {
  const gate = new Gate({ places: 1, maxWaiting: 1, waitMs: 20, refusal });
  const leave = await gate.enter();
  const late = gate.enter();
  const overloaded = { code: "OVERLOADED", message: "too many", retryAfterSeconds: 2 };
  await assert.rejects(gate.enter(), overloaded);
  await assert.rejects(late, overloaded);
  assert.equal(gate.refused, 2);
  leave();
  leave();
  const first = await gate.enter();
  const second = gate.enter();
  assert.equal(gate.waiting, 1, "a place that is given back twice is one place");
  first();
  (await second)();
});

test("who is aborted leaves the queue, takes no place, and hears why", async () => {
  const gate = new Gate({ places: 1, refusal });
  const leave = await gate.enter();
  const gone = new AbortController();
  const waiting = gate.enter(gone.signal);
  const next = gate.enter();
  gone.abort(new SlipwayError("DATABASE_UNAVAILABLE"));
  await assert.rejects(waiting, { code: "DATABASE_UNAVAILABLE" });
  await assert.rejects(gate.enter(AbortSignal.abort()), { code: "CANCELLED" });
  leave();
  (await next)();
  assert.equal(gate.waiting, 0);
});
