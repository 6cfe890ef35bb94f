import assert from "node:assert/strict";
import { test } from "node:test";
import { Wakeups } from "../../../src/proxy/fill/wakeups.ts";

function waiting(wakeups: Wakeups): () => number {
  let woken = 0;
  const wait = (): void =>
    wakeups.next(() => {
      woken += 1;
      wait();
    });
  wait();
  return () => woken;
}

test("the first bytes wake at once, also right after something else was told; small steps behind them are told together", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const wakeups = new Wakeups();
  const woken = waiting(wakeups);
  wakeups.now();
  wakeups.soon(100);
  assert.equal(woken(), 2);
  wakeups.soon(100);
  wakeups.soon(100);
  assert.equal(woken(), 2);
  t.mock.timers.tick(4);
  assert.equal(woken(), 3);
  // Much is told at once.
  wakeups.soon(256 * 1024);
  assert.equal(woken(), 4);
  t.mock.timers.tick(10);
  assert.equal(woken(), 4);
});
