import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { PassThrough } from "node:stream";
import type { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { test } from "node:test";
import { request } from "undici";
import { inBatches } from "../../../src/proxy/fill/batches.ts";

async function digestOf(body: Readable, pauseMs = 0): Promise<{ digest: string; pieces: number }> {
  const hash = createHash("sha256");
  let pieces = 0;
  for await (const piece of inBatches(body)) {
    // As a writer does: the piece has to stay as it is while this waits.
    if (pauseMs > 0) await delay(pauseMs);
    hash.update(piece);
    pieces += 1;
  }
  return { digest: hash.digest("hex"), pieces };
}

for (const kind of ["of a told length", "in chunks of odd sizes"] as const) {
  test(`bytes from a socket arrive whole and in order, ${kind}`, async (t) => {
    const content = randomBytes(5_000_003);
    const server = createServer((_, response) => {
      if (kind === "of a told length") {
        response.writeHead(200, { "content-length": content.length });
        response.end(content);
        return;
      }
      for (let start = 0, step = 1; start < content.length; start += step) {
        step = (step * 7) % 65_521;
        response.write(content.subarray(start, start + step));
      }
      response.end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    t.after(() => server.close());
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const expected = createHash("sha256").update(content).digest("hex");
    const bodies = await Promise.all([0, 0, 2].map(async (pauseMs) => digestOf((await request(url)).body, pauseMs)));
    for (const { digest } of bodies) assert.equal(digest, expected);
    assert.ok((bodies[2]?.pieces ?? 0) < 200, "pieces are larger than packets");
  });
}

test("what is there is given at once, and small buffers keep their memory", async () => {
  const body = new PassThrough();
  const pieces = inBatches(body);
  const small = Buffer.from("one");
  body.write(small);
  assert.equal(Buffer.from((await pieces.next()).value as Uint8Array).toString(), "one");
  body.end("two");
  assert.equal(Buffer.from((await pieces.next()).value as Uint8Array).toString(), "two");
  assert.equal((await pieces.next()).done, true);
  assert.equal(small.toString(), "one");
});

test("a failure comes after the bytes before it, and whoever leaves early ends the body", async () => {
  const failing = new PassThrough();
  const pieces = inBatches(failing);
  failing.write("begun");
  assert.equal(Buffer.from((await pieces.next()).value as Uint8Array).toString(), "begun");
  failing.destroy(new Error("cut"));
  await assert.rejects(pieces.next(), /cut/);
  const left = new PassThrough();
  left.write("begun");
  for await (const piece of inBatches(left)) {
    assert.ok(piece.length > 0);
    break;
  }
  assert.equal(left.destroyed, true);
});

test("what comes slowly is gathered once a body has begun, and the end of the body does not wait", async () => {
  const body = new PassThrough();
  const pieces = inBatches(body);
  body.write(Buffer.alloc(70_000, 1));
  assert.equal(((await pieces.next()).value as Uint8Array).length, 70_000);
  const next = pieces.next();
  for (let turn = 0; turn < 3; turn += 1) {
    body.write(Buffer.alloc(10_000, 2));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(((await next).value as Uint8Array).length, 30_000);
  body.end(Buffer.alloc(5, 3));
  assert.equal(((await pieces.next()).value as Uint8Array).length, 5);
  assert.equal((await pieces.next()).done, true);
});
