/** Which bodies stop for which heads, and for how long. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadsFirst } from "../../../src/upstream/bulk/heads-first.ts";

test("a body stops until those that were asked before it began have their heads", () => {
  const heads = new HeadsFirst();
  const [first, second, third] = [heads.asked(), heads.asked(), heads.asked()];
  first();
  let goesOn = 0;
  assert.equal(
    heads.hold(() => (goesOn += 1)),
    true,
  );
  const late = heads.asked();
  second();
  second();
  assert.equal(goesOn, 0, "the third has no head yet");
  third();
  assert.equal(goesOn, 1, "who came later is not waited for");
  late();
  assert.equal(goesOn, 1);
  assert.equal(
    heads.hold(() => undefined),
    false,
    "nothing is awaited any more",
  );
});

test("a body stops for a moment only, and not for a head that is overdue", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 1_000;
  t.mock.method(performance, "now", () => now);
  const heads = new HeadsFirst();
  const answered = heads.asked();
  let goesOn = 0;
  assert.equal(
    heads.hold(() => (goesOn += 1)),
    true,
  );
  t.mock.timers.tick(19);
  assert.equal(goesOn, 0);
  t.mock.timers.tick(1);
  assert.equal(goesOn, 1);
  now += 251;
  assert.equal(
    heads.hold(() => undefined),
    false,
  );
  answered();
  assert.equal(goesOn, 1, "once");
});
