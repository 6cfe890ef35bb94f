/** Catalog listing, and calls to the API of a product: credential from the first call on, bounds, redirects that lose it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { send } from "../support/fake-answers.ts";
import { endpointFor, startClient, startPool, withCode } from "./support.ts";

const CREDENTIAL = { type: "basic", username: "robot", password: "a-long-secret" } as const;
const BASIC = `Basic ${Buffer.from("robot:a-long-secret").toString("base64")}`;
const JSON_TYPE = { "content-type": "application/json" };

test("the catalog is read page by page, from a cursor that can be kept", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /^\/v2\/_catalog\?n=2$/ }, (_request, response) => {
    const link = { link: '<http://elsewhere/v2/_catalog?last=b&n=2>; rel="next"' };
    send(response, 200, { ...JSON_TYPE, ...link }, JSON.stringify({ repositories: ["a", "b", "../up"] }));
  });
  registry.on({ path: /^\/v2\/_catalog\?last=b/ }, (_request, response) =>
    send(response, 200, JSON_TYPE, JSON.stringify({ repositories: ["c"] })),
  );
  const client = startClient(t, registry.url);
  const first = await client.listCatalog({ n: 2 });
  assert.deepEqual(first.repositories, ["a", "b"], "a name that is a path elsewhere is left out");
  const second = await client.listCatalog({ cursor: first.next ?? "" });
  assert.deepEqual(second, { repositories: ["c"], next: null });
  await assert.rejects(client.listCatalog({ cursor: "/v2/other" }), withCode("BAD_REQUEST"));
});

test("a registry without a catalog says UNSUPPORTED", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: "/v2/_catalog" }, (_request, response) => send(response, 404, {}, ""));
  await assert.rejects(startClient(t, registry.url).listCatalog(), withCode("UNSUPPORTED"));
});

test("an API call brings its credential unasked, sends and reads JSON, and tells the next page", async (t) => {
  const registry = await startFakeRegistry(t);
  const bodies: string[] = [];
  registry.on({ path: /^\/api\// }, (request, response, body) => {
    assert.equal(request.headers.authorization, BASIC);
    bodies.push(body.toString("utf8"));
    send(response, 201, { ...JSON_TYPE, link: '</api/things?page=2>; rel="next"' }, '{"id":7}');
  });
  const client = startClient(t, registry.url, { endpoint: { credential: CREDENTIAL } });
  const answer = await client.api({ method: "POST", path: "/api/things", body: { name: "x" } });
  assert.deepEqual([answer.status, answer.json, answer.next], [201, { id: 7 }, "/api/things?page=2"]);
  assert.deepEqual(bodies, ['{"name":"x"}']);
});

test("a refused credential is not tried again at once, an absent thing is NOT_FOUND, and wanted statuses come back", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: "/api/gone" }, (_request, response) => send(response, 404, {}, ""));
  registry.on({ path: "/api/taken" }, (_request, response) => send(response, 409, JSON_TYPE, "{}"));
  registry.on({ path: "/api/closed" }, (_request, response) => send(response, 401, { "www-authenticate": 'Basic realm="x"' }, ""));
  const client = startClient(t, registry.url, { endpoint: { credential: CREDENTIAL } });
  await assert.rejects(client.api({ method: "GET", path: "/api/gone" }), withCode("NOT_FOUND"));
  assert.equal((await client.api({ method: "POST", path: "/api/taken", body: {}, pass: [409] })).status, 409);
  await assert.rejects(client.api({ method: "GET", path: "/api/closed" }), withCode("UPSTREAM_REFUSED"));
  registry.resetCalls();
  await assert.rejects(client.api({ method: "GET", path: "/api/closed" }), withCode("UPSTREAM_REFUSED"));
  assert.equal(registry.calls.length, 0, "the second call was not even sent");
});

test("a redirect to another origin loses the credential", async (t) => {
  const registry = await startFakeRegistry(t);
  const other = await startFakeRegistry(t);
  registry.on({ path: "/api/moved" }, (_request, response) => send(response, 302, { location: `${other.url}/api/here` }, ""));
  other.on({ path: "/api/here" }, (_request, response) => send(response, 200, JSON_TYPE, "[]"));
  await startClient(t, registry.url, { endpoint: { credential: CREDENTIAL } }).api({ method: "GET", path: "/api/moved" });
  assert.equal(other.calls[0]?.headers.authorization, undefined);
});

test("the origin of the token service is told where the credential goes anyway", async (t) => {
  const registry = await startFakeRegistry(t, { auth: { type: "bearer", username: "robot", password: "a-long-secret" } });
  const pool = startPool(t);
  assert.equal(await pool.client(endpointFor(registry.url, { credential: CREDENTIAL })).tokenOrigin(), registry.url);
  const open = await startFakeRegistry(t);
  assert.equal(await pool.client(endpointFor(open.url)).tokenOrigin(), null);
});

test("without a reserve all slots are for whoever comes", async (t) => {
  const registry = await startFakeRegistry(t);
  let most = 0;
  let running = 0;
  registry.on({ path: /manifests/ }, async (_request, response) => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setTimeout(resolve, 30));
    running -= 1;
    send(response, 200, { "content-type": "application/json", "docker-content-digest": `sha256:${"a".repeat(64)}` });
  });
  const client = startClient(t, registry.url, { pool: { metaConcurrency: { initial: 8, ceiling: 8 }, reserve: 0 } });
  await Promise.all(Array.from({ length: 24 }, (_, index) => client.headManifest("team/app", `v${index}`, { priority: "replication" })));
  assert.equal(most, 8);
});
