import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { createEncryption } from "../../src/auth/encryption.ts";
import { generatePassword, isAcceptablePassword, Passwords } from "../../src/auth/passwords.ts";
import { RobotSecrets } from "../../src/auth/robot-secrets.ts";
import { addUser, login, testAuth } from "../support/auth.ts";
import { testDatabase } from "../support/services.ts";
import { testBus } from "../support/test-bus.ts";

const CHEAP = { memory: 64, passes: 1, parallelism: 1 };

test("a password is hashed with argon2id and salted", async () => {
  const passwords = new Passwords();
  const hash = await passwords.hash("Harbor12345");
  assert.match(hash, /^\$argon2id\$v=19\$m=\d{5,},t=\d,p=1\$/);
  assert.notEqual(await passwords.hash("Harbor12345"), hash);
  assert.equal(await passwords.verify("Harbor12345", hash), true);
  assert.equal(await passwords.verify("Harbor12346", hash), false);
  assert.equal(await passwords.verify("", hash), false);
  assert.equal(await passwords.verify("Harbor12345", null), false);
});

test("hashes made at another cost still verify", async () => {
  const hash = await new Passwords({ cost: CHEAP }).hash("Harbor12345");
  assert.equal(await new Passwords().verify("Harbor12345", hash), true);
});

test("an over-long password is no password, not even that of an empty one", async () => {
  const passwords = new Passwords({ cost: CHEAP });
  const empty = await passwords.hash("");
  assert.equal(await passwords.verify("x".repeat(100_000), empty), false);
});

test("checks wait in a bounded line", async () => {
  const passwords = new Passwords({ concurrency: 1, maxWaiting: 2 });
  const hash = await passwords.hash("Harbor12345");
  const results = await Promise.allSettled(Array.from({ length: 6 }, () => passwords.verify("Harbor12345", hash)));
  assert.deepEqual(
    results.map((result) => (result.status === "fulfilled" ? result.value : (result.reason as { code: string }).code)),
    [true, true, true, "OVERLOADED", "OVERLOADED", "OVERLOADED"],
  );
  assert.equal(await passwords.verify("Harbor12345", hash), true, "the line is free again");
  assert.equal(passwords.stats().waiting, 0);
});

test("generated passwords satisfy the rule", () => {
  for (let round = 0; round < 50; round += 1) assert.ok(isAcceptablePassword(generatePassword()));
  for (const weak of ["", "Short1", "nouppercase1", "NOLOWERCASE1", "NoDigitsHere", `A1${"a".repeat(130)}`])
    assert.ok(!isAcceptablePassword(weak));
});

test("a robot's generated secret is checked fast, a chosen one like a password, a wrong one always like a password", async () => {
  const passwords = new Passwords({ cost: CHEAP });
  const secrets = new RobotSecrets(createEncryption(randomBytes(32)), passwords);
  const { secret, hash } = secrets.generate();
  assert.equal(await secrets.verify(secret, hash), true);
  assert.equal(passwords.stats().verifications, 0);
  const chosen = await secrets.hashChosen("Chosen12345");
  assert.equal(await secrets.verify("Chosen12345", chosen), true);
  const before = passwords.stats().verifications;
  assert.deepEqual(
    [await secrets.verify("x", hash), await secrets.verify("x", chosen), await secrets.verify("x", null)],
    [false, false, false],
  );
  assert.equal(passwords.stats().verifications, before + 3);
});

test("an unknown user costs the same check as a wrong password, and gets the same answer", async (t) => {
  const { database } = await testDatabase(t);
  const parts = testAuth(t, { database, bus: await testBus(t) });
  await addUser(parts, "alice");
  const attempt = async (username: string): Promise<{ error: unknown; verifications: number; dummies: number; statements: number }> => {
    const before = parts.auth.passwords.stats();
    const statements = database.stats().statements;
    const error: unknown = await login(parts, username, "Wrong12345").then(
      () => null,
      (thrown: unknown) => thrown,
    );
    const after = parts.auth.passwords.stats();
    return {
      error,
      verifications: after.verifications - before.verifications,
      dummies: after.dummies - before.dummies,
      statements: database.stats().statements - statements,
    };
  };
  assert.equal((await attempt("alice")).statements, 1);
  // By now the account is known to the process, which must not show either.
  const known = await attempt("alice");
  const unknown = await attempt("nobody");
  assert.deepEqual([known.verifications, known.dummies, known.statements], [1, 0, 1]);
  assert.deepEqual([unknown.verifications, unknown.dummies, unknown.statements], [1, 1, 1]);
  assert.deepEqual(unknown.error, known.error);
  assert.equal((known.error as { code: string }).code, "UNAUTHORIZED");
});
