/** Fills whose clients are gone: they stop or go on by the policy, and nothing that came is fetched again. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { get } from "node:http";
import type { IncomingMessage } from "node:http";
import { after, test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { ask, createProxyProject, eventually } from "../support/proxy-server.ts";
import { startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";

const files = scope({ after });
const server = await startRegistry(files, { env: { SLIPWAY_PROXY_FINISH_UNREAD_PERCENT: "50" } });
const upstream = await startFakeRegistry(files);
await createProxyProject(server.app, { name: "hub", url: upstream.url });
const { fills } = server.app.proxy;
const SIZE = 4_000_000;

/** A client that is gone after its first bytes, while upstream keeps the rest back. */
async function leaveAfter(
  sent: number,
): Promise<{ url: string; content: Buffer; more: (from: number) => void; ranges: (string | undefined)[] }> {
  const content = randomBytes(SIZE);
  const digest = upstream.putBlob("app", content);
  const ranges: (string | undefined)[] = [];
  let more: (from: number) => void = () => undefined;
  upstream.on({ method: "GET", path: new RegExp(digest) }, (request, response) => {
    ranges.push(request.headers.range);
    const start = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    if (start > 0) {
      response.writeHead(206, { "content-length": SIZE - start, "content-range": `bytes ${start}-${SIZE - 1}/${SIZE}` });
      response.end(content.subarray(start));
      return;
    }
    response.writeHead(200, { "content-length": SIZE });
    response.write(content.subarray(0, sent));
    more = (from) => void response.end(content.subarray(from));
  });
  const url = `${server.url}/v2/hub/app/blobs/${digest}`;
  const answer = await new Promise<IncomingMessage>((resolve, reject) => void get(url, { agent: false }, resolve).once("error", reject));
  await new Promise((resolve) => answer.once("data", resolve));
  answer.on("error", () => undefined).destroy();
  return { url, content, more: (from) => more(from), ranges };
}

test("a fill of which little is there stops when its client is gone, and the next client goes on with what is there", async () => {
  const { url, content, ranges } = await leaveAfter(1_000_000);
  await eventually("the fill has stopped", () => fills.active === 0, 10_000);
  assert.equal(fills.stats.unread, 1);
  const next = await ask(url);
  assert.equal(next.status, 200);
  assert.ok(next.bytes.equals(content));
  assert.deepEqual([ranges.length, ranges[0]], [2, undefined]);
  assert.match(ranges[1] ?? "", /^bytes=\d{6,}-/, "what is there is not asked for again");
});

test("a fill of which most is there goes on without a client", async () => {
  const { url, more, ranges } = await leaveAfter(3_000_000);
  await eventually("most is staged", () => fills.active === 1);
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  assert.equal(fills.active, 1);
  more(3_000_000);
  await eventually("it is stored", async () => (await ask(url)).cache === "HIT");
  assert.deepEqual([ranges.length, fills.stats.unread], [1, 1]);
});
