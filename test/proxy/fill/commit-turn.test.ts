/** Whole blobs wait while others come, for a while. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CommitTurn } from "../../../src/proxy/fill/commit-turn.ts";

/** What has resolved so far, once everything that is due has run. */
async function resolved(waits: Record<string, Promise<void>>): Promise<string[]> {
  const seen: string[] = [];
  for (const [name, wait] of Object.entries(waits)) void wait.then(() => seen.push(name));
  await new Promise((resolve) => setImmediate(resolve));
  return seen.toSorted();
}

test("a blob that comes alone does not wait", async () => {
  const turn = new CommitTurn();
  const received = turn.receive();
  received();
  assert.deepEqual(await resolved({ alone: turn.come() }), ["alone"]);
});

test("blobs wait for the last of those that are received, which may end more than once", async () => {
  const turn = new CommitTurn();
  const [first, second, third] = [turn.receive(), turn.receive(), turn.receive()];
  first();
  first();
  const waits = { first: turn.come() };
  second();
  assert.deepEqual(await resolved(waits), []);
  third();
  assert.deepEqual(await resolved({ ...waits, later: turn.come() }), ["first", "later"]);
});

test("the wait ends by itself where something always comes, and when the process stops", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const turn = new CommitTurn();
  turn.receive();
  const waits = { early: turn.come() };
  t.mock.timers.tick(299);
  assert.deepEqual(await resolved(waits), []);
  const late = turn.come();
  t.mock.timers.tick(1);
  assert.deepEqual(await resolved({ ...waits, late }), ["early"]);
  turn.close();
  assert.deepEqual(await resolved({ late, after: turn.come() }), ["after", "late"]);
});
