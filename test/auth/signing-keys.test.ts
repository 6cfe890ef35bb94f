import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { decodeProtectedHeader } from "jose";
import { createEncryption } from "../../src/auth/encryption.ts";
import { SigningKeys } from "../../src/auth/signing-keys.ts";
import { Tokens } from "../../src/auth/tokens.ts";
import type { Database } from "../../src/db/pool.ts";
import { silentLogger } from "../../src/telemetry/logger.ts";
import { testDatabase } from "../support/services.ts";

const SUBJECT = { key: "user:1", name: "alice", credentialVersion: 1, expiresAt: null };
const TTL_SECONDS = 600;
const REFRESH_MS = 60_000;

interface Process {
  readonly keys: SigningKeys;
  readonly tokens: Tokens;
}

function startProcess(
  t: { after(fn: () => void): void },
  database: Database,
  shared: { time: { now: number }; encryption: ReturnType<typeof createEncryption> },
): Process {
  const clock = { now: () => shared.time.now };
  const keys = new SigningKeys({
    database,
    encryption: shared.encryption,
    clock,
    logger: silentLogger,
    tokenTtlMs: TTL_SECONDS * 1000,
    refreshMs: REFRESH_MS,
  });
  t.after(() => keys.close());
  return { keys, tokens: new Tokens(keys, { clock, ttlSeconds: TTL_SECONDS }) };
}

test("signing keys", async (t) => {
  const { database } = await testDatabase(t);
  const shared = { time: { now: Date.now() }, encryption: createEncryption(randomBytes(32)) };
  const one = startProcess(t, database, shared);
  const two = startProcess(t, database, shared);

  await t.test("are made once by any number of processes that start together", async () => {
    const processes = Array.from({ length: 20 }, () => startProcess(t, database, shared));
    const tokens = await Promise.all(processes.map(({ tokens: service }) => service.issue(SUBJECT, [])));
    assert.equal(new Set(tokens.map(({ token }) => decodeProtectedHeader(token).kid)).size, 1);
  });

  await t.test("lie encrypted in the database", async () => {
    const { rows } = await database.query<{ private_key: string; kid: string }>("SELECT kid, private_key FROM signing_keys");
    assert.equal(rows.length, 1);
    assert.doesNotMatch(rows[0]?.private_key ?? "", /PRIVATE KEY/);
    assert.match(shared.encryption.decrypt(rows[0]?.private_key ?? "", `signing-key:${rows[0]?.kid}`), /PRIVATE KEY/);
  });

  await t.test("rotate with an overlap in which every process takes both", async () => {
    const old = await one.tokens.issue(SUBJECT, []);
    await two.tokens.verify(old.token);
    await Promise.all([one.keys.rotate(), two.keys.rotate()]);
    assert.equal(one.keys.list().length, 2, "two rotations at the same moment make one key");
    const during = await one.tokens.issue(SUBJECT, []);
    assert.equal(
      decodeProtectedHeader(during.token).kid,
      decodeProtectedHeader(old.token).kid,
      "a successor does not sign before all can know it",
    );

    shared.time.now += 2 * REFRESH_MS + 1;
    const fresh = await one.tokens.issue(SUBJECT, []);
    assert.notEqual(decodeProtectedHeader(fresh.token).kid, decodeProtectedHeader(old.token).kid);
    const late = startProcess(t, database, shared);
    for (const process of [one, two, late]) {
      assert.equal((await process.tokens.verify(fresh.token)).subject, "user:1");
      assert.equal((await process.tokens.verify(during.token)).subject, "user:1");
    }

    shared.time.now += TTL_SECONDS * 1000 + 61_000;
    await assert.rejects(one.tokens.verify(during.token), { code: "UNAUTHORIZED" });
    await one.keys.refresh();
    assert.equal(one.keys.list().length, 1, "the old key has retired");
  });

  await t.test("that a process does not know yet are looked up when a token names them", async () => {
    const stranger = startProcess(t, database, shared);
    const { token } = await one.tokens.issue(SUBJECT, []);
    assert.equal((await stranger.tokens.verify(token)).subject, "user:1");
  });

  await t.test("that nobody knows do not make us ask the database each time", async () => {
    const { token } = await one.tokens.issue(SUBJECT, []);
    const [, payload, signature] = token.split(".");
    const before = database.stats().statements;
    for (let round = 0; round < 50; round += 1) {
      const header = Buffer.from(JSON.stringify({ alg: "EdDSA", kid: `made-up-${round}` })).toString("base64url");
      await assert.rejects(one.tokens.verify(`${header}.${payload}.${signature}`), { code: "UNAUTHORIZED" });
    }
    assert.ok(database.stats().statements - before <= 1);
  });

  await t.test("accept no other algorithm", async () => {
    const { token } = await one.tokens.issue(SUBJECT, []);
    const [header = "", payload] = token.split(".");
    const { kid } = JSON.parse(Buffer.from(header, "base64url").toString()) as { kid: string };
    const none = Buffer.from(JSON.stringify({ alg: "none", kid })).toString("base64url");
    await assert.rejects(one.tokens.verify(`${none}.${payload}.`), { code: "UNAUTHORIZED" });
  });

  await t.test("sign no token that outlives its account", async () => {
    const expiresAt = shared.time.now + 60_000;
    const issued = await one.tokens.issue({ ...SUBJECT, expiresAt }, []);
    assert.ok(issued.expiresInSeconds <= 60, String(issued.expiresInSeconds));
  });
});
