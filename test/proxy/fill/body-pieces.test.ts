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
import { eachPiece } from "../../../src/proxy/fill/body-pieces.ts";

async function digestOf(body: Readable, pauseMs = 0): Promise<{ digest: string; pieces: number }> {
  const hash = createHash("sha256");
  let pieces = 0;
  await eachPiece(body, (piece) => {
    hash.update(piece);
    pieces += 1;
    return pauseMs > 0 ? delay(pauseMs) : null;
  });
  return { digest: hash.digest("hex"), pieces };
}

/** What was given so far, as text, and how it ended. */
function watch(body: Readable, take: (text: string) => Promise<void> | null = () => null): { given: string[]; over: Promise<void> } {
  const given: string[] = [];
  const over = eachPiece(body, (piece) => {
    given.push(Buffer.from(piece).toString());
    return take(given.at(-1) ?? "");
  });
  over.catch(() => undefined);
  return { given, over };
}

const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

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
  const { given, over } = watch(body);
  const small = Buffer.from("one");
  body.write(small);
  await turns(3);
  assert.deepEqual(given, ["one"]);
  body.end("two");
  await over;
  assert.deepEqual(given, ["one", "two"]);
  assert.equal(small.toString(), "one");
});

test("a failure comes after the bytes before it, and who does not want the rest ends the body", async () => {
  const failing = new PassThrough();
  const cut = watch(failing);
  failing.write("begun");
  await turns(3);
  failing.destroy(new Error("cut"));
  await assert.rejects(cut.over, /cut/);
  assert.deepEqual(cut.given, ["begun"]);
  const refused = new PassThrough();
  refused.write("begun");
  const throwing = watch(refused, () => {
    throw new Error("enough");
  });
  await assert.rejects(throwing.over, /enough/);
  assert.equal(refused.destroyed, true);
  const destroyed = new PassThrough();
  destroyed.destroy(new Error("before anybody listened"));
  await assert.rejects(watch(destroyed).over, /before anybody listened/);
});

test("while somebody is waited for, nothing is given and the body stops in time; a failed wait ends it", async () => {
  const body = new PassThrough({ highWaterMark: 1 });
  const pauses: PromiseWithResolvers<void>[] = [];
  const { given, over } = watch(body, () => {
    pauses.push(Promise.withResolvers<void>());
    return pauses.at(-1)?.promise ?? null;
  });
  body.write("first");
  await turns(3);
  for (let index = 0; index < 40; index += 1) {
    body.write(Buffer.alloc(64 * 1024, 97));
    await turns(1);
  }
  assert.deepEqual(given, ["first"]);
  assert.ok(body.writableLength > 1024 * 1024, "the body keeps what is not wanted yet");
  pauses[0]?.resolve();
  await turns(3);
  assert.equal(given.length, 2);
  pauses[1]?.reject(new Error("the disk is gone"));
  await assert.rejects(over, /the disk is gone/);
  assert.equal(body.destroyed, true);
});

test("what comes slowly is gathered once a body has begun, and the end of the body does not wait", async () => {
  const body = new PassThrough();
  const lengths: number[] = [];
  const over = eachPiece(body, ({ length }) => {
    lengths.push(length);
    return null;
  });
  body.write(Buffer.alloc(70_000, 1));
  while (lengths.length === 0) await turns(1);
  for (let turn = 0; turn < 3; turn += 1) {
    body.write(Buffer.alloc(10_000, 2));
    await turns(1);
  }
  while (lengths.length === 1) await turns(1);
  body.end(Buffer.alloc(5, 3));
  await over;
  assert.deepEqual(lengths, [70_000, 30_000, 5]);
});
