/** Where an upstream may lead us. 127.0.0.2 stands for the internet here, 127.0.0.1 for the inside. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Resolver } from "../../src/upstream/address-guard.ts";
import { send } from "../support/fake-answers.ts";
import { FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { LOOPBACK_ONE_PRIVATE, readAll, startClient, testCertificate, withCode } from "./support.ts";

const DIGEST = `sha256:${"0".repeat(64)}`;

/** Answers a name with one list after the other, staying with the last. */
function resolverOf(names: Record<string, string[][]>): { resolver: Resolver; asked: string[] } {
  const asked: string[] = [];
  const resolver: Resolver = (hostname, callback) => {
    asked.push(hostname);
    const lists = names[hostname];
    const list = lists && (lists.length > 1 ? lists.shift() : lists[0]);
    if (!list) callback(Object.assign(new Error("not found"), { code: "ENOTFOUND" }), []);
    else
      callback(
        null,
        list.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
      );
  };
  return { resolver, asked };
}

test("an operator may name a loopback registry, and it may lead to other inside addresses", async (t) => {
  const registry = await startFakeRegistry(t);
  const storage = await startFakeRegistry(t);
  const digest = storage.putBlob("s", Buffer.from("x"));
  registry.on({ path: /blobs/ }, (_, response) => send(response, 307, { location: `${storage.url}/v2/s/blobs/${digest}` }));
  const { body } = await startClient(t, registry.url).getBlob("a", digest);
  assert.equal((await readAll(body)).toString(), "x");
});

test("an address that is denied is refused even when an operator names it", async (t) => {
  const registry = await startFakeRegistry(t);
  const named = startClient(t, registry.url, { pool: { deny: ["127.0.0.0/8"] } });
  await assert.rejects(named.ping(), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  const { resolver } = resolverOf({ "metadata.test": [["169.254.169.254"]], "mapped.test": [["::ffff:169.254.169.254"]] });
  for (const host of ["169.254.169.254", "[fe80::1]", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "metadata.test", "mapped.test"]) {
    await assert.rejects(startClient(t, `http://${host}`, { pool: { resolver } }).ping(), withCode("UPSTREAM_FORBIDDEN_ADDRESS"), host);
  }
  assert.equal(registry.connections, 0);
});

test("a public upstream's redirect to an inside address is refused when it would connect", async (t) => {
  const registry = await startFakeRegistry(t, { host: "127.0.0.2" });
  const inside = await startFakeRegistry(t);
  const { resolver } = resolverOf({ "inside.test": [["127.0.0.1"]] });
  for (const host of ["127.0.0.1", "inside.test", "[::ffff:127.0.0.1]", "2130706433"]) {
    registry.on({ path: /blobs/ }, (_, response) => send(response, 307, { location: `http://${host}:${inside.port}/x` }));
    const client = startClient(t, registry.url, { pool: { privateRanges: LOOPBACK_ONE_PRIVATE, resolver } });
    await assert.rejects(client.getBlob("a", DIGEST), withCode("UPSTREAM_FORBIDDEN_ADDRESS"), host);
  }
  assert.equal(inside.connections, 0);
});

test("a name that answers with another address the second time gains nothing", async (t) => {
  const registry = await startFakeRegistry(t, { host: "127.0.0.2" });
  const inside = await startFakeRegistry(t);
  const { resolver, asked } = resolverOf({ "rebind.test": [["127.0.0.2"], ["127.0.0.1"]] });
  registry.on({ path: /blobs/ }, (_, response) => send(response, 307, { location: `http://rebind.test:${inside.port}/x` }));
  const client = startClient(t, registry.url, { pool: { privateRanges: LOOPBACK_ONE_PRIVATE, resolver, attempts: 1 } });
  await assert.rejects(client.getBlob("a", DIGEST), withCode("UPSTREAM_UNREACHABLE"));
  await assert.rejects(client.getBlob("a", DIGEST), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  assert.equal(inside.connections, 0);
  assert.deepEqual(asked, ["rebind.test", "rebind.test"]);
});

test("a public upstream does not become an inside one by changing its name's address", async (t) => {
  const registry = await startFakeRegistry(t, { host: "127.0.0.2", publicHost: "registry.test" });
  const inside = await startFakeRegistry(t);
  const twin = await new FakeRegistry({ host: "127.0.0.1" }).start(registry.port);
  t.after(() => twin.stop());
  const { resolver } = resolverOf({ "registry.test": [["127.0.0.2"], ["127.0.0.1"]] });
  for (const each of [registry, twin]) {
    each.on({ path: /blobs/ }, (_, response) => send(response, 307, { location: `${inside.url}/x` }));
  }
  const client = startClient(t, registry.url, { pool: { privateRanges: LOOPBACK_ONE_PRIVATE, resolver } });
  await assert.rejects(client.getBlob("a", DIGEST), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  registry.dropConnections();
  await assert.rejects(client.getBlob("a", DIGEST), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  assert.deepEqual([registry.calls.length, twin.calls.length, inside.connections], [1, 1, 0]);
});

test("a chain of redirects that was in public once does not come back inside", async (t) => {
  const registry = await startFakeRegistry(t);
  const outside = await startFakeRegistry(t, { host: "127.0.0.2" });
  const inside = await startFakeRegistry(t);
  registry.on({ path: /blobs/ }, (_, response) => send(response, 307, { location: `${outside.url}/hop` }));
  outside.on({ path: "/hop" }, (_, response) => send(response, 307, { location: `${inside.url}/x` }));
  const client = startClient(t, registry.url, { pool: { privateRanges: LOOPBACK_ONE_PRIVATE } });
  await assert.rejects(client.getBlob("a", DIGEST), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  assert.equal(inside.connections, 0);
});

test("a public upstream's token service may not be inside, and gets no password over http", async (t) => {
  const inside = await startFakeRegistry(t);
  const elsewhere = await startFakeRegistry(t, { host: "127.0.0.2" });
  const credential = { type: "basic", username: "u", password: "p" } as const;
  const pool = { privateRanges: LOOPBACK_ONE_PRIVATE };
  for (const [realm, endpoint] of [
    [inside.url, {}],
    [elsewhere.url, { credential }],
  ] as const) {
    const registry = await startFakeRegistry(t, { host: "127.0.0.2", auth: { type: "bearer", realm: `${realm}/token` } });
    await assert.rejects(startClient(t, registry.url, { pool, endpoint }).getManifest("a", "v1"), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  }
  assert.deepEqual([inside.connections, elsewhere.connections], [0, 0]);
  const registry = await startFakeRegistry(t, { host: "127.0.0.2" });
  elsewhere.auth = { ...credential, type: "bearer" };
  registry.auth = { type: "bearer", realm: `${elsewhere.url}/token` };
  const endpoint = { credential, tokenRealms: [elsewhere.url] };
  // Allowed by the operator: the token is asked for there, although this registry does not know it.
  await assert.rejects(startClient(t, registry.url, { pool, endpoint }).getManifest("a", "v1"), withCode("UPSTREAM_REFUSED"));
  assert.ok(elsewhere.count("token") > 0);
});

test("an upload Location of a public upstream may not lead inside", async (t) => {
  const registry = await startFakeRegistry(t, { host: "127.0.0.2" });
  const inside = await startFakeRegistry(t);
  registry.on({ method: "POST", path: /uploads/ }, (_, response) =>
    send(response, 202, { location: `${inside.url}/v2/a/blobs/uploads/1` }),
  );
  const client = startClient(t, registry.url, { pool: { privateRanges: LOOPBACK_ONE_PRIVATE } });
  const session = await client.startUpload("a");
  await assert.rejects(client.uploadChunk("a", session, { bytes: Buffer.from("x"), size: 1 }), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  // The same from a session that was kept, in a process that has not talked to this registry yet.
  const fresh = startClient(t, registry.url, { pool: { privateRanges: LOOPBACK_ONE_PRIVATE } });
  await assert.rejects(fresh.uploadStatus("a", session), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  assert.equal(inside.connections, 0);
});

test("https with an authority of its own works, is checked, and never leads to http", async (t) => {
  const tls = await testCertificate(t);
  const registry = await startFakeRegistry(t, { tls });
  const plain = await startFakeRegistry(t);
  const digest = registry.putBlob("a", Buffer.from("x"));
  await assert.rejects(startClient(t, registry.url, { pool: { attempts: 1 } }).ping(), withCode("UPSTREAM_UNREACHABLE"));
  const { body } = await startClient(t, registry.url, { endpoint: { insecure: true } }).getBlob("a", digest);
  assert.equal((await readAll(body)).toString(), "x");
  const client = startClient(t, registry.url, { endpoint: { ca: tls.cert } });
  assert.equal((await client.ping()).status, 200);
  registry.on({ path: /blobs/ }, (_, response) => send(response, 307, { location: `${plain.url}/x` }));
  await assert.rejects(client.getBlob("a", digest), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  registry.on({ path: /manifests/ }, (_, response) => send(response, 401, { "www-authenticate": `Bearer realm="${plain.url}/token"` }));
  await assert.rejects(client.getManifest("a", "v1"), withCode("UPSTREAM_FORBIDDEN_ADDRESS"));
  assert.equal(plain.connections, 0);
});

test("an http Location of the same host is read as https only where the operator says so", async (t) => {
  const tls = await testCertificate(t);
  const registry = await startFakeRegistry(t, { tls });
  registry.on({ method: "POST", path: /uploads/ }, (_, response) => {
    send(response, 202, { location: `http://127.0.0.1/v2/a/blobs/uploads/7?state=a%2Bb` });
  });
  await assert.rejects(
    startClient(t, registry.url, { endpoint: { ca: tls.cert } }).startUpload("a"),
    withCode("UPSTREAM_FORBIDDEN_ADDRESS"),
  );
  const lenient = startClient(t, registry.url, { endpoint: { ca: tls.cert, upgradeLocations: true } });
  assert.equal((await lenient.startUpload("a")).location, `${registry.url}/v2/a/blobs/uploads/7?state=a%2Bb`);
});

test("redirects in circles come to an end", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /blobs/ }, (request, response) => send(response, 302, { location: request.url ?? "" }));
  await assert.rejects(startClient(t, registry.url).getBlob("a", DIGEST), withCode("UPSTREAM_INVALID"));
  assert.ok(registry.calls.length < 10);
});
