import assert from "node:assert/strict";
import { test } from "node:test";
import { LoginThrottle } from "../../src/auth/login-throttle.ts";
import { addUser, login, testAuth } from "../support/auth.ts";
import { testDatabase } from "../support/services.ts";
import { testBus } from "../support/test-bus.ts";

function create(options: Partial<ConstructorParameters<typeof LoginThrottle>[0]> = {}): { throttle: LoginThrottle; time: { now: number } } {
  const time = { now: 1_000_000 };
  return { throttle: new LoginThrottle({ clock: { now: () => time.now }, ...options }), time };
}

test("each failure makes the next attempt wait longer, up to a bound, and a success clears it", () => {
  const { throttle, time } = create();
  const waits: number[] = [];
  for (let count = 0; count < 9; count += 1) {
    const attempt = throttle.begin("alice", "192.0.2.1");
    waits.push(attempt.waitMs);
    time.now += attempt.waitMs;
    attempt.failed();
  }
  assert.deepEqual(waits.slice(0, 3), [0, 0, 0]);
  for (const [index, wait] of waits.entries()) assert.ok(wait <= 5_000 && wait >= (waits[index - 1] ?? 0), waits.join(" "));
  assert.ok((waits.at(-1) ?? 0) >= 4_000);
  const right = throttle.begin("alice", "192.0.2.1");
  time.now += right.waitMs;
  right.succeeded();
  assert.equal(throttle.begin("alice", "192.0.2.1").waitMs, 0);
});

test("guessing in parallel stands in a line, and is refused beyond the longest wait", () => {
  const { throttle, time } = create();
  for (let count = 0; count < 6; count += 1) {
    const attempt = throttle.begin("alice", "192.0.2.1");
    time.now += attempt.waitMs;
    attempt.failed();
  }
  const waits: number[] = [];
  assert.throws(
    () => {
      for (let count = 0; count < 50; count += 1) waits.push(throttle.begin("alice", "192.0.2.1").waitMs);
    },
    { code: "TOOMANYREQUESTS" },
  );
  assert.ok(waits.length < 5, String(waits.length));
  assert.ok(throttle.stats().refused === 1);
});

test("parallel guesses at a fresh account are slowed as well", () => {
  const { throttle } = create();
  const waits: number[] = [];
  assert.throws(
    () => {
      for (let count = 0; count < 100; count += 1) waits.push(throttle.begin("alice", "192.0.2.1").waitMs);
    },
    { code: "TOOMANYREQUESTS" },
  );
  assert.ok(
    waits.slice(0, 16).every((wait) => wait === 0),
    "a client's own parallel requests",
  );
  assert.ok(waits.length < 40, String(waits.length));
});

test("one address that tries many accounts is slowed, others are not", () => {
  const { throttle, time } = create();
  for (let count = 0; count < 20; count += 1) {
    const attempt = throttle.begin(`user${count}`, "192.0.2.1");
    time.now += attempt.waitMs;
    attempt.failed();
  }
  assert.ok(throttle.begin("another", "192.0.2.1").waitMs > 0);
  assert.equal(throttle.begin("another", "192.0.2.2").waitMs, 0);
});

test("an account attacked from many addresses is slowed for everybody, but nobody is shut out", () => {
  const { throttle, time } = create();
  for (let count = 0; count < 200; count += 1) {
    const attempt = throttle.begin("alice", `192.0.2.${count}`);
    time.now += attempt.waitMs;
    attempt.failed();
  }
  const owner = throttle.begin("alice", "198.51.100.7");
  assert.ok(owner.waitMs > 0 && owner.waitMs <= 1_250, String(owner.waitMs));
});

test("an IPv6 host counts as one address whatever it takes from its network", () => {
  const { throttle, time } = create();
  for (let count = 0; count < 20; count += 1) {
    const attempt = throttle.begin(`user${count}`, `2001:db8::${count.toString(16)}`);
    time.now += attempt.waitMs;
    attempt.failed();
  }
  assert.ok(throttle.begin("x", "2001:db8:0:0:ffff::1").waitMs > 0);
  assert.equal(throttle.begin("x", "2001:db8:0:1::1").waitMs, 0);
});

test("what is remembered is bounded", () => {
  const { throttle } = create({ maxTracked: 100 });
  for (let count = 0; count < 5_000; count += 1) throttle.begin(`user${count}`, `10.0.${count >> 8}.${count & 255}`).failed();
  assert.ok(throttle.stats().tracked <= 300);
});

test("a failed login is logged by a constant message with fields, without the password", async (t) => {
  const { database } = await testDatabase(t);
  const lines: { fields: Record<string, unknown>; message: string }[] = [];
  const logger = {
    debug: () => undefined,
    info: () => undefined,
    error: () => undefined,
    warn: (fields: object, message: string) => void lines.push({ fields: fields as Record<string, unknown>, message }),
  };
  const parts = testAuth(t, { database, bus: await testBus(t), logger });
  await addUser(parts, "alice");
  await assert.rejects(login(parts, "alice", "Wrong12345"), { code: "UNAUTHORIZED" });
  assert.deepEqual(lines, [
    { message: "login failed", fields: { username: "alice", remote: "192.0.2.1", accountFailures: 1, addressFailures: 1 } },
  ]);
});
