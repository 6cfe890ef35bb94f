/** Tokens and credentials: who gets to see them, how often they are asked for, what a refusal means. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import type { FakeAuth } from "../support/fake-registry.ts";
import { fail, send } from "../support/fake-answers.ts";
import { endpointFor, readAll, startClient, startPool, withCode } from "./support.ts";

const BASIC = { type: "basic", username: "user", password: "correct horse" } as const;
const BEARER: FakeAuth = { ...BASIC, type: "bearer" };

test("gets a token for the smallest scope and brings it along from then on", async (t) => {
  const registry = await startFakeRegistry(t, { auth: BEARER });
  registry.putImage("team/app", "v1");
  const client = startClient(t, registry.url, { endpoint: { credential: BASIC } });
  await client.getManifest("team/app", "v1");
  await client.getManifest("team/app", "v1");
  assert.deepEqual([registry.count("token"), registry.count("manifest-get")], [1, 3]);
  const token = registry.calls.find((call) => call.kind === "token");
  assert.equal(new URL(token?.url ?? "", registry.url).searchParams.get("scope"), "repository:team/app:pull");
});

test("twenty callers at once share one token request", async (t) => {
  const registry = await startFakeRegistry(t, { auth: BEARER });
  registry.putImage("a", "v1");
  const pool = startPool(t);
  const client = pool.client(endpointFor(registry.url, { credential: BASIC }));
  await Promise.all(Array.from({ length: 20 }, () => client.getManifest("a", "v1")));
  assert.equal(registry.count("token"), 1);
  assert.ok(pool.stats().tokens.coalesced > 0);
});

test("a caller that goes away does not take the token from the others", async (t) => {
  const registry = await startFakeRegistry(t, { auth: BEARER });
  registry.putImage("a", "v1");
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  registry.on({ path: "/token", times: 1 }, async (_, response) => {
    await held;
    fail(response, 503, "LATER");
  });
  const client = startClient(t, registry.url, { endpoint: { credential: BASIC } });
  const controller = new AbortController();
  const leaving = assert.rejects(client.getManifest("a", "v1", { signal: controller.signal }), withCode("CANCELLED"));
  const staying = client.getManifest("a", "v1");
  setTimeout(() => controller.abort(), 50);
  await leaving;
  release();
  await assert.rejects(staying, withCode("UPSTREAM_UNAVAILABLE"));
});

test("a token that was revoked is renewed once and the call goes on", async (t) => {
  const registry = await startFakeRegistry(t, { auth: BEARER });
  registry.putImage("a", "v1");
  const client = startClient(t, registry.url, { endpoint: { credential: BASIC } });
  await client.getManifest("a", "v1");
  registry.revokeTokens();
  await client.getManifest("a", "v1");
  assert.equal(registry.count("token"), 2);
});

test("a registry that refuses every token is not asked for ever", async (t) => {
  const registry = await startFakeRegistry(t, { auth: BEARER });
  const challenge = { "www-authenticate": `Bearer realm="${registry.url}/token",service="fake"` };
  registry.on({ path: /manifests/ }, (_, response) => fail(response, 401, "UNAUTHORIZED", challenge));
  const client = startClient(t, registry.url, { endpoint: { credential: BASIC } });
  await assert.rejects(client.getManifest("a", "v1"), withCode("UPSTREAM_REFUSED"));
  assert.ok(registry.count("manifest-get") <= 2);
  assert.ok(registry.count("token") <= 2);
});

test("a wrong password is refused once and then not tried again for a while", async (t) => {
  for (const type of ["basic", "bearer"] as const) {
    const registry = await startFakeRegistry(t, { auth: { ...BASIC, type } });
    const wrong = { ...BASIC, password: "wrong" };
    const client = startClient(t, registry.url, { endpoint: { credential: wrong } });
    for (let round = 0; round < 4; round += 1) await assert.rejects(client.getManifest("a", `v${round}`), withCode("UPSTREAM_REFUSED"));
    const tries = registry.calls.filter((call) => call.headers.authorization?.startsWith("Basic "));
    assert.equal(tries.length, 1, type);
  }
});

test("the refusal of our credential is ours; where hosts hide what is absent it means absent", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /manifests/ }, (_, response) => fail(response, 403, "DENIED"));
  await assert.rejects(startClient(t, registry.url).getManifest("a", "v1"), withCode("UPSTREAM_REFUSED"));
  const hiding = startClient(t, registry.url, { endpoint: { absentStatuses: [401, 403] } });
  await assert.rejects(hiding.getManifest("a", "v1"), withCode("MANIFEST_UNKNOWN"));
});

test("a token service that refuses an anonymous scope means absent only where hosts hide it", async (t) => {
  const registry = await startFakeRegistry(t, { auth: { type: "bearer" } });
  registry.on({ path: "/token" }, (_, response) => fail(response, 403, "DENIED"));
  await assert.rejects(startClient(t, registry.url).getManifest("a", "v1"), withCode("UPSTREAM_REFUSED"));
  const hiding = startClient(t, registry.url, { endpoint: { absentStatuses: [401, 403] } });
  await assert.rejects(hiding.getManifest("a", "v1"), withCode("MANIFEST_UNKNOWN"));
});

test("an identity token is exchanged by POST, and by GET where POST is not known", async (t) => {
  const registry = await startFakeRegistry(t, { auth: { type: "bearer", refreshToken: "refresh-me" } });
  registry.putImage("a", "v1");
  const credential = { type: "identity", token: "refresh-me" } as const;
  await startClient(t, registry.url, { endpoint: { credential } }).getManifest("a", "v1");
  assert.equal(registry.count("token", "POST"), 1);
  registry.resetCalls();
  registry.on({ method: "POST", path: "/token" }, (_, response) => send(response, 405, {}));
  registry.auth = { type: "bearer", username: "<token>", password: "refresh-me" };
  await startClient(t, registry.url, { endpoint: { credential } }).getManifest("a", "v1");
  assert.deepEqual([registry.count("token", "POST"), registry.count("token", "GET")], [1, 1]);
});

test("takes access_token without a lifetime, and a lifetime that is a text", async (t) => {
  const registry = await startFakeRegistry(t, { auth: { type: "bearer" } });
  registry.on({ path: /manifests/ }, (request, response) => {
    if (request.headers.authorization === "Bearer abc") send(response, 200, {}, '{"schemaVersion":2,"layers":[]}');
    else fail(response, 401, "UNAUTHORIZED", { "www-authenticate": `BEARER Realm=${registry.url}/token` });
  });
  for (const document of [
    '{"access_token":"abc"}',
    '{"token":"abc","expires_in":"300"}',
    '{"token":"abc","expires_in":null,"issued_at":"nonsense"}',
  ]) {
    registry.on({ path: "/token", times: 1 }, (_, response) => send(response, 200, {}, document));
    await startClient(t, registry.url).getManifest("a", "v1");
  }
});

test("a token service in trouble is trouble, with its Retry-After", async (t) => {
  const registry = await startFakeRegistry(t, { auth: BEARER });
  registry.on({ path: "/token" }, (_, response) => fail(response, 429, "TOOMANYREQUESTS", { "retry-after": "9" }));
  const client = startClient(t, registry.url, { endpoint: { credential: BASIC } });
  for (let round = 0; round < 3; round += 1) {
    await assert.rejects(client.getManifest("a", "v1"), (error: { code?: string; retryAfterSeconds?: number }) => {
      assert.deepEqual([error.code, error.retryAfterSeconds], ["UPSTREAM_LIMITED", 9]);
      return true;
    });
  }
  assert.equal(registry.count("token"), 1);
});

test("a challenge from the place that a redirect leads to is never answered", async (t) => {
  const registry = await startFakeRegistry(t, { auth: { ...BASIC, type: "basic" } });
  const storage = await startFakeRegistry(t, { auth: { ...BASIC, type: "basic" } });
  const digest = registry.putBlob("a", Buffer.from("blob"));
  registry.on({ path: /blobs/ }, (request, response) => {
    if (request.headers.authorization) send(response, 307, { location: `${storage.url}/v2/a/blobs/${digest}` });
    else fail(response, 401, "UNAUTHORIZED", { "www-authenticate": "Basic realm=x" });
  });
  const client = startClient(t, registry.url, { endpoint: { credential: BASIC } });
  await assert.rejects(client.getBlob("a", digest), withCode("UPSTREAM_UNAVAILABLE"));
  assert.ok(storage.calls.length > 0);
  assert.ok(storage.calls.every((call) => call.headers.authorization === undefined));
});

test("a mirror listed before the registry does not see the registry's credential unless it is told to", async (t) => {
  const [mirror, registry] = [
    await startFakeRegistry(t, { auth: { ...BASIC, type: "basic" } }),
    await startFakeRegistry(t, { auth: { ...BASIC, type: "basic" } }),
  ];
  registry.putImage("a", "v1");
  const urls = [mirror.url, registry.url];
  const pool = startPool(t);
  await mirror.stop();
  const client = pool.client(endpointFor(urls, { credential: BASIC, credentialOrigins: [registry.url] }));
  assert.ok(!(await client.getManifest("a", "v1")).notModified);
  await assert.rejects(pool.client(endpointFor(urls, { credential: BASIC })).getManifest("a", "v1"), withCode("UPSTREAM_REFUSED"));
});

test("secrets are announced for redaction and appear in no error", async (t) => {
  const registry = await startFakeRegistry(t, { auth: BEARER });
  registry.putImage("a", "v1");
  const secrets: string[] = [];
  const client = startClient(t, registry.url, {
    endpoint: { credential: BASIC },
    pool: { onSecret: (value) => secrets.push(value), attempts: 1 },
  });
  await client.getManifest("a", "v1");
  const token = registry.calls.at(-1)?.headers.authorization?.replace("Bearer ", "") ?? "";
  assert.ok(secrets.includes(BASIC.password) && secrets.includes(token));
  registry.on({ path: /blobs/ }, (_, response) => send(response, 307, { location: "http://127.0.0.1:1/x?signature=very-secret-value" }));
  const failures: unknown[] = [];
  await client.getBlob("a", `sha256:${"0".repeat(64)}`).catch((error: unknown) => failures.push(error));
  registry.on({ path: /manifests/ }, (request, response) => fail(response, 418, `X ${request.headers.authorization}`));
  await client.getManifest("a", "v1").catch((error: unknown) => failures.push(error));
  assert.equal(failures.length, 2);
  for (const failure of failures) {
    const { message, detail } = failure as { message: string; detail: unknown };
    const text = message + JSON.stringify(detail);
    for (const secret of [...secrets, "very-secret-value"]) assert.ok(!text.includes(secret));
  }
});

test("a blob that is redirected to storage goes there without Authorization and with its Range", async (t) => {
  const registry = await startFakeRegistry(t, { auth: BEARER });
  const storage = await startFakeRegistry(t);
  const bytes = Buffer.from("0123456789");
  const digest = storage.putBlob("store", bytes);
  registry.putImage("a", "v1");
  for (const status of [301, 302, 303, 307, 308]) {
    registry.on({ path: /blobs/ }, async (request, response) => {
      if (request.headers.authorization) send(response, status, { location: `${storage.url}/v2/store/blobs/${digest}?sig=x` });
      else fail(response, 401, "UNAUTHORIZED", { "www-authenticate": `Bearer realm="${registry.url}/token"` });
    });
    const client = startClient(t, registry.url, { endpoint: { credential: BASIC } });
    const answer = await client.getBlob("a", digest, { range: { start: 3, end: 5 } });
    assert.equal((await readAll(answer.body)).toString(), "345", String(status));
  }
  assert.ok(storage.calls.every((call) => call.headers.authorization === undefined && call.headers.range === "bytes=3-5"));
});
