import assert from "node:assert/strict";
import { test } from "node:test";
import { cacheParts } from "../../../api/cache/cache-api.ts";
import { humanSize } from "../../../api/cache/cache.ts";
import { createLoginRouter } from "../../../api/cache/login.ts";
import { createPurgeRouter } from "../../../api/cache/purge.ts";
import type { PurgeServices } from "../../../api/cache/purge.ts";
import type { CacheApiServices } from "../../../api/cache/services.ts";
import { EMPTY_REGISTRY } from "../../../src/proxy/registry-store.ts";
import { FakeRegistry } from "../../support/fake-registry.ts";
import { loadOpenApi, routesOf } from "../../support/openapi.ts";
import { ADMIN, ADMIN_PASSWORD, basic, startRegistry } from "../../support/registry-server.ts";
import type { RegistryServer } from "../../support/registry-server.ts";
import { until } from "../../upstream/support.ts";

const API = "/api/v1";
const PASSWORD = "Harbor12345";

interface Answer {
  readonly status: number;
  // oxlint-disable-next-line typescript/no-explicit-any -- a test looks into whatever was answered
  readonly json: any;
}

type Ask = (path: string, authorization?: string) => Promise<Answer>;

const document = await loadOpenApi();

/** Every answer is compared with the public description. */
function asking(server: RegistryServer): Ask {
  return async (path, authorization = ADMIN) => {
    const answer = await fetch(`${server.url}${API}${path}`, { headers: { authorization } });
    const json = (await answer.json()) as unknown;
    const operation = document.operationOf("GET", `${API}${path.split("?")[0]}`);
    assert.ok(operation, path);
    assert.deepEqual(document.checkResponse(operation, answer.status, json), [], path);
    return { status: answer.status, json };
  };
}

async function pull(server: RegistryServer, name: string, tag: string): Promise<void> {
  const headers = { authorization: ADMIN };
  const answer = await fetch(`${server.url}/v2/${name}/manifests/${tag}`, { headers });
  assert.equal(answer.status, 200, `${name}:${tag}`);
  const manifest = (await answer.json()) as { config: { digest: string }; layers: { digest: string }[] };
  for (const { digest } of [manifest.config, ...manifest.layers]) {
    const blob = await fetch(`${server.url}/v2/${name}/blobs/${digest}`, { headers });
    assert.equal(blob.status, 200);
    await blob.arrayBuffer();
  }
  // A client may have its last byte before the blob is in its place, and the manifest before it is stored.
  await server.app.proxy.manifests.settled();
  await until(() => server.app.proxy.fills.active === 0, "all fills are done");
}

async function metric(server: RegistryServer, name: string): Promise<number | undefined> {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${name} `));
  return line === undefined ? undefined : Number(line.split(" ").at(-1));
}

async function addUser(server: RegistryServer, username: string): Promise<number> {
  const { auth } = server.app;
  const passwordHash = await auth.passwords.hash(PASSWORD);
  return (await auth.users.create({ username, passwordHash, email: `${username}@example.com`, realname: username, comment: "" })).id;
}

async function flush(server: RegistryServer): Promise<void> {
  await server.app.proxy.usage.flush();
  await server.app.traffic.flush();
}

/** Totals are remembered for some seconds. */
async function settledStats(server: RegistryServer, ask: Ask, entries: number): Promise<Answer["json"]> {
  for (const end = Date.now() + 15_000; ;) {
    await flush(server);
    const { json } = await ask("/cache/stats");
    if (json.entry_count === entries || Date.now() > end) return json;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

test("the view of the cache", async (t) => {
  const upstream = await new FakeRegistry().start();
  t.after(() => upstream.stop());
  const images = {
    web: upstream.putImage("team/web", "1", [Buffer.alloc(300_000, 1)]),
    api: upstream.putImage("team/api", "2", [Buffer.alloc(100_000, 2)]),
  };
  const server = await startRegistry(t, {
    roles: ["proxy", "api"],
    auth: "anonymous-pull",
    env: { SLIPWAY_PROXY_PREFETCH: "false", SLIPWAY_CACHE_MAX_GB: "2" },
  });
  const ask = asking(server);
  const { registries } = server.app.proxy;
  const registry = await registries.save({
    ...EMPTY_REGISTRY,
    name: "fake",
    url: upstream.url,
    description: "The fake one",
    routes: [{ pattern: "team/*", priority: 7 }],
  });
  const { projects } = server.app.catalog;
  await projects.create({ name: "open", public: true, ownerId: null, registryId: registry.id });
  const hidden = await projects.create({ name: "hidden", public: false, ownerId: null, registryId: registry.id });
  const alice = await addUser(server, "alice");
  const bob = basic("bob", PASSWORD);
  await addUser(server, "bob");
  await server.app.auth.members.create(hidden, alice, 3);

  await t.test("counts hits and misses, entries and bytes", async () => {
    assert.deepEqual((await ask("/cache/stats")).json, {
      total_size: 0,
      total_size_human: "0 B",
      entry_count: 0,
      manifest_count: 0,
      blob_count: 0,
      hit_count: 0,
      miss_count: 0,
      hit_rate: 0,
    });
    assert.equal(await metric(server, "harbor_cache_size_bytes"), 0);
    await pull(server, "open/team/web", "1");
    await pull(server, "open/team/web", "1");
    await pull(server, "hidden/team/api", "2");
    const stats = await settledStats(server, ask, 6);
    const rows = await server.app.database.query<{ bytes: number }>(
      "SELECT sum(b.size)::bigint AS bytes FROM cache_usage u JOIN blobs b ON b.digest = u.digest",
    );
    assert.deepEqual([stats.entry_count, stats.manifest_count, stats.blob_count, stats.total_size], [6, 2, 4, rows.rows[0]?.bytes]);
    assert.deepEqual([stats.hit_count, stats.miss_count, stats.hit_rate], [3, 6, 3 / 9]);
  });

  await t.test("gives the same numbers as metrics", async () => {
    const stats = (await ask("/cache/stats")).json;
    assert.equal(await metric(server, "harbor_cache_size_bytes"), stats.total_size);
    assert.equal(await metric(server, "harbor_cache_entries"), 6);
    assert.equal(await metric(server, "harbor_cache_max_size_bytes"), 2 * 2 ** 30);
    assert.equal(await metric(server, "harbor_cache_hits_total"), 3);
    assert.equal(await metric(server, "harbor_cache_misses_total"), 6);
    assert.ok(((await metric(server, "harbor_cache_requests_total")) ?? 0) > 9);
    assert.equal(await metric(server, "harbor_cache_errors_total"), 0);
    await fetch(`${server.url}/health`);
    assert.equal(await metric(server, "harbor_cache_health_checks_total"), 1);
    const host = new URL(upstream.url).host;
    assert.equal(await metric(server, `slipway_upstream_calls_total{host="${host}",kind="manifest-get",status="200"}`), 2);
    assert.equal(await metric(server, `slipway_upstream_breaker_open{host="${host}"}`), 0);
    assert.equal(await metric(server, 'slipway_proxy_requests_total{route="blob",cache="MISS"}'), 4);
    assert.equal(await metric(server, 'slipway_proxy_fills_total{outcome="completed"}'), 4);
    assert.ok(((await metric(server, 'slipway_proxy_upstream_bytes_total{reason="fill"}')) ?? 0) >= 400_000);
  });

  await t.test("lists entries by kind, repository, digest, order and page", async () => {
    const digests = async (query: string): Promise<string[]> =>
      (await ask(`/cache/entries${query}`)).json.entries.map((entry: { digest: string }) => entry.digest);
    const manifests = (await ask("/cache/entries?entry_type=manifest")).json;
    assert.deepEqual([manifests.total, manifests.offset, manifests.limit], [2, 0, 50]);
    const web = manifests.entries.find((entry: { digest: string }) => entry.digest === images.web);
    assert.deepEqual(
      [web.repository, web.reference, web.content_type, web.entry_type],
      ["open/team/web", "1", "application/vnd.oci.image.manifest.v1+json", "manifest"],
    );
    assert.deepEqual(await digests("?entry_type=manifest&repository=/API"), []);
    assert.deepEqual(await digests("?entry_type=manifest&repository=team/api"), [images.api]);
    assert.deepEqual(await digests(`?digest=${images.web.slice(0, 20)}`), [images.web]);
    assert.deepEqual(await digests(`?digest=${images.web.slice(7, 20)}`), [images.web]);
    assert.deepEqual(await digests("?digest=%25"), []);
    const sizes = (await ask("/cache/entries?sort_by=size&sort_order=asc")).json.entries.map((entry: { size: number }) => entry.size);
    assert.deepEqual(
      sizes,
      sizes.toSorted((a: number, b: number) => a - b),
    );
    const first = await digests("?sort_by=size&limit=4");
    const rest = await digests("?sort_by=size&limit=4&offset=4");
    assert.equal(new Set([...first, ...rest]).size, 6);
    const fallback = (await ask("/cache/entries?sort_by=nonsense&sort_order=nonsense&limit=1000")).json;
    assert.deepEqual([fallback.entries.length, fallback.limit], [6, 1000]);
    assert.equal((await ask("/cache/entries?limit=-1")).json.limit, 50);
    assert.equal((await ask("/cache/entries?limit=many")).status, 400);
    assert.equal((await ask("/cache/entries?entry_type=floppy")).status, 400);
    assert.equal((await ask("/cache/entries/top")).json.length, 6);
  });

  await t.test("shows to each caller what that caller may read", async () => {
    assert.deepEqual((await ask("/cache/repositories")).json.repositories, ["hidden/team/api", "open/team/web"]);
    assert.deepEqual((await ask("/cache/repositories", bob)).json.repositories, ["open/team/web"]);
    assert.deepEqual((await ask("/cache/repositories", basic("alice", PASSWORD))).json.repositories, ["hidden/team/api", "open/team/web"]);
    const seen = (await ask("/cache/entries", bob)).json;
    assert.equal(seen.total, 3);
    assert.ok(!JSON.stringify(seen).includes("hidden"));
    assert.equal((await ask("/cache/entries?repository=hidden", bob)).json.total, 0);
    assert.equal((await ask("/cache/entries/top", bob)).json.length, 3);
    for (const path of ["/cache/stats", "/cache/entries", "/cache/entries/top", "/cache/repositories", "/upstreams"]) {
      const refused = await ask(path, "");
      assert.deepEqual([refused.status, refused.json.errors[0]], [401, { code: "UNAUTHORIZED", message: "Unauthorized", detail: null }]);
    }
  });

  await t.test("accepts the token of its login, and refuses wrong passwords in its own envelope", async () => {
    const login = async (password: string): Promise<Answer> => {
      const answer = await fetch(`${server.url}${API}/auth/login`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ username: "admin", password }),
      });
      const json = (await answer.json()) as unknown;
      assert.deepEqual(document.checkResponse(`POST ${API}/auth/login`, answer.status, json), []);
      return { status: answer.status, json };
    };
    const { json, status } = await login(ADMIN_PASSWORD);
    assert.equal(status, 200);
    assert.equal((await ask("/cache/stats", `Bearer ${json.token}`)).status, 200);
    assert.equal((await ask("/upstreams", `Bearer ${json.token}`)).json.length, 1);
    const wrong = await login("wrong");
    assert.deepEqual([wrong.status, wrong.json.errors[0].code], [401, "UNAUTHORIZED"]);
  });

  await t.test("tells administrators of the upstreams, by name and by id", async () => {
    const { json } = await ask("/upstreams/fake");
    assert.deepEqual(
      [json.id, json.display_name, json.has_credentials, json.uses_multi_project],
      [registry.id, "The fake one", false, false],
    );
    assert.equal((await ask(`/upstreams/${registry.id}`)).json.name, "fake");
    assert.equal((await ask("/upstreams/nobody")).status, 404);
    assert.equal((await ask("/upstreams/fake", bob)).status, 403);
    assert.deepEqual(
      (await ask("/upstreams/fake/routes")).json.map((route: { pattern: string; priority: number }) => [route.pattern, route.priority]),
      [["team/*", 7]],
    );
    const stats = (await ask("/upstreams/fake/stats")).json;
    assert.ok(stats.requests >= 6);
    assert.equal(stats.errors, 0);
    assert.equal((await ask("/upstreams/fake/health")).json.healthy, true);
    await upstream.stop();
    const [health] = (await ask("/upstreams/health")).json;
    assert.deepEqual([health.healthy, health.upstream_id], [false, registry.id]);
    assert.ok(health.last_error.length > 0);
    assert.equal((await registries.find(registry.id))?.status, "unhealthy");
  });
});

test("hits and misses count for all processes and outlive them", async (t) => {
  const upstream = await new FakeRegistry().start();
  t.after(() => upstream.stop());
  upstream.putImage("app", "1");
  const one = await startRegistry(t, { roles: ["proxy", "api"], env: { SLIPWAY_PROXY_PREFETCH: "false" } });
  const other = await startRegistry(t, { roles: ["proxy", "api"], backing: one.backing, env: { SLIPWAY_PROXY_PREFETCH: "false" } });
  const registry = await one.app.proxy.registries.save({ ...EMPTY_REGISTRY, name: "fake", url: upstream.url });
  await one.app.catalog.projects.create({ name: "open", public: true, ownerId: null, registryId: registry.id });
  await pull(one, "open/app", "1");
  await pull(other, "open/app", "1");
  await Promise.all([flush(one), flush(other)]);
  for (const server of [one, other]) {
    const { hit_count: hits, miss_count: misses } = (await asking(server)("/cache/stats")).json;
    assert.deepEqual([hits, misses], [3, 3]);
  }
});

test("every route of the cache API is described, and nothing is described that has no route", () => {
  const services = {} as CacheApiServices;
  const purge = createPurgeRouter({} as PurgeServices);
  const routes = [createLoginRouter(services), ...cacheParts(services), purge].flatMap((router) => routesOf(router, API));
  assert.deepEqual(
    routes.toSorted(),
    document.operations().filter((operation) => operation.includes(` ${API}/`)),
  );
});

test("sizes are told for people", () => {
  assert.deepEqual([0, 1023, 1536, 10 * 2 ** 30].map(humanSize), ["0 B", "1023 B", "1.50 KB", "10.00 GB"]);
});
