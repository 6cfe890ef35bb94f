import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { truncate } from "node:fs/promises";
import { after, test } from "node:test";
import { OciClient, bytesOf, codeOf, contentOf, randomContent } from "../../support/oci-client.ts";
import type { Content } from "../../support/oci-client.ts";
import { closedWithin, openSocket, rawRequest } from "../../support/raw-http.ts";
import { startRegistry } from "../../support/registry-server.ts";

const registry = await startRegistry({ after });
const client = new OciClient(registry.url);
const NAME = "blobs/repo";

/** Above what is kept in memory. */
const LARGE = 1_500_000;

async function pushed(size: number, name = NAME): Promise<Content> {
  const content = randomContent(size);
  await client.pushBlob(name, content);
  return content;
}

for (const size of [2_048, LARGE]) {
  test(`a blob of ${size} bytes is read whole, with exact headers`, async () => {
    const content = await pushed(size);
    const path = `/v2/${NAME}/blobs/${content.digest}`;
    for (const method of ["GET", "HEAD", "GET", "HEAD"]) {
      const answer = await client.request(path, { method, headers: { "accept-encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5" } });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get("content-type"), "application/octet-stream");
      assert.equal(answer.headers.get("content-length"), String(size));
      assert.equal(answer.headers.get("docker-content-digest"), content.digest);
      assert.equal(answer.headers.get("etag"), `"${content.digest}"`);
      assert.equal(answer.headers.get("accept-ranges"), "bytes");
      assert.equal(answer.headers.get("docker-distribution-api-version"), "registry/2.0");
      assert.equal(answer.headers.get("content-encoding"), null);
      assert.deepEqual(await bytesOf(answer), method === "GET" ? content.bytes : Buffer.alloc(0));
    }
  });

  test(`parts of a blob of ${size} bytes`, async () => {
    const content = await pushed(size);
    const path = `/v2/${NAME}/blobs/${content.digest}`;
    const ranges: [string, number, number][] = [
      ["bytes=500-1499", 500, 1_499],
      ["bytes=500-", 500, size - 1],
      ["bytes=-500", size - 500, size - 1],
      ["bytes=0-", 0, size - 1],
      ["bytes=0-0", 0, 0],
      [`bytes=2000-${size * 3}`, 2_000, size - 1],
      [`bytes=-${size * 2}`, 0, size - 1],
    ];
    for (const [range, start, end] of ranges) {
      const answer = await client.request(path, { headers: { range } });
      assert.equal(answer.status, 206, range);
      assert.equal(answer.headers.get("content-range"), `bytes ${start}-${end}/${size}`);
      assert.equal(answer.headers.get("content-length"), String(end - start + 1));
      assert.deepEqual(await bytesOf(answer), content.bytes.subarray(start, end + 1));
    }
    for (const range of ["bytes=500-0", `bytes=${size}-`, `bytes=${size * 2}-${size * 4}`, "bytes=-0", "bytes=99999999999999999999-"]) {
      const answer = await client.request(path, { headers: { range } });
      assert.equal(answer.status, 416, range);
      assert.equal(answer.headers.get("content-range"), `bytes */${size}`);
      await codeOf(answer);
    }
    for (const range of [
      "bytes=0-1,5-6",
      "bytes=0-1, 4-5, 9-",
      "lines=1-2",
      "bytes=",
      "bytes=a-b",
      "nonsense",
      `bytes=${"0-1,".repeat(2_000)}0-1`,
    ]) {
      const answer = await client.request(path, { headers: { range } });
      assert.equal(answer.status, 200, range.slice(0, 40));
      assert.deepEqual(await bytesOf(answer), content.bytes);
    }
    const head = await client.request(path, { method: "HEAD", headers: { range: "bytes=0-1" } });
    assert.equal(head.status, 200);
    assert.equal(head.headers.get("content-length"), String(size));
    const other = await client.request(path, { headers: { range: "bytes=0-1", "if-range": '"something else"' } });
    assert.equal(other.status, 200);
    await other.arrayBuffer();
  });
}

test("a client that has the blob is told so", async () => {
  const content = await pushed(LARGE);
  const path = `/v2/${NAME}/blobs/${content.digest}`;
  for (const tag of [`"${content.digest}"`, `W/"${content.digest}"`, `"other", "${content.digest}"`, "*"]) {
    const answer = await client.request(path, { headers: { "if-none-match": tag } });
    assert.equal(answer.status, 304, tag);
    assert.equal(answer.headers.get("etag"), `"${content.digest}"`);
    assert.equal((await bytesOf(answer)).length, 0);
  }
  const answer = await client.request(path, { method: "HEAD", headers: { "if-none-match": '"other"' } });
  assert.equal(answer.status, 200);
});

test("the digest of the answer is the one that was asked for, whatever its algorithm", async () => {
  const content = randomContent(900, "sha512");
  await client.pushBlob(NAME, content);
  const answer = await client.request(`/v2/${NAME}/blobs/${content.digest}`);
  assert.equal(answer.headers.get("docker-content-digest"), content.digest);
  assert.deepEqual(await bytesOf(answer), content.bytes);
});

test("unknown blobs, unknown repositories and digests that are none have their codes", async () => {
  const content = await pushed(100);
  const unknown = contentOf("never pushed").digest;
  const cases: [string, number, string][] = [
    [`/v2/${NAME}/blobs/${unknown}`, 404, "BLOB_UNKNOWN"],
    [`/v2/blobs/other/blobs/${content.digest}`, 404, "BLOB_UNKNOWN"],
    [`/v2/nobody/other/blobs/${content.digest}`, 404, "NAME_UNKNOWN"],
    [`/v2/${NAME}/blobs/sha256:short`, 400, "DIGEST_INVALID"],
    [`/v2/${NAME}/blobs/md5:${"a".repeat(32)}`, 400, "DIGEST_INVALID"],
    [`/v2/${NAME}/blobs/latest`, 400, "DIGEST_INVALID"],
  ];
  for (const [path, status, code] of cases) {
    const answer = await client.request(path);
    assert.equal(answer.status, status, path);
    assert.equal(await codeOf(answer), code, path);
    const head = await client.request(path, { method: "HEAD" });
    assert.equal(head.status, status);
    assert.equal((await bytesOf(head)).length, 0);
  }
});

test("a deleted blob is gone from its repository only", async () => {
  const content = await pushed(700);
  await client.pushBlob("blobs/second", content);
  const path = `/v2/${NAME}/blobs/${content.digest}`;
  assert.equal((await client.request(path)).status, 200);
  assert.equal((await client.request(path, { method: "DELETE" })).status, 202);
  assert.equal((await client.request(path)).status, 404);
  assert.equal((await client.request(path, { method: "HEAD" })).status, 404);
  assert.equal((await client.request(path, { method: "DELETE" })).status, 404);
  assert.equal((await client.request(`/v2/blobs/second/blobs/${content.digest}`)).status, 200);
});

test("methods that a path does not have are 405 with those that it has", async () => {
  const content = await pushed(10);
  for (const [path, allow] of [
    [`/v2/${NAME}/blobs/${content.digest}`, "GET, HEAD, DELETE"],
    [`/v2/${NAME}/blobs/uploads/`, "POST"],
    [`/v2/${NAME}/tags/list`, "GET, HEAD"],
    ["/v2/", "GET, HEAD"],
  ] as const) {
    for (const method of ["OPTIONS", "PROPFIND"]) {
      const answer = await client.request(path, { method });
      assert.equal(answer.status, 405);
      assert.equal(answer.headers.get("allow"), allow);
      assert.equal(await codeOf(answer), "UNSUPPORTED");
    }
  }
});

function openFiles(): number {
  return readdirSync("/proc/self/fd").length;
}

test("transfers that clients give up leave no file open, and pipelined answers come in order", async () => {
  const content = await pushed(8_000_000);
  const get = `GET /v2/${NAME}/blobs/${content.digest} HTTP/1.1\r\nHost: x\r\n\r\n`;
  const before = openFiles();
  for (let turn = 0; turn < 30; turn += 1) {
    const socket = await openSocket(registry.port);
    socket.write(turn % 3 === 0 ? get + get + get : get);
    if (turn % 2 === 0) await new Promise((resolve) => socket.once("data", resolve));
    socket.destroy();
  }
  const deadline = Date.now() + 5_000;
  while ((openFiles() > before + 2 || registry.server.stats().active > 0) && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(registry.server.stats().active, 0);
  assert.ok(openFiles() <= before + 2, `${openFiles()} open files, ${before} before`);

  const small = contentOf("after");
  await client.pushBlob(NAME, small);
  const last = `GET /v2/${NAME}/blobs/${small.digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`;
  const socket = await openSocket(registry.port);
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.write(get + get + last);
  assert.ok(await closedWithin(socket, 10_000));
  const all = Buffer.concat(chunks);
  const first = all.indexOf("\r\n\r\n") + 4;
  assert.ok(all.subarray(first, first + content.bytes.length).equals(content.bytes));
  const second = all.indexOf("\r\n\r\n", first + content.bytes.length) + 4;
  assert.ok(all.subarray(second, second + content.bytes.length).equals(content.bytes));
  assert.ok(all.toString("latin1").endsWith("\r\n\r\nafter"));
});

test("a file that is shorter than its blob is an error before the head and a broken transfer after it", async () => {
  const content = await pushed(6_000_000);
  const path = registry.app.store.filePath(content.digest);
  assert.ok(path);
  const socket = await openSocket(registry.port);
  socket.pause();
  socket.write(`GET /v2/${NAME}/blobs/${content.digest} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await new Promise((resolve) => setTimeout(resolve, 200));
  await truncate(path, 10);
  let received = 0;
  socket.on("data", (chunk: Buffer) => {
    received += chunk.length;
  });
  socket.resume();
  // What the kernel took before the cut may be all of it; else the connection must break.
  const closed = await closedWithin(socket, 2_000);
  assert.ok(closed || received >= content.bytes.length);
  socket.destroy();
  const answer = await rawRequest([`GET /v2/${NAME}/blobs/${content.digest} HTTP/1.1\r\nHost: x\r\n\r\n`], { port: registry.port });
  assert.equal(answer.status, 503);
  assert.match(answer.head, /retry-after: \d+/i);
  const body = JSON.parse(answer.body) as { errors: { detail: { requestId: string } }[] };
  assert.equal(body.errors[0]?.detail.requestId, /x-request-id: (.*)/i.exec(answer.head)?.[1]);
});
