import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { IncomingMessage } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { createClientAddresses } from "../../api/http/client-address.ts";
import { conditionOf, matchesEntityTag } from "../../api/http/conditional.ts";
import { rawRequest } from "../support/raw-http.ts";

/** What the server makes of a request with these headers. */
async function seen<T>(headers: string, read: (req: IncomingMessage) => T): Promise<T> {
  const answers: T[] = [];
  const server = createServer((req, res) => {
    answers.push(read(req));
    res.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await rawRequest([`GET / HTTP/1.1\r\n${headers}Connection: close\r\n\r\n`], { port });
  server.close();
  await once(server, "close");
  return answers[0] as T;
}

const FORWARDED =
  "Host: inner:5001\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: registry.test\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.7\r\n";

test("forwarding headers count only from a trusted proxy", async () => {
  const trusting = createClientAddresses({ externalUrl: null, trustedProxies: ["127.0.0.0/8", "10.0.0.0/8"] });
  assert.equal(await seen(FORWARDED, trusting.externalUrl), "https://registry.test");
  assert.equal(await seen(FORWARDED, trusting.remoteAddress), "203.0.113.9");
  const wary = createClientAddresses({ externalUrl: null, trustedProxies: ["10.0.0.0/8"] });
  assert.equal(await seen(FORWARDED, wary.externalUrl), "http://inner:5001");
  assert.equal(await seen(FORWARDED, wary.remoteAddress), "127.0.0.1");
});

test("the nearest address that no trusted proxy has is the client's", async () => {
  const addresses = createClientAddresses({ externalUrl: null, trustedProxies: ["127.0.0.1"] });
  assert.equal(await seen("Host: x\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\n", addresses.remoteAddress), "2.2.2.2");
  assert.equal(await seen("Host: x\r\nX-Forwarded-For: nonsense\r\n", addresses.remoteAddress), "127.0.0.1");
  assert.equal(await seen("Host: x\r\n", addresses.remoteAddress), "127.0.0.1");
});

test("a configured address wins, and a Host that is none is not repeated", async () => {
  const fixed = createClientAddresses({ externalUrl: "https://registry.test/", trustedProxies: [] });
  assert.equal(await seen(FORWARDED, fixed.externalUrl), "https://registry.test");
  const open = createClientAddresses({ externalUrl: null, trustedProxies: [] });
  for (const host of ['evil"host', "a b", "user@host", "host/path", ""]) {
    assert.match(await seen(`Host: ${host}\r\n`, open.externalUrl), /^http:\/\/127\.0\.0\.1:\d+$/, host);
  }
  assert.equal(await seen("Host: [::1]:5001\r\n", open.externalUrl), "http://[::1]:5001");
});

test("entity tags match weakly for reads and strongly for writes", () => {
  assert.ok(matchesEntityTag('"a", W/"b"', "b"));
  assert.ok(matchesEntityTag("*", "b"));
  assert.ok(!matchesEntityTag('"a"', "b"));
  assert.ok(!matchesEntityTag(undefined, "b"));
  assert.equal(conditionOf('"a"', "strong"), "a");
  assert.equal(conditionOf('W/"a"', "strong"), null);
  assert.equal(conditionOf('"a", "b"', "strong"), null);
  assert.equal(conditionOf("*", "strong"), "*");
  assert.equal(conditionOf(undefined, "weak"), undefined);
});
