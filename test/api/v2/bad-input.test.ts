import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OciClient, codeOf, contentOf } from "../../support/oci-client.ts";
import { closedWithin, openSocket, rawRequest } from "../../support/raw-http.ts";
import type { RawAnswer } from "../../support/raw-http.ts";
import { startRegistry } from "../../support/registry-server.ts";

const registry = await startRegistry({ after });
const client = new OciClient(registry.url);
const DIGEST = contentOf("any").digest;
await client.pushImage("bad/input", "v1");

/** Paths as they are written: URL parsers would tidy them up. */
function raw(method: string, target: string, headers = ""): Promise<RawAnswer> {
  return rawRequest([`${method} ${target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n${headers}Connection: close\r\n\r\n`], {
    port: registry.port,
  });
}

function codeIn(answer: RawAnswer): string {
  return (JSON.parse(answer.body) as { errors: { code: string }[] }).errors[0]?.code ?? "";
}

test("names that are not names are NAME_INVALID for every operation", async () => {
  const names = [
    "..",
    "../..",
    "a/../../etc",
    "A",
    "bad/Input",
    "bad%2Finput",
    "bad%2finput",
    "%2e%2e%2f%2e%2e",
    "a%00b",
    "a%",
    "a/".repeat(150) + "b",
    "x".repeat(300),
  ];
  for (const name of names) {
    for (const [method, tail] of [
      ["GET", "manifests/v1"],
      ["PUT", "manifests/v1"],
      ["DELETE", "manifests/v1"],
      ["HEAD", `blobs/${DIGEST}`],
      ["GET", `blobs/${DIGEST}`],
      ["POST", "blobs/uploads/"],
      ["PATCH", "blobs/uploads/x"],
      ["GET", "tags/list"],
      ["GET", `referrers/${DIGEST}`],
    ] as const) {
      const answer = await raw(method, `/v2/${name}/${tail}`);
      assert.equal(answer.status, 400, `${method} ${name}`);
      if (method !== "HEAD") assert.equal(codeIn(answer), "NAME_INVALID");
    }
  }
});

test("an encoded name is decoded once", async () => {
  assert.equal((await raw("GET", "/v2/%62ad/inpu%74/manifests/v1")).status, 200);
  assert.equal((await raw("GET", "/v2/%2562ad/input/manifests/v1")).status, 400);
  assert.equal((await raw("GET", "/v2/bad/input/manifests/%76%31")).status, 200);
  assert.equal((await raw("GET", "/v2/bad/input/manifests/%2576%2531")).status, 404);
});

test("a path outside of the API, a target without end, a query that cannot be read", async () => {
  assert.equal((await raw("GET", "/v2/bad/input")).status, 404);
  assert.equal((await raw("GET", `/v2/bad/input/tags/list?${"x".repeat(20_000)}`)).status, 414);
  assert.equal((await raw("GET", "/v2/bad/input/tags/list?n=%zz")).status, 400);
  assert.equal((await raw("GET", "/v2/bad/input/tags/list?last=%ff")).status, 200);
});

test("ten thousand headers are 431", async () => {
  const answer = await raw("GET", "/v2/bad/input/manifests/v1", "a:\r\n".repeat(10_000));
  assert.equal(answer.status, 431);
});

test("a chunked body that is malformed or cut ends its connection and nothing else", async () => {
  const location = await client.location("bad/input");
  const head = `PATCH ${location} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`;
  for (const body of ["zz\r\nnonsense\r\n", "5\r\nhelloXX", "ffffffffffffffffff\r\n", "5\r\nhel"]) {
    const socket = await openSocket(registry.port);
    socket.write(head + body);
    setTimeout(() => socket.end(), 50);
    assert.ok(await closedWithin(socket, 5_000), body);
  }
  assert.ok([204, 404].includes((await client.request(location)).status));
});

test("both a length and a transfer coding, or two lengths, are refused", async () => {
  const location = await client.location("bad/input");
  for (const headers of [
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\nContent-Length: 50\r\n",
    "Content-Length: -5\r\n",
    "Content-Length: five\r\n",
  ]) {
    const answer = await rawRequest([`PATCH ${location} HTTP/1.1\r\nHost: x\r\n${headers}\r\n0\r\n\r\n`], { port: registry.port });
    assert.equal(answer.status, 400, headers);
  }
});

test("headers of requests never end up as headers of answers", async () => {
  const answer = await raw("GET", "/v2/bad/input/manifests/v1", "X-Request-Id: evil\tid\r\n");
  assert.equal(answer.status, 200);
  assert.doesNotMatch(answer.head, /evil/);
  assert.match((await raw("GET", "/v2/bad/input/manifests/v1", "X-Request-Id: good-id.1\r\n")).head, /x-request-id: good-id\.1/i);
});

test("unknown methods and upgrades do no harm", async () => {
  assert.equal((await raw("PURGE", "/v2/bad/input/manifests/v1")).status, 405);
  assert.equal((await raw("CONNECT", "example.test:443")).status, 0);
  const upgrade = await raw("GET", "/v2/bad/input/manifests/v1", "Upgrade: websocket\r\nConnection: Upgrade\r\n");
  assert.equal(upgrade.status, 200);
});

test("the process has survived all of it", async () => {
  assert.equal((await client.request("/v2/bad/input/manifests/v1")).status, 200);
  assert.equal(await codeOf(await client.request("/v2/bad/input/manifests/none")), "MANIFEST_UNKNOWN");
  const deadline = Date.now() + 5_000;
  while (registry.server.stats().active > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(registry.server.stats().active, 0);
});
