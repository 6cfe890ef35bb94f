import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { sendReady } from "../../api/http/ready-answer.ts";
import type { ReadyAnswer } from "../../api/http/ready-answer.ts";
import { rawRequest } from "../support/raw-http.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

const LINES = "X-Cache: HIT\r\nAge: 7\r\n";
const PAIRS = ["X-Cache", "HIT", "Age", "7"];
/** Every byte value there is, small and too large to leave as one text. */
const SMALL = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
const LARGE = Buffer.alloc(20_000, SMALL);

function answerOf(bytes: Buffer): ReadyAnswer {
  return { headers: ["Content-Type", "application/json", "ETag", '"x"', "Content-Length", String(bytes.length)], bytes };
}

/** On a free port of this machine. */
async function listen(t: Cleanable, onRequest: RequestListener): Promise<number> {
  const server = createServer(onRequest).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  });
  return (server.address() as AddressInfo).port;
}

/** `/ready/...` from the code under test, `/plain/...` as Node does it; also which requests had their head rendered by Node. */
async function startBoth(t: Cleanable): Promise<{ readonly port: number; readonly rendered: string[] }> {
  const answers = new Map([
    ["small", answerOf(SMALL)],
    ["large", answerOf(LARGE)],
  ]);
  const rendered: string[] = [];
  const port = await listen(t, (req, res) => {
    const [, way, size = ""] = (req.url ?? "").split("/");
    const answer = answers.get(size);
    assert.ok(answer);
    const writeHead = res.writeHead.bind(res) as (status: number, headers: string[]) => typeof res;
    if (way === "ready") {
      res.writeHead = (...args: unknown[]) => {
        rendered.push(req.url ?? "");
        return writeHead(...(args as [number, string[]]));
      };
      sendReady(res, answer, { lines: LINES, isHead: req.method === "HEAD" });
    } else {
      writeHead(200, [...answer.headers, ...PAIRS]);
      res.end(req.method === "HEAD" ? undefined : answer.bytes);
    }
  });
  return { port, rendered };
}

async function bytesOf(port: number, request: string): Promise<string> {
  const { text } = await rawRequest([request], { port, waitMs: 500 });
  return text.replaceAll(/\r\nDate: [^\r]{25} GMT\r\n/g, "\r\nDate: now\r\n");
}

const REQUESTS: Readonly<Record<string, (path: string) => string>> = {
  get: (path) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`,
  head: (path) => `HEAD ${path} HTTP/1.1\r\nHost: a\r\n\r\n`,
  "get that ends the connection": (path) => `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`,
  "get of an old client": (path) => `GET ${path} HTTP/1.0\r\nHost: a\r\n\r\n`,
  "get of an old client that stays": (path) => `GET ${path} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n`,
  "three at once": (path) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`.repeat(3),
};

test("a ready answer is to the byte what Node would have sent, the first time and later", async (t) => {
  const { port, rendered } = await startBoth(t);
  for (const size of ["small", "large"]) {
    for (const [what, request] of Object.entries(REQUESTS)) {
      const expected = await bytesOf(port, request(`/plain/${size}`));
      assert.match(expected, /^HTTP\/1\.1 200 OK\r\n/);
      for (let turn = 0; turn < 2; turn += 1) {
        assert.equal(await bytesOf(port, request(`/ready/${size}`)), expected, `${what}, ${size}, turn ${turn}`);
      }
    }
  }
  // The first of each, and those whose connection ends: everything else took the short way.
  assert.deepEqual(rendered.toSorted(), [...Array<string>(5).fill("/ready/large"), ...Array<string>(5).fill("/ready/small")]);
});

test("a head that Node renders in another way is left to Node", async (t) => {
  const answer = answerOf(SMALL);
  const port = await listen(t, (_req, res) => {
    res.sendDate = false;
    sendReady(res, answer, { lines: LINES, isHead: false });
  });
  for (let turn = 0; turn < 2; turn += 1) {
    const got = await fetch(`http://127.0.0.1:${port}/`);
    assert.equal(got.headers.has("date"), false);
    assert.deepEqual(Buffer.from(await got.arrayBuffer()), SMALL);
  }
  assert.equal(answer.head, null);
});
