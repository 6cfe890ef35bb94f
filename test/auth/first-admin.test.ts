import assert from "node:assert/strict";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ensureAdmin } from "../../src/auth/first-admin.ts";
import { Passwords } from "../../src/auth/passwords.ts";
import { login, testAuth } from "../support/auth.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";
import { testBus } from "../support/test-bus.ts";

test("a hundred first starts at once make one administrator, with the password that is kept", async (t) => {
  const { database } = await testDatabase(t);
  const dataDir = await tempDir(t);
  const passwords = new Passwords({ cost: { memory: 64, passes: 1, parallelism: 1 } });
  const outcomes = await Promise.all(Array.from({ length: 100 }, () => ensureAdmin({ database, passwords, password: null, dataDir })));
  const created = outcomes.filter((outcome) => outcome.created);
  assert.equal(created.length, 1);
  const { rows } = await database.query<{ username: string; sysadmin: boolean }>("SELECT username, sysadmin FROM users");
  assert.deepEqual(rows, [{ username: "admin", sysadmin: true }]);
  const file = join(dataDir, "admin-password");
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  const password = (await readFile(file, "utf8")).trim();
  assert.equal(created[0]?.created === true && created[0].generatedPassword, password);
  const parts = testAuth(t, { database, bus: await testBus(t) });
  assert.equal((await login(parts, "admin", password)).sysadmin, true);
});

test("a given password counts at the first start only, and is neither printed nor kept", async (t) => {
  const { database } = await testDatabase(t);
  const dataDir = await tempDir(t);
  const parts = testAuth(t, { database, bus: await testBus(t) });
  const { passwords } = parts.auth;
  const first = await ensureAdmin({ database, passwords, password: "Given12345", dataDir });
  assert.deepEqual(first, { created: true, generatedPassword: null, file: null });
  await assert.rejects(stat(join(dataDir, "admin-password")), { code: "ENOENT" });
  assert.deepEqual(await ensureAdmin({ database, passwords, password: "Later12345", dataDir }), { created: false });
  await login(parts, "admin", "Given12345");
  await assert.rejects(login(parts, "admin", "Later12345"), { code: "UNAUTHORIZED" });
});
