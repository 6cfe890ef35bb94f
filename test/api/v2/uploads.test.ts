import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OciClient, bytesOf, codeOf, contentOf, locationOf, randomContent } from "../../support/oci-client.ts";
import type { Content } from "../../support/oci-client.ts";
import { openSocket, rawRequest } from "../../support/raw-http.ts";
import { startRegistry } from "../../support/registry-server.ts";

const registry = await startRegistry({ after });
const client = new OciClient(registry.url);
const NAME = "uploads/repo";

async function assertStored(created: Response, content: Content, name = NAME): Promise<void> {
  assert.equal(created.status, 201, await created.clone().text());
  assert.equal(created.headers.get("docker-content-digest"), content.digest);
  assert.equal(locationOf(created), `/v2/${name}/blobs/${content.digest}`);
  const got = await client.request(locationOf(created));
  assert.equal(got.status, 200);
  assert.deepEqual(await bytesOf(got), content.bytes);
}

function assertProgress(answer: Response, status: number, last: number): string {
  assert.equal(answer.status, status);
  assert.equal(answer.headers.get("range"), `0-${last}`);
  const location = locationOf(answer);
  assert.equal(location, `/v2/${NAME}/blobs/uploads/${answer.headers.get("docker-upload-uuid")}`);
  return location;
}

for (const algorithm of ["sha256", "sha512"] as const) {
  test(`a ${algorithm} blob is pushed in one request`, async () => {
    const content = randomContent(1_000, algorithm);
    const created = await client.request(`/v2/${NAME}/blobs/uploads/?digest=${content.digest}`, {
      method: "POST",
      body: new Uint8Array(content.bytes),
    });
    await assertStored(created, content);
  });

  test(`a ${algorithm} blob is pushed by POST and PUT`, async () => {
    const content = randomContent(1_000, algorithm);
    await assertStored(await client.finish(await client.location(NAME), content.digest, content.bytes), content);
  });

  test(`a ${algorithm} blob is pushed in chunks, the last one with the PUT`, async () => {
    const content = randomContent(3_000, algorithm);
    let location = await client.location(NAME, `?digest-algorithm=${algorithm}`);
    location = assertProgress(await client.patch(location, content.bytes.subarray(0, 1_200), { "content-range": "0-1199" }), 202, 1_199);
    location = assertProgress(
      await client.patch(location, content.bytes.subarray(1_200, 2_000), { "content-range": "1200-1999" }),
      202,
      1_999,
    );
    assertProgress(await client.request(location), 204, 1_999);
    const created = await client.finish(location, content.digest, content.bytes.subarray(2_000), { "content-range": "2000-2999" });
    await assertStored(created, content);
    assert.equal(await codeOf(await client.request(location)), "BLOB_UPLOAD_UNKNOWN");
  });

  test(`an empty ${algorithm} blob is a blob`, async () => {
    const content = contentOf("", algorithm);
    await assertStored(await client.finish(await client.location(NAME), content.digest), content);
    const single = await client.request(`/v2/${NAME}/blobs/uploads/?digest=${content.digest}`, { method: "POST" });
    await assertStored(single, content);
  });

  for (const style of ["post", "put", "patch"] as const) {
    test(`content of another ${algorithm} digest is refused (${style})`, async () => {
      const content = randomContent(500, algorithm);
      const wrong = randomContent(500, algorithm).digest;
      let answer: Response;
      if (style === "post") {
        const init = { method: "POST", body: new Uint8Array(content.bytes) };
        answer = await client.request(`/v2/${NAME}/blobs/uploads/?digest=${wrong}`, init);
      } else if (style === "put") {
        answer = await client.finish(await client.location(NAME), wrong, content.bytes);
      } else {
        const location = locationOf(await client.patch(await client.location(NAME), content.bytes));
        answer = await client.finish(location, wrong);
      }
      assert.equal(answer.status, 400);
      assert.equal(await codeOf(answer), "DIGEST_INVALID");
      assert.equal((await client.request(`/v2/${NAME}/blobs/${wrong}`)).status, 404);
    });
  }
}

test("a stream of unknown length is appended", async () => {
  const content = randomContent(200_000);
  const location = await client.location(NAME);
  const stream = new ReadableStream({
    start(controller) {
      for (let start = 0; start < content.bytes.length; start += 10_000) controller.enqueue(content.bytes.subarray(start, start + 10_000));
      controller.close();
    },
  });
  const answer = await client.request(location, { method: "PATCH", body: stream, duplex: "half" });
  const next = assertProgress(answer, 202, 199_999);
  await assertStored(await client.finish(next, content.digest), content);
});

test("a chunk out of order is 416, tells where the upload stands, and the upload goes on", async () => {
  const content = randomContent(2_000);
  const location = await client.location(NAME);
  assert.equal((await client.patch(location, content.bytes.subarray(0, 100), { "content-range": "500-599" })).status, 416);
  assert.equal((await client.request(location)).status, 204);
  await client.patch(location, content.bytes.subarray(0, 1_000), { "content-range": "0-999" });
  const refused = await client.patch(location, content.bytes.subarray(1_500), { "content-range": "1500-1999" });
  assertProgress(refused, 416, 999);
  assert.equal(await codeOf(refused), "BLOB_UPLOAD_INVALID");
  const refusedEnd = await client.finish(location, content.digest, content.bytes.subarray(1_500), { "content-range": "1500-1999" });
  assert.equal(refusedEnd.status, 416);
  assertProgress(await client.request(location), 204, 999);
  const created = await client.finish(location, content.digest, content.bytes.subarray(1_000), { "content-range": "1000-1999" });
  await assertStored(created, content);
});

test("a cancelled upload is unknown", async () => {
  const location = await client.location(NAME);
  await client.patch(location, Buffer.from("some"));
  assert.equal((await client.request(location, { method: "DELETE" })).status, 204);
  for (const method of ["GET", "DELETE", "PATCH"]) {
    const answer = await client.request(location, { method });
    assert.equal(answer.status, 404);
    assert.equal(await codeOf(answer), "BLOB_UPLOAD_UNKNOWN");
  }
  assert.equal((await client.finish(location, contentOf("some").digest)).status, 404);
});

test("an upload belongs to its repository", async () => {
  const location = await client.location(NAME);
  const elsewhere = location.replace(NAME, "uploads/other");
  for (const method of ["GET", "PATCH", "DELETE"]) assert.equal((await client.request(elsewhere, { method })).status, 404);
  assert.equal((await client.request(location)).status, 204);
});

test("a mount links what another repository holds, with and without its name", async () => {
  const content = randomContent(300);
  await client.pushBlob("uploads/source", content);
  for (const [name, query] of [
    ["uploads/mounted1", `?mount=${content.digest}&from=uploads%2Fsource`],
    ["uploads/mounted2", `?mount=${content.digest}`],
  ] as const) {
    assert.equal((await client.request(`/v2/${name}/blobs/${content.digest}`)).status, 404);
    await assertStored(await client.start(name, query), content, name);
  }
});

test("a mount of what cannot be found begins an upload", async () => {
  const nowhere = randomContent(10).digest;
  const held = randomContent(300);
  await client.pushBlob("uploads/source", held);
  const queries = [
    `?mount=${nowhere}&from=uploads/source`,
    `?mount=${nowhere}`,
    `?mount=${held.digest}&from=uploads/empty`,
    `?mount=${held.digest}&from=no/such/repository`,
    `?mount=${held.digest}&from=..%2Fetc`,
  ];
  for (const query of queries) {
    const answer = await client.start(NAME, query);
    assert.equal(answer.status, 202, query);
    assert.equal((await client.request(locationOf(answer))).status, 204);
  }
});

test("digests and algorithms that are none are DIGEST_INVALID", async () => {
  const location = await client.location(NAME);
  const bad = [
    "sha256:short",
    `sha256:${"A".repeat(64)}`,
    `md5:${"a".repeat(32)}`,
    "nonsense",
    `sha256:${"a".repeat(65)}`,
    `sha512:${"a".repeat(64)}`,
    "",
  ];
  for (const digest of bad) {
    for (const answer of [
      await client.start(NAME, `?digest=${encodeURIComponent(digest)}`),
      await client.start(NAME, `?mount=${encodeURIComponent(digest)}`),
      await client.finish(location, digest),
    ]) {
      assert.equal(answer.status, 400, digest);
      assert.equal(await codeOf(answer), "DIGEST_INVALID");
    }
  }
  assert.equal(await codeOf(await client.start(NAME, "?digest-algorithm=md5")), "DIGEST_INVALID");
  assert.equal(await codeOf(await client.request(location, { method: "PUT" })), "DIGEST_INVALID");
});

test("a Content-Range that is none or does not fit the body is 400", async () => {
  const location = await client.location(NAME);
  for (const range of ["nonsense", "5-1", "0-", "-5", "0-99999999999999999999", "a-b"]) {
    const answer = await client.patch(location, Buffer.from("12345"), { "content-range": range });
    assert.equal(answer.status, 400, range);
    assert.equal(await codeOf(answer), "BLOB_UPLOAD_INVALID");
  }
  const unfit = await client.patch(location, Buffer.from("12345"), { "content-range": "0-9" });
  assert.equal(await codeOf(unfit), "SIZE_INVALID");
  assertProgress(await client.request(location), 204, 0);
});

test("ids that were never given are unknown", async () => {
  for (const id of ["x", "00000000-0000-0000-0000-000000000000", "%2e%2e%2f", "a".repeat(500), "%00"]) {
    const answer = await client.request(`/v2/${NAME}/blobs/uploads/${id}`);
    assert.ok([404, 400].includes(answer.status), id);
    assert.ok(["BLOB_UPLOAD_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN"].includes(await codeOf(answer)));
  }
});

test("a body that is cut keeps what came, and the upload goes on from there", async () => {
  const content = randomContent(100_000);
  const location = await client.location(NAME);
  const head = `PATCH ${location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n`;
  const socket = await openSocket(registry.port);
  socket.write(head);
  socket.write(content.bytes.subarray(0, 60_000));
  await new Promise((resolve) => setTimeout(resolve, 500));
  socket.destroy();
  let kept = 0;
  for (const deadline = Date.now() + 5_000; kept !== 60_000 && Date.now() < deadline;) {
    const answer = await client.request(location);
    kept = Number(answer.headers.get("range")?.slice(2)) + 1;
    if (kept !== 60_000) await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(kept, 60_000);
  const created = await client.finish(location, content.digest, content.bytes.subarray(60_000), { "content-range": "60000-99999" });
  await assertStored(created, content);
});

test("a body longer than declared ends at its length, and the rest is no request", async () => {
  const content = randomContent(1_000);
  const location = await client.location(NAME);
  const head = `PUT ${location}?digest=${content.digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n`;
  const answer = await rawRequest([head, content.bytes, "and more than that\r\n\r\n"], { port: registry.port, waitMs: 1_500 });
  assert.equal(answer.status, 201);
  const got = await client.request(`/v2/${NAME}/blobs/${content.digest}`);
  assert.deepEqual(await bytesOf(got), content.bytes);
});

test("a client that waits for 100 Continue is told no without sending its body", async () => {
  const head = `PUT /v2/${NAME}/blobs/uploads/unknown?digest=${contentOf("x").digest} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n`;
  const refused = await rawRequest([head], { port: registry.port, waitMs: 3_000 });
  assert.equal(refused.status, 404);
  assert.match(refused.head, /connection: close/i);
  const content = randomContent(10);
  const location = await client.location(NAME);
  const accepted = await rawRequest(
    [
      `PUT ${location}?digest=${content.digest} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\nConnection: close\r\n\r\n`,
      content.bytes,
    ],
    { port: registry.port, waitMs: 3_000 },
  );
  assert.match(accepted.text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 201 Created/);
});

test("a refusal reaches a client that is still sending a large body", async () => {
  const head = `PATCH /v2/${NAME}/blobs/uploads/unknown HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n`;
  const answer = await rawRequest([head, Buffer.alloc(3_000_000)], { port: registry.port, waitMs: 4_000 });
  assert.equal(answer.status, 404);
  assert.match(answer.body, /BLOB_UPLOAD_UNKNOWN/);
});

test("two chunks at once do not mix", async () => {
  const content = randomContent(400_000);
  const location = await client.location(NAME);
  const half = 200_000;
  const [first, second] = await Promise.all([
    client.patch(location, content.bytes.subarray(0, half), { "content-range": `0-${half - 1}` }),
    client.patch(location, content.bytes.subarray(0, half), { "content-range": `0-${half - 1}` }),
  ]);
  assert.deepEqual([first.status, second.status].filter((status) => status === 202).length, 1, `${first.status} ${second.status}`);
  const created = await client.finish(location, content.digest, content.bytes.subarray(half), { "content-range": `${half}-399999` });
  await assertStored(created, content);
});
