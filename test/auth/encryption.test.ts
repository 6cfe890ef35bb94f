import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { createEncryption, loadEncryption, verifyEncryptionKey } from "../../src/auth/encryption.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";

test("a sealed text opens with its key and context only, and is never the same twice", () => {
  const encryption = createEncryption(randomBytes(32));
  const sealed = encryption.encrypt("geheim ✓", "upstream:1");
  assert.equal(encryption.decrypt(sealed, "upstream:1"), "geheim ✓");
  assert.notEqual(encryption.encrypt("geheim ✓", "upstream:1"), sealed);
  assert.doesNotMatch(sealed, /geheim/);
  assert.throws(() => encryption.decrypt(sealed, "upstream:2"), { code: "INTERNAL" });
  assert.throws(() => createEncryption(randomBytes(32)).decrypt(sealed, "upstream:1"), { code: "INTERNAL", message: /sealed with key/ });
  const changed = sealed.slice(0, -2) + (sealed.endsWith("AA") ? "BB" : "AA");
  assert.throws(() => encryption.decrypt(changed, "upstream:1"), { code: "INTERNAL" });
  for (const wrong of ["", "v1", "v2.a.b.c", `v1.${encryption.keyId}..`])
    assert.throws(() => encryption.decrypt(wrong, "x"), { code: "INTERNAL" });
});

test("keys for other uses differ from each other", () => {
  const encryption = createEncryption(Buffer.alloc(32, 7));
  assert.equal(encryption.deriveKey("a").length, 32);
  assert.ok(!encryption.deriveKey("a").equals(encryption.deriveKey("b")));
  assert.ok(encryption.deriveKey("a").equals(createEncryption(Buffer.alloc(32, 7)).deriveKey("a")));
});

test("a key of our own is made once, for its user only, whoever starts at the same moment", async (t) => {
  const dataDir = join(await tempDir(t), "data");
  const all = await Promise.all(Array.from({ length: 20 }, () => loadEncryption({ key: null, dataDir })));
  assert.equal(new Set(all.map((encryption) => encryption.keyId)).size, 1);
  const path = join(dataDir, "encryption.key");
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.equal((await loadEncryption({ key: null, dataDir })).keyId, all[0]?.keyId);
  assert.match(await readFile(path, "utf8"), /^[0-9a-f]{64}\n$/);
  await writeFile(path, "broken");
  await assert.rejects(loadEncryption({ key: null, dataDir }), { code: "CONFIG_INVALID" });
});

test("a start with another key than the database knows is refused with a clear error", async (t) => {
  const { database } = await testDatabase(t);
  const first = createEncryption(randomBytes(32));
  await Promise.all(Array.from({ length: 5 }, () => verifyEncryptionKey(database, first)));
  await assert.rejects(verifyEncryptionKey(database, createEncryption(randomBytes(32))), {
    code: "CONFIG_INVALID",
    message: /SLIPWAY_ENCRYPTION_KEY/,
  });
  await verifyEncryptionKey(database, first);
});
