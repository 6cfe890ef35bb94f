import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OciClient, bytesOf, codeOf, locationOf, randomContent } from "../../support/oci-client.ts";
import { closedWithin, openSocket } from "../../support/raw-http.ts";
import { registryBacking, startRegistry } from "../../support/registry-server.ts";
import type { RegistryServer } from "../../support/registry-server.ts";
import { FaultProxy } from "../../support/fault-proxy.ts";
import { missingVersitygw, startVersitygw } from "../../support/versitygw.ts";

const skip = await missingVersitygw();
const LARGE = 12 * 1024 * 1024;
const CHUNK = 5 * 1024 * 1024;

async function startAll(): Promise<{ streaming: RegistryServer; redirecting: RegistryServer; faults: FaultProxy }> {
  const s3 = await startVersitygw({ after });
  const faults = new FaultProxy({ port: Number(new URL(s3.endpoint).port) });
  await faults.start();
  after(() => faults.stop());
  const backing = await registryBacking({ after });
  const env = {
    SLIPWAY_STORAGE: "s3",
    SLIPWAY_S3_BUCKET: s3.config.bucket,
    SLIPWAY_S3_ENDPOINT: `http://127.0.0.1:${faults.port}`,
    SLIPWAY_S3_PATH_STYLE: "true",
    SLIPWAY_S3_ACCESS_KEY_ID: s3.config.accessKeyId ?? "",
    SLIPWAY_S3_SECRET_ACCESS_KEY: s3.config.secretAccessKey ?? "",
  };
  const streaming = await startRegistry({ after }, { backing, env });
  const redirecting = await startRegistry({ after }, { backing, env: { ...env, SLIPWAY_S3_REDIRECT: "true" } });
  return { streaming, redirecting, faults };
}

const parts = skip ? null : await startAll();
const NAME = "s3/repo";

test("a blob in S3 is pushed in chunks of the told size and streamed back, whole and in part", { skip }, async () => {
  assert.ok(parts);
  const client = new OciClient(parts.streaming.url);
  const content = randomContent(LARGE);
  const started = await client.start(NAME);
  assert.equal(started.headers.get("oci-chunk-min-length"), String(CHUNK));
  let location = locationOf(started);
  for (let start = 0; start < LARGE; start += CHUNK) {
    const end = Math.min(start + CHUNK, LARGE);
    const answer = await client.patch(location, content.bytes.subarray(start, end), { "content-range": `${start}-${end - 1}` });
    assert.equal(answer.status, 202, await answer.clone().text());
    location = locationOf(answer);
  }
  assert.equal((await client.finish(location, content.digest)).status, 201);
  const path = `/v2/${NAME}/blobs/${content.digest}`;
  const whole = await client.request(path);
  assert.equal(whole.headers.get("content-length"), String(LARGE));
  assert.deepEqual(await bytesOf(whole), content.bytes);
  const part = await client.request(path, { headers: { range: "bytes=7000000-7999999" } });
  assert.equal(part.status, 206);
  assert.deepEqual(await bytesOf(part), content.bytes.subarray(7_000_000, 8_000_000));
});

test("with redirects on, large blobs are fetched from S3 itself; HEAD and small blobs are answered here", { skip }, async () => {
  assert.ok(parts);
  const client = new OciClient(parts.redirecting.url);
  const [large, small] = [randomContent(LARGE), randomContent(1_000)];
  await client.pushBlob(NAME, large);
  await client.pushBlob(NAME, small);
  const path = `/v2/${NAME}/blobs/${large.digest}`;
  const answer = await client.request(path);
  assert.equal(answer.status, 307);
  assert.equal(answer.headers.get("cache-control"), "no-store");
  assert.equal(answer.headers.get("docker-content-digest"), large.digest);
  assert.deepEqual(await bytesOf(await fetch(locationOf(answer))), large.bytes);
  const part = await fetch(locationOf(answer), { headers: { range: "bytes=0-9" } });
  assert.equal(part.status, 206);
  await part.arrayBuffer();
  const head = await client.request(path, { method: "HEAD" });
  assert.equal(head.status, 200);
  assert.equal(head.headers.get("content-length"), String(LARGE));
  const direct = await client.request(`/v2/${NAME}/blobs/${small.digest}`);
  assert.equal(direct.status, 200);
  assert.deepEqual(await bytesOf(direct), small.bytes);
});

test("a slow reader of a stream from S3 costs no more memory than its buffers", { skip }, async () => {
  assert.ok(parts);
  const client = new OciClient(parts.streaming.url);
  // More than the kernel takes for the two connections on the way: a receive buffer may grow to 32 MB.
  const content = randomContent(96 * 1024 * 1024);
  await client.pushBlob(NAME, content);
  parts.faults.counts.bytesDown = 0;
  const socket = await openSocket(parts.streaming.port);
  socket.pause();
  socket.write(`GET /v2/${NAME}/blobs/${content.digest} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  assert.ok(parts.faults.counts.bytesDown > 0);
  assert.ok(parts.faults.counts.bytesDown < content.bytes.length, "the whole blob was taken from S3 for a client that does not read");
  socket.destroy();
});

test("S3 that fails in the middle of a blob breaks the transfer; nothing is ended as if it were whole", { skip }, async () => {
  assert.ok(parts);
  const client = new OciClient(parts.streaming.url);
  const content = randomContent(LARGE);
  await client.pushBlob(NAME, content);
  parts.faults.set({ cutAfterBytes: 3_000_000 });
  const socket = await openSocket(parts.streaming.port);
  let received = 0;
  socket.on("data", (chunk: Buffer) => {
    received += chunk.length;
  });
  socket.write(`GET /v2/${NAME}/blobs/${content.digest} HTTP/1.1\r\nHost: x\r\n\r\n`);
  const closed = await closedWithin(socket, 15_000, () => received >= content.bytes.length + 100);
  parts.faults.heal();
  assert.ok(closed || received >= content.bytes.length);
  socket.destroy();
  assert.deepEqual(await bytesOf(await client.request(`/v2/${NAME}/blobs/${content.digest}`)), content.bytes);
});

test("S3 that is away is 503 with Retry-After, and the push works once it is back", { skip }, async () => {
  assert.ok(parts);
  const client = new OciClient(parts.streaming.url);
  const content = randomContent(1_000);
  parts.faults.set({ refuse: true });
  parts.faults.dropConnections();
  const init = { method: "POST", body: new Uint8Array(content.bytes) };
  const refused = await client.request(`/v2/${NAME}/blobs/uploads/?digest=${content.digest}`, init);
  assert.equal(refused.status, 503);
  assert.match(refused.headers.get("retry-after") ?? "", /^\d+$/);
  assert.equal(await codeOf(refused), "TOOMANYREQUESTS");
  parts.faults.heal();
  await client.pushBlob(NAME, content);
});
