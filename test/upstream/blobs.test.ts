/** Blob bodies that survive cut, dripping and lying connections. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { send, sendRange, sha256 } from "../support/fake-answers.ts";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { endpointFor, readAll, startClient, startPool, until, withCode } from "./support.ts";

const MIB = 1024 * 1024;
const BYTES = randomBytes(3 * MIB);
const DIGEST = sha256(BYTES);

test("reads a blob whole and in ranges", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  const client = startClient(t, registry.url);
  const whole = await client.getBlob("a", DIGEST);
  assert.deepEqual([whole.status, whole.size, whole.length], [200, BYTES.length, BYTES.length]);
  assert.ok((await readAll(whole.body)).equals(BYTES));
  const part = await client.getBlob("a", DIGEST, { range: { start: 1000, end: 70_000 } });
  assert.deepEqual([part.status, part.size, part.length, part.rangeHonoured], [206, BYTES.length, 69_001, true]);
  assert.ok((await readAll(part.body)).equals(BYTES.subarray(1000, 70_001)));
  const rest = await client.getBlob("a", DIGEST, { range: { start: BYTES.length - 10 } });
  assert.ok((await readAll(rest.body)).equals(BYTES.subarray(-10)));
  await assert.rejects(client.getBlob("a", DIGEST, { range: { start: BYTES.length } }), withCode("RANGE_INVALID"));
  await assert.rejects(client.getBlob("a", sha256("absent")), withCode("BLOB_UNKNOWN"));
});

test("a body that is cut several times is resumed by Range and arrives whole", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  const proxy = await startFaultProxy(t, registry);
  proxy.set({ cutAfterBytes: 700_000, cuts: 3 });
  const pool = startPool(t);
  const { body } = await pool.client(endpointFor(proxy.url)).getBlob("a", DIGEST);
  assert.ok((await readAll(body)).equals(BYTES));
  assert.ok(pool.stats().resumes >= 3);
  const ranges = registry.calls.flatMap((call) => call.headers.range ?? []);
  assert.equal(ranges.length, registry.count("blob-get") - 1);
  assert.ok(ranges.every((range) => /^bytes=[1-9]\d*-/.test(range)));
});

test("a body that goes on being cut without progress fails in the end", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  const proxy = await startFaultProxy(t, registry);
  const client = startClient(t, proxy.url, { pool: { breakerThreshold: 1000 } });
  const { body } = await client.getBlob("a", DIGEST);
  proxy.set({ refuse: true });
  proxy.dropConnections();
  await assert.rejects(readAll(body), withCode("UPSTREAM_UNREACHABLE"));
});

test("a short body without a length is found by the descriptor's size and resumed", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  registry.on({ path: /blobs/, times: 1 }, (request, response) => {
    // Ends like HTTP/1.0: by closing, with no length that could contradict.
    request.socket.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    request.socket.end(BYTES.subarray(0, 100_000));
    response.detachSocket(request.socket);
  });
  const { body } = await startClient(t, registry.url).getBlob("a", DIGEST, { expectedSize: BYTES.length });
  assert.ok((await readAll(body)).equals(BYTES));
});

test("a registry that ignores Range on resumption is read again and skipped through", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  registry.ranges = false;
  const proxy = await startFaultProxy(t, registry);
  proxy.set({ cutAfterBytes: MIB, cuts: 1 });
  const { body } = await startClient(t, proxy.url).getBlob("a", DIGEST);
  assert.ok((await readAll(body)).equals(BYTES));
  const client = startClient(t, proxy.url);
  assert.equal(client.honoursRanges, true);
  const part = await client.getBlob("a", DIGEST, { range: { start: 2 * MIB, end: 2 * MIB + 99 } });
  assert.deepEqual([part.rangeHonoured, client.honoursRanges], [false, false]);
  assert.ok((await readAll(part.body)).equals(BYTES.subarray(2 * MIB, 2 * MIB + 100)));
});

test("a 206 that begins elsewhere than asked is not believed", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  for (const range of [`bytes 500000-999999/${BYTES.length}`, "bytes what", "bytes 10-5/3"]) {
    registry.on({ path: /blobs/ }, (request, response) => {
      if (!request.headers.range) return sendRange(response, BYTES, undefined);
      return send(response, 206, { "content-range": range }, BYTES.subarray(500_000, 1_000_000));
    });
    const { body, rangeHonoured } = await startClient(t, registry.url).getBlob("a", DIGEST, { range: { start: 1000, end: 1999 } });
    assert.equal(rangeHonoured, false);
    assert.ok((await readAll(body)).equals(BYTES.subarray(1000, 2000)), range);
  }
});

test("a 206 that begins earlier than asked is skipped into", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /blobs/ }, (_, response) => {
    send(response, 206, { "content-range": `bytes 0-9999/${BYTES.length}` }, BYTES.subarray(0, 10_000));
  });
  const { body } = await startClient(t, registry.url).getBlob("a", DIGEST, { range: { start: 5000, end: 9999 } });
  assert.ok((await readAll(body)).equals(BYTES.subarray(5000, 10_000)));
});

test("416 when everything has arrived means finished", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /blobs/ }, (request, response) => {
    if (request.headers.range) return send(response, 416, { "content-range": `bytes */${BYTES.length}` });
    // Chunked and cut before the closing chunk: every byte is there, but not the end.
    response.writeHead(200, { "transfer-encoding": "chunked" });
    response.write(BYTES, () => setTimeout(() => request.socket.destroy(), 50));
    return undefined;
  });
  const { body } = await startClient(t, registry.url).getBlob("a", DIGEST);
  assert.ok((await readAll(body)).equals(BYTES));
});

test("a blob whose size changed between resumptions is refused", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  const proxy = await startFaultProxy(t, registry);
  proxy.set({ cutAfterBytes: MIB, cuts: 1 });
  registry.on({ path: /blobs/ }, (request, response) => {
    sendRange(response, request.headers.range ? Buffer.concat([BYTES, BYTES]) : BYTES, request.headers.range?.replace(/-\d+$/, "-"));
  });
  const { body } = await startClient(t, proxy.url).getBlob("a", DIGEST);
  await assert.rejects(readAll(body), withCode("UPSTREAM_INVALID"));
});

test("a page of HTML is no blob, and neither is a body of another size", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  const client = startClient(t, registry.url);
  await assert.rejects(client.getBlob("a", DIGEST, { expectedSize: 5 }), withCode("UPSTREAM_INVALID"));
  registry.on({ path: /blobs/ }, (_, response) => send(response, 200, { "content-type": "text/html; charset=utf-8" }, "<html></html>"));
  await assert.rejects(client.getBlob("a", DIGEST), withCode("UPSTREAM_INVALID"));
});

test("a body that drips or stands still is given up and resumed on another connection", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  const proxy = await startFaultProxy(t, registry);
  proxy.set({ stallAfterBytes: MIB });
  const pool = startPool(t, { stall: { minBytesPerSecond: 50 * 1024, windowMs: 400 } });
  const { body } = await pool.client(endpointFor(proxy.url)).getBlob("a", DIGEST);
  const reading = readAll(body);
  await until(() => proxy.counts.bytesDown >= MIB, "the stall");
  proxy.heal();
  assert.ok((await reading).equals(BYTES));
  assert.ok(pool.stats().stalls >= 1);
});

test("a slow reader is not taken for a slow registry", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  const pool = startPool(t, { stall: { minBytesPerSecond: 10 * MIB, windowMs: 200 } });
  const { body } = await pool.client(endpointFor(registry.url)).getBlob("a", DIGEST);
  const chunks: Buffer[] = [];
  for await (const chunk of body as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.ok(Buffer.concat(chunks).equals(BYTES));
  assert.equal(pool.stats().stalls, 0);
});

test("aborting or destroying a body closes its connection and frees its slot", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", randomBytes(24 * MIB));
  const digest = [...registry.repository("a").blobs.keys()][0] ?? "";
  const pool = startPool(t);
  const client = pool.client(endpointFor(registry.url));
  const controller = new AbortController();
  const first = await client.getBlob("a", digest, { signal: controller.signal });
  const second = await client.getBlob("a", digest);
  assert.equal(pool.stats().hosts[0]?.queue.bulk.running, 2);
  controller.abort();
  await assert.rejects(readAll(first.body), withCode("CANCELLED"));
  second.body.destroy();
  await until(() => pool.stats().hosts[0]?.queue.bulk.running === 0, "free slots");
});

test("a body that fails before anybody listens does not end the process", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  const controller = new AbortController();
  const { body } = await startClient(t, registry.url).getBlob("a", DIGEST, { signal: controller.signal });
  controller.abort();
  await until(() => body.closed, "the end of the body");
  assert.ok(body.errored);
});

test("later ranges go straight to where the bytes are, and back to the registry when that address ran out", async (t) => {
  const registry = await startFakeRegistry(t);
  const storage = await startFakeRegistry(t);
  storage.putBlob("s", BYTES);
  let valid = 1;
  registry.on({ path: /blobs/ }, (_, response) => send(response, 307, { location: `${storage.url}/v2/s/blobs/${DIGEST}?sig=${valid}` }));
  storage.on({ path: /blobs/ }, (request, response) => {
    if (request.url?.endsWith(`sig=${valid}`)) sendRange(response, BYTES, request.headers.range);
    else send(response, 403, {}, "<Error>expired</Error>");
  });
  const client = startClient(t, registry.url);
  for (const start of [0, 1000, 2000]) {
    const { body } = await client.getBlob("a", DIGEST, { range: { start, end: start + 9 } });
    assert.ok((await readAll(body)).equals(BYTES.subarray(start, start + 10)));
  }
  assert.equal(registry.count("blob-get"), 1);
  valid = 2;
  const { body } = await client.getBlob("a", DIGEST, { range: { start: 3000, end: 3009 } });
  assert.ok((await readAll(body)).equals(BYTES.subarray(3000, 3010)));
  assert.equal(registry.count("blob-get"), 2);
});

test("HEAD of a blob works where HEAD does not", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("a", BYTES);
  const client = startClient(t, registry.url);
  assert.equal((await client.headBlob("a", DIGEST)).size, BYTES.length);
  registry.on({ method: "HEAD", path: /blobs/ }, (_, response) => send(response, 405, {}));
  assert.equal((await client.headBlob("a", DIGEST)).size, BYTES.length);
  await assert.rejects(client.headBlob("a", sha256("absent")), withCode("BLOB_UNKNOWN"));
});
