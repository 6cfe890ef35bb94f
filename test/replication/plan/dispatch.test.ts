/** Which batch of a run goes next, and how many at once. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { Dispatch, FORMER_WINDOW_RULES, WINDOW_RULES } from "../../../src/replication/plan/dispatch.ts";
import type { Batch } from "../../../src/replication/plan/dispatch.ts";

const DONE = { again: [], succeeded: 1, failed: 0 };

function planned(count: number, target = 1, from = 1): { tasks: number[]; targets: number[] }[] {
  return Array.from({ length: count }, (_, index) => ({ tasks: [from + index], targets: [target] }));
}

function takeAll(dispatch: Dispatch, now: number): Batch[] {
  const taken: Batch[] = [];
  for (let batch = dispatch.take(now); batch; batch = dispatch.take(now)) taken.push(batch);
  return taken;
}

test("a window of batches is under way, in the order in which they were planned", () => {
  const dispatch = new Dispatch(undefined, FORMER_WINDOW_RULES);
  dispatch.plan(planned(40));
  const taken = takeAll(dispatch, 0);
  assert.deepEqual(
    taken.map(({ tasks }) => tasks[0]),
    Array.from({ length: 16 }, (_, index) => index + 1),
  );
  assert.deepEqual([dispatch.inFlight, dispatch.waiting, dispatch.isEmpty], [16, 24, false]);
});

test("of several targets none takes more than half of the window", () => {
  const dispatch = new Dispatch(undefined, FORMER_WINDOW_RULES);
  dispatch.plan([...planned(20, 1), ...planned(20, 2, 101)]);
  const targets = takeAll(dispatch, 0).map((batch) => batch.targets[0]);
  assert.deepEqual([targets.filter((target) => target === 1).length, targets.filter((target) => target === 2).length], [8, 8]);
});

test("what was tried comes back with a later round when its time has come, what was not tried with the same", () => {
  const dispatch = new Dispatch(undefined, FORMER_WINDOW_RULES);
  dispatch.plan(planned(2));
  const [first, second] = takeAll(dispatch, 0) as [Batch, Batch];
  dispatch.finish(first, { ...DONE, again: [{ tasks: [1], delayMs: 60_000, tried: true }] }, 0);
  dispatch.finish(second, { ...DONE, again: [{ tasks: [2], delayMs: 1_000, tried: false }] }, 0);
  assert.deepEqual(takeAll(dispatch, 0), []);
  assert.equal(dispatch.nextDueAt(), 1_000);
  assert.deepEqual(takeAll(dispatch, 1_000), [{ tasks: [2], targets: [1], round: 1 }]);
  assert.equal(dispatch.nextDueAt(), 60_000);
  assert.deepEqual(takeAll(dispatch, 60_000), [{ tasks: [1], targets: [1], round: 2 }]);
});

test("the window shrinks to what workers take, and grows again after a rest", () => {
  const dispatch = new Dispatch(undefined, FORMER_WINDOW_RULES);
  dispatch.plan(planned(200));
  const taken = takeAll(dispatch, 0);
  for (const batch of taken.slice(8)) dispatch.finish(batch, { ...DONE, again: [{ tasks: batch.tasks, delayMs: 500, tried: false }] }, 0);
  assert.equal(dispatch.state().window, 8);
  for (const batch of taken.slice(0, 8)) dispatch.finish(batch, DONE, 1_000);
  const rested = takeAll(dispatch, 1_000);
  assert.equal(rested.length, 8, "it rests");
  for (const batch of rested) dispatch.finish(batch, DONE, 2_000);
  for (let now = 40_000; now < 41_000; now += 1) for (const batch of takeAll(dispatch, now)) dispatch.finish(batch, DONE, now);
  assert.ok(dispatch.state().window > 8);
});

test("by the rules of now the window begins small, grows with every batch that ends well, and rests shortly when workers have no room", () => {
  const dispatch = new Dispatch(undefined, WINDOW_RULES);
  dispatch.plan(planned(200));
  const taken = takeAll(dispatch, 0);
  assert.equal(taken.length, 8);
  const [full, ...others] = taken;
  dispatch.finish(full!, { ...DONE, again: [{ tasks: full!.tasks, delayMs: 500, tried: false }] }, 0);
  assert.equal(dispatch.state().window, 7);
  dispatch.finish(others[0]!, DONE, 1_000);
  assert.equal(dispatch.state().window, 7);
  dispatch.finish(others[1]!, DONE, 2_000);
  assert.equal(dispatch.state().window, 8);
  for (let now = 3_000; now < 3_100; now += 1) for (const batch of takeAll(dispatch, now)) dispatch.finish(batch, DONE, now);
  assert.equal(dispatch.state().window, 32);
});

test("what was cancelled goes first again, as the same attempt, and the state can be carried on", () => {
  const dispatch = new Dispatch(undefined, FORMER_WINDOW_RULES);
  dispatch.plan(planned(3));
  const [first] = takeAll(dispatch, 0) as [Batch];
  for (const batch of [3, 2].map((task) => ({ tasks: [task], targets: [1], round: 1 }))) dispatch.giveBack(batch);
  dispatch.giveBack(first);
  const next = new Dispatch(dispatch.state(), FORMER_WINDOW_RULES);
  assert.deepEqual(
    takeAll(next, 0).map(({ tasks, round }) => [tasks[0], round]),
    [
      [1, 1],
      [2, 1],
      [3, 1],
    ],
  );
});

test("planning waits while too many tasks are held", () => {
  const dispatch = new Dispatch(undefined, FORMER_WINDOW_RULES);
  dispatch.plan([{ tasks: Array.from({ length: 9_999 }, (_, index) => index), targets: [1] }]);
  assert.equal(dispatch.isFull, false);
  dispatch.plan(planned(1));
  assert.equal(dispatch.isFull, true);
});
