/** How invalidations travel. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseBusMessage, splitScopes } from "../../../src/catalog/cache/bus-messages.ts";
import { MAX_MESSAGE_BYTES } from "../../../src/kv/kv.ts";

test("scopes travel in messages that the channel carries; too many become one that drops everything", () => {
  const long = Array.from({ length: 200 }, (_, index) => `repository:${"x".repeat(200)}"${index}`);
  const parts = splitScopes(long);
  assert.ok(parts.length > 1);
  assert.deepEqual(parts.flat(), long);
  for (const scopes of parts) {
    const message = { t: "drop", from: "f".repeat(36), n: Number.MAX_SAFE_INTEGER, scopes };
    assert.ok(Buffer.byteLength(JSON.stringify(message)) <= MAX_MESSAGE_BYTES);
    assert.deepEqual(parseBusMessage(JSON.stringify(message)), message);
  }
  assert.deepEqual(splitScopes(Array.from({ length: 5_000 }, (_, index) => `repository:${"x".repeat(100)}${index}`)), [null]);
  assert.deepEqual(splitScopes(["x".repeat(10_000)]), [null]);
  assert.deepEqual(splitScopes([]), []);
  assert.equal(parseBusMessage("{"), null);
  assert.equal(parseBusMessage('{"t":"future"}'), null);
});
