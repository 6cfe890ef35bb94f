/** The small rules, each by itself, as tables. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { AddressGuard } from "../../src/upstream/address-guard.ts";
import { parseChallenges } from "../../src/upstream/auth-challenge.ts";
import { Breaker } from "../../src/upstream/breaker.ts";
import { parseContentRange, parseUploadRange } from "../../src/upstream/content-range.ts";
import { credentialFromDocker } from "../../src/upstream/credentials.ts";
import { meansAbsent, parseBase } from "../../src/upstream/endpoint.ts";
import { parseNextLink } from "../../src/upstream/link-header.ts";
import { manifestMediaType } from "../../src/upstream/media-type.ts";
import { parseRateLimit, RateBudget } from "../../src/upstream/rate-limit.ts";
import { nextHop, resolveNamed } from "../../src/upstream/redirects.ts";
import { parseRetryAfter } from "../../src/upstream/retry-after.ts";
import { RetryBudget } from "../../src/upstream/retry-budget.ts";
import { StallWatchdog } from "../../src/upstream/stall-watchdog.ts";
import { endpointFor, withCode } from "./support.ts";

describe("challenges", () => {
  const cases: [string, string | string[], unknown][] = [
    [
      "quoted",
      'Bearer realm="https://a/token",service="s"',
      [{ scheme: "bearer", parameters: { realm: "https://a/token", service: "s" } }],
    ],
    [
      "unquoted and upper case",
      "BEARER Realm=https://a/t?x=1, SERVICE=s",
      [{ scheme: "bearer", parameters: { realm: "https://a/t?x=1", service: "s" } }],
    ],
    [
      "comma in quotes",
      'Bearer scope="repository:a:pull,push",realm="r"',
      [{ scheme: "bearer", parameters: { scope: "repository:a:pull,push", realm: "r" } }],
    ],
    ["escaped quote", 'Basic realm="a \\"b\\""', [{ scheme: "basic", parameters: { realm: 'a "b"' } }]],
    [
      "two in one header",
      'Negotiate, Basic realm="x"',
      [
        { scheme: "negotiate", parameters: {} },
        { scheme: "basic", parameters: { realm: "x" } },
      ],
    ],
    [
      "several headers",
      ['Basic realm="x"', "Bearer realm=y"],
      [
        { scheme: "basic", parameters: { realm: "x" } },
        { scheme: "bearer", parameters: { realm: "y" } },
      ],
    ],
    ["spaces around the sign", 'Bearer realm = "r" , service = s', [{ scheme: "bearer", parameters: { realm: "r", service: "s" } }]],
    ["nonsense", "=,,=", []],
    ["unfinished quote", 'Bearer realm="abc', [{ scheme: "bearer", parameters: { realm: "abc" } }]],
  ];
  for (const [title, header, expected] of cases) {
    test(`reads a challenge that is ${title}`, () => {
      assert.deepEqual(JSON.parse(JSON.stringify(parseChallenges(header))), expected);
    });
  }
});

test("finds the next link among several relations, with commas in its address", () => {
  assert.equal(parseNextLink('</v2/a/tags/list?last=x,y&n=2>; rel="next"'), "/v2/a/tags/list?last=x,y&n=2");
  assert.equal(parseNextLink('<a>; rel=prev, <b>; title="n, x"; rel="last next"'), "b");
  assert.equal(parseNextLink(["<a>; rel=first", "<c>; rel=next"]), "c");
  assert.equal(parseNextLink('<a>; rel="prev"'), null);
});

test("reads Retry-After as seconds and as a date, and nothing else", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  assert.equal(parseRetryAfter("7", now), 7000);
  assert.equal(parseRetryAfter("Thu, 01 Jan 2026 00:00:30 GMT", now), 30_000);
  assert.equal(parseRetryAfter("Wed, 31 Dec 2025 23:59:00 GMT", now), 0);
  for (const odd of ["-5", "soon", "", "1e9x"]) assert.equal(parseRetryAfter(odd, now), null, odd);
  assert.equal(parseRetryAfter(undefined, now), null);
});

test("keeps the last part of an announced budget for interactive pulls, and looks again after a while", () => {
  let now = 0;
  const budget = new RateBudget({ clock: { now: () => now } });
  const headers: Record<string, string> = { "ratelimit-limit": "100;w=21600", "ratelimit-remaining": "20;w=21600" };
  const seen = parseRateLimit((name) => headers[name]);
  assert.deepEqual(seen, { limit: 100, remaining: 20, windowSeconds: 21_600 });
  if (seen) budget.observe(seen);
  assert.ok(budget.waitFor(false) > 0);
  assert.equal(budget.waitFor(true), 0);
  now += 16 * 60_000;
  assert.equal(budget.waitFor(false), 0);
});

test("the breaker opens after strikes, lets one probe through, and reopens on the first failure after a probe that worked", () => {
  let now = 0;
  const breaker = new Breaker({ clock: { now: () => now }, threshold: 3, probeIntervalMs: 1000 });
  assert.equal(breaker.failure(), false);
  assert.equal(breaker.failure(), false);
  breaker.success();
  assert.equal(breaker.failure(2), false);
  assert.equal(breaker.failure(2), true);
  assert.equal(breaker.allowsCalls, false);
  assert.equal(breaker.beginProbe(), false);
  now += 1000;
  assert.equal(breaker.beginProbe(), true);
  assert.equal(breaker.state, "half-open");
  assert.equal(breaker.beginProbe(), false);
  breaker.endProbe(true);
  assert.equal(breaker.allowsCalls, true);
  assert.equal(breaker.failure(), true);
});

test("the retry budget runs out and comes back with calls", () => {
  const budget = new RetryBudget({ capacity: 2, perCall: 0.5 });
  assert.deepEqual([budget.take(), budget.take(), budget.take()], [true, true, false]);
  budget.called();
  budget.called();
  assert.equal(budget.take(), true);
});

test("the watchdog counts only the time that was spent waiting", () => {
  const watchdog = new StallWatchdog({ minBytesPerSecond: 1000, windowMs: 1000 });
  watchdog.waiting(0);
  watchdog.received(10);
  watchdog.paused(100);
  assert.equal(watchdog.stalled(60_000), false);
  watchdog.waiting(60_000);
  assert.equal(watchdog.stalled(60_950), true);
  watchdog.restart();
  watchdog.waiting(0);
  watchdog.received(5000);
  assert.equal(watchdog.stalled(2000), false);
  assert.equal(watchdog.stalled(3100), true);
});

test("reads ranges of answers and of uploads", () => {
  assert.deepEqual(parseContentRange("bytes 5-9/10"), { start: 5, end: 9, total: 10 });
  assert.deepEqual(parseContentRange("bytes 5-9/*"), { start: 5, end: 9, total: null });
  for (const odd of ["bytes 9-5/10", "bytes 0-10/10", "5-9/10", "bytes */10", undefined]) assert.equal(parseContentRange(odd), null);
  assert.equal(parseUploadRange("0-99"), 100);
  assert.equal(parseUploadRange("bytes=0-99"), 100);
  assert.equal(parseUploadRange("0-0"), 0);
  for (const odd of ["5-9", "x", "0--1"]) assert.equal(parseUploadRange(odd), null);
});

test("takes docker's credentials in docker's order", () => {
  const auth = Buffer.from("user:pa:ss").toString("base64");
  assert.deepEqual(credentialFromDocker({ auth, identitytoken: "i", registrytoken: "r" }), { type: "bearer", token: "r" });
  assert.deepEqual(credentialFromDocker({ auth, identitytoken: "i" }), { type: "identity", token: "i", username: "user" });
  assert.deepEqual(credentialFromDocker({ auth }), { type: "basic", username: "user", password: "pa:ss" });
  assert.deepEqual(credentialFromDocker({}), { type: "none" });
});

describe("addresses", () => {
  const guard = new AddressGuard();
  const table: [string, string][] = [
    ["8.8.8.8", "public"],
    ["127.0.0.1", "private"],
    ["10.1.2.3", "private"],
    ["172.31.255.255", "private"],
    ["172.32.0.1", "public"],
    ["100.64.0.1", "private"],
    ["0.0.0.0", "private"],
    ["169.254.169.254", "denied"],
    ["100.100.100.200", "denied"],
    ["::1", "private"],
    ["::", "private"],
    ["fd12::1", "private"],
    ["fe80::1%eth0", "denied"],
    ["fd00:ec2::254", "denied"],
    ["2606:4700::1111", "public"],
    ["::ffff:169.254.169.254", "denied"],
    ["::ffff:a9fe:a9fe", "denied"],
    ["::ffff:127.0.0.1", "private"],
    ["::127.0.0.1", "private"],
    ["64:ff9b::10.0.0.1", "private"],
    ["64:ff9b::a9fe:a9fe", "denied"],
    ["2002:a9fe:a9fe::1", "denied"],
    ["2002:7f00:1::", "private"],
    ["not an address", "denied"],
  ];
  for (const [address, expected] of table) test(`${address} is ${expected}`, () => assert.equal(guard.classify(address), expected));

  test("a public upstream's names reach public addresses only", () => {
    assert.equal(guard.allows("127.0.0.1", "operator"), true);
    assert.equal(guard.allows("127.0.0.1", "public"), false);
    assert.equal(guard.allows("169.254.169.254", "operator"), false);
    assert.equal(guard.allows("8.8.8.8", "public"), true);
  });

  test("a range that cannot be read is a configuration error", () => {
    assert.throws(() => new AddressGuard({ deny: ["10.0.0.0/8", "nonsense"] }), withCode("CONFIG_INVALID"));
  });
});

test("a redirect loses credentials with the origin, keeps Range, and never leads from https to http", () => {
  const from = {
    url: new URL("https://r.example/v2/a"),
    method: "GET" as const,
    headers: { Authorization: "x", cookie: "y", range: "bytes=1-" },
  };
  assert.deepEqual(nextHop(from, 307, "https://cdn.example/b").headers, { range: "bytes=1-" });
  assert.deepEqual(nextHop(from, 301, "/b").headers, from.headers);
  assert.deepEqual(nextHop(from, 308, "https://r.example:444/b").headers, { range: "bytes=1-" });
  assert.equal(nextHop(from, 302, "../b?x=%2F").url.href, "https://r.example/b?x=%2F");
  assert.throws(() => nextHop(from, 302, "http://r.example/b"), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  assert.throws(() => resolveNamed("file:///etc/passwd", from.url), withCode("UPSTREAM_INVALID"));
  assert.throws(() => resolveNamed("https://u:p@r.example/", from.url), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
});

test("tells what a manifest is when its type is generic, and refuses pages and error documents", () => {
  const json = (value: object): Buffer => Buffer.from(JSON.stringify(value));
  const index = "application/vnd.oci.image.index.v1+json";
  assert.equal(manifestMediaType("application/json; charset=utf-8", json({ mediaType: index, manifests: [] })), index);
  assert.equal(manifestMediaType("text/plain", json({ schemaVersion: 2, manifests: [] })), index);
  assert.equal(manifestMediaType(`${index}; charset=utf-8`, json({ manifests: [] })), index);
  assert.equal(manifestMediaType(undefined, json({ layers: [] })), "application/vnd.oci.image.manifest.v1+json");
  assert.equal(manifestMediaType("text/html", json({ layers: [] })), null);
  assert.equal(manifestMediaType(index, Buffer.from("<html>")), null);
  assert.equal(manifestMediaType(index, json({ mediaType: "application/vnd.oci.image.manifest.v1+json" })), null);
  assert.equal(manifestMediaType("application/json", json({ errors: [] })), null);
});

test("knows Docker Hub by all its names and refuses addresses with a password in them", () => {
  assert.equal(parseBase("docker.io").href, "https://registry-1.docker.io/");
  assert.equal(parseBase("https://hub.docker.com").hostname, "registry-1.docker.io");
  assert.equal(parseBase("http://r.example:5000/v2/").href, "http://r.example:5000/");
  assert.throws(() => parseBase("https://u:p@r.example"), withCode("CONFIG_INVALID"));
  assert.throws(() => parseBase("ftp://r.example"), withCode("CONFIG_INVALID"));
});

test("knows which hosts answer 401 or 403 for what is not there", () => {
  const endpoint = endpointFor("https://x");
  assert.equal(meansAbsent(endpoint, "registry-1.docker.io", 401), true);
  assert.equal(meansAbsent(endpoint, "ghcr.io", 403), true);
  assert.equal(meansAbsent(endpoint, "registry.internal", 401), false);
  assert.equal(meansAbsent({ ...endpoint, absentStatuses: [403] }, "registry.internal", 403), true);
});
