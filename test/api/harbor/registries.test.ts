import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { createRegistriesRouter, createRegistryDirectory } from "../../../api/harbor/registries.ts";
import type { RegistriesServices } from "../../../api/harbor/registries.ts";
import { createEncryption } from "../../../src/auth/encryption.ts";
import { RegistryProbe } from "../../../src/proxy/registry-probe.ts";
import { RegistryStore } from "../../../src/proxy/registry-store.ts";
import { UpstreamPool } from "../../../src/upstream/pool.ts";
import { addUser, startApi, testAuth, TEST_ADDRESSES } from "../../support/auth.ts";
import type { TestApi } from "../../support/auth.ts";
import { FakeRegistry } from "../../support/fake-registry.ts";
import type { FakeRegistryOptions } from "../../support/fake-registry.ts";
import { loadOpenApi, routesOf } from "../../support/openapi.ts";
import { testDatabase } from "../../support/services.ts";
import { testBus } from "../../support/test-bus.ts";
import type { Database } from "../../../src/db/pool.ts";

const REGISTRIES = "/api/v2.0/registries";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

interface Started {
  readonly api: TestApi;
  readonly store: RegistryStore;
  readonly database: Database;
}

async function start(t: Cleanable): Promise<Started> {
  const { database } = await testDatabase(t);
  const bus = await testBus(t);
  const parts = testAuth(t, { database, bus });
  await addUser(parts, "root", { sysadmin: true });
  await addUser(parts, "alice");
  const store = new RegistryStore(database, createEncryption(randomBytes(32)), bus);
  const probe = new RegistryProbe({ openPool: () => new UpstreamPool({ attempts: 1 }), timeoutMs: 3_000 });
  const router = createRegistriesRouter({ auth: parts.auth, addresses: TEST_ADDRESSES, store, probe });
  const api = await startApi(t, parts, { registries: createRegistryDirectory(store), routers: [router] });
  return { api, store, database };
}

async function startUpstream(t: Cleanable, options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const upstream = await new FakeRegistry(options).start();
  t.after(() => upstream.stop());
  return upstream;
}

function idOf(location: string | null): number {
  return Number(location?.split("/").at(-1));
}

async function create(api: TestApi, body: object): Promise<number> {
  const created = await api.request("POST", REGISTRIES, { as: "root", body });
  assert.equal(created.status, 201, created.text);
  return idOf(created.headers.get("location"));
}

test("registries", async (t) => {
  const { api, store, database } = await start(t);
  const open = await startUpstream(t);
  const closed = await startUpstream(t, { auth: { type: "basic", username: "bot", password: "s3cret-of-bot" } });
  let id = 0;

  await t.test("are made, and read without their secret", async () => {
    const credential = { type: "basic", access_key: "bot", access_secret: "s3cret-of-bot" };
    const created = await api.request("POST", REGISTRIES, {
      as: "root",
      body: {
        name: "hub",
        type: "docker-registry",
        url: ` ${closed.url}/?x=1#y `,
        credential,
        routes: [{ pattern: "team-*/**" }],
        hosts: ["hub.example.com"],
      },
    });
    assert.equal(created.status, 201, created.text);
    assert.match(created.headers.get("location") ?? "", /^\/api\/v2\.0\/registries\/\d+$/);
    id = idOf(created.headers.get("location"));
    const { json } = await api.request("GET", `${REGISTRIES}/${id}`, { as: "root" });
    assert.deepEqual(json.credential, { type: "basic", access_key: "bot", access_secret: "*****" });
    assert.deepEqual(
      [json.url, json.status, json.routes, json.enabled],
      [closed.url, "healthy", [{ pattern: "team-*/**", priority: 100 }], true],
    );
    const row = await database.query<{ access_secret: string }>("SELECT access_secret FROM registries WHERE id = $1", [id]);
    assert.ok(!JSON.stringify(row.rows).includes("s3cret-of-bot"), "the secret is sealed in the database");
  });

  await t.test("are refused with Harbor's texts when fields are wrong", async () => {
    const post = async (body: object): Promise<string> => {
      const answer = await api.request("POST", REGISTRIES, {
        as: "root",
        body: { name: "x", url: open.url, type: "docker-registry", ...body },
      });
      return `${answer.status} ${answer.json?.errors[0].message}`;
    };
    assert.equal(await post({ name: "" }), "400 name cannot be empty");
    assert.equal(await post({ name: "x".repeat(65) }), "400 the max length of name is 64");
    assert.equal(await post({ url: " " }), "400 empty string");
    assert.equal(await post({ url: "ftp://host" }), "400 invalid HTTP scheme: ftp");
    assert.match(await post({ url: "http://user:pass@host" }), /^400 invalid URL/);
    assert.match(await post({ ca_certificate: "nonsense" }), /^400 invalid CA certificate/);
    assert.equal(await post({ type: "floppy" }), "400 unsupported registry type floppy");
    assert.match(await post({ routes: [{ pattern: "*".repeat(11) }] }), /^400 /);
    assert.match(await post({ name: "hub" }), /^409 registry hub already exists/);
  });

  await t.test("are asked before they are kept", async () => {
    const dead = await startUpstream(t);
    const { url } = dead;
    await dead.stop();
    const unreachable = await api.request("POST", REGISTRIES, {
      as: "root",
      body: { name: "dead", type: "docker-registry", url },
    });
    assert.equal(unreachable.status, 400);
    assert.match(unreachable.json.errors[0].message, /^the registry is unhealthy: /);
    const wrong = { type: "basic", access_key: "bot", access_secret: "wrong-secret" };
    const refused = await api.request("POST", REGISTRIES, {
      as: "root",
      body: { name: "wrong", type: "docker-registry", url: closed.url, credential: wrong },
    });
    assert.equal(refused.status, 400);
    assert.ok(!refused.text.includes("wrong-secret"));
    assert.equal(await store.findByName("dead"), null);
    await create(api, { name: "anonymous", type: "docker-registry", url: closed.url });
  });

  await t.test("change in what is given only, and lose the secret with the address", async () => {
    const put = (body: object): ReturnType<TestApi["request"]> => api.request("PUT", `${REGISTRIES}/${id}`, { as: "root", body });
    assert.equal((await put({ description: "the hub", access_secret: "*****" })).status, 200);
    const kept = await store.find(id);
    assert.deepEqual([kept?.description, kept?.accessSecret, kept?.routes.length], ["the hub", "s3cret-of-bot", 1]);
    assert.equal((await put({ access_secret: "wrong-secret" })).status, 400);
    assert.equal((await store.find(id))?.accessSecret, "s3cret-of-bot");
    assert.equal((await put({ url: open.url })).status, 200);
    assert.equal((await store.find(id))?.accessSecret, "");
    assert.equal((await api.request("PUT", `${REGISTRIES}/999999`, { as: "root", body: {} })).status, 404);
    assert.equal((await api.request("PUT", `${REGISTRIES}/0`, { as: "root", body: {} })).status, 404);
  });

  await t.test("keep both of two updates that meet", async () => {
    const answers = await Promise.all(
      [{ description: "one" }, { priority: 7 }, { hosts: ["other.example.com"] }, { is_default: true }].map((body) =>
        api.request("PUT", `${REGISTRIES}/${id}`, { as: "root", body }),
      ),
    );
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 200, 200],
    );
    const registry = await store.find(id);
    assert.deepEqual(
      [registry?.description, registry?.priority, registry?.hosts, registry?.isDefault],
      ["one", 7, ["other.example.com"], true],
    );
  });

  await t.test("can be switched off while they are down, and not on", async () => {
    const failing = await startUpstream(t);
    const failingId = await create(api, { name: "failing", type: "docker-registry", url: failing.url });
    await failing.stop();
    const put = (body: object): ReturnType<TestApi["request"]> => api.request("PUT", `${REGISTRIES}/${failingId}`, { as: "root", body });
    assert.equal((await put({ description: "down" })).status, 400);
    assert.equal((await put({ enabled: false })).status, 200);
    assert.equal((await put({ enabled: true })).status, 400);
    assert.equal((await store.find(failingId))?.enabled, false);
  });

  await t.test("are pinged by their id at their own address, or by fields", async () => {
    const ping = async (body: object, as = "root"): Promise<string> => {
      const answer = await api.request("POST", `${REGISTRIES}/ping`, { as, body });
      return `${answer.status}${answer.json ? ` ${answer.json.errors[0].message}` : ""}`;
    };
    assert.equal(await ping({ type: "docker-registry", url: open.url }), "200");
    assert.equal(await ping({}), "400 type or url cannot be empty");
    assert.equal(await ping({ id: 999_999 }), "404 registry 999999 not found");
    assert.equal(await ping({ id: 0 }), "200");
    const credentialed = await create(api, {
      name: "credentialed",
      type: "docker-registry",
      url: closed.url,
      credential: { access_key: "bot", access_secret: "s3cret-of-bot" },
    });
    const spy = await startUpstream(t);
    closed.resetCalls();
    assert.equal(await ping({ id: credentialed, url: spy.url, insecure: true }), "200");
    assert.equal(spy.calls.length, 0, "a saved credential never goes to an address of the request");
    assert.ok(closed.calls.length > 0);
    assert.match(await ping({ id: credentialed, access_secret: "other-secret" }), /^400 the registry is unhealthy/);
    assert.equal((await store.find(credentialed))?.status, "healthy", "another credential says nothing about the saved one");
    assert.equal(await ping({ type: "docker-registry", url: open.url }, "alice"), "403 alice");
  });

  await t.test("are listed by name, query and page", async () => {
    const names = async (query: string): Promise<string[]> => {
      const answer = await api.request("GET", `${REGISTRIES}${query}`, { as: "root" });
      assert.equal(answer.status, 200, answer.text);
      return (answer.json as { name: string }[]).map(({ name }) => name);
    };
    assert.deepEqual(await names(""), ["anonymous", "credentialed", "failing", "hub"]);
    assert.deepEqual(await names("?name=AIL"), ["failing"]);
    assert.deepEqual(
      await names("?q=name%3D~u&sort=-name"),
      ["hub", "credentialed", "anonymous"].filter((name) => name.includes("u")),
    );
    const page = await api.request("GET", `${REGISTRIES}?page=2&page_size=3`, { as: "root" });
    assert.equal(page.headers.get("x-total-count"), "4");
    assert.match(page.headers.get("link") ?? "", /rel="prev"/);
    assert.equal(page.json.length, 1);
  });

  await t.test("are for system administrators", async () => {
    for (const [method, path] of [
      ["GET", ""],
      ["POST", ""],
      ["GET", `/${id}`],
      ["PUT", `/${id}`],
      ["DELETE", `/${id}`],
      ["GET", `/${id}/info`],
    ] as const) {
      const body = method === "POST" || method === "PUT" ? { body: {} } : {};
      assert.equal((await api.request(method, `${REGISTRIES}${path}`, { as: "alice", ...body })).status, 403, `${method} ${path}`);
      assert.equal((await api.request(method, `${REGISTRIES}${path}`, body)).status, 401, `${method} ${path}`);
    }
  });

  await t.test("tell what they can, also of Slipway itself", async () => {
    const info = (await api.request("GET", `${REGISTRIES}/${id}/info`, { as: "root" })).json;
    assert.equal(info.type, "docker-registry");
    assert.ok(!info.supported_triggers.includes("event_based"));
    assert.ok((await api.request("GET", `${REGISTRIES}/0/info`, { as: "root" })).json.supported_triggers.includes("event_based"));
    const image = { style: "radio", type: "resource", values: ["image"] };
    assert.deepEqual(
      info.supported_resource_filters,
      [...["name", "tag"].map((type) => ({ style: "input", type, values: null })), image],
      "keys by name, and null where a list is not given",
    );
    const local = (await api.request("GET", `${REGISTRIES}/0`, { as: "root" })).json;
    assert.deepEqual([local.name, local.type, local.credential], ["Local", "harbor", { access_secret: "*****", type: "secret" }]);
    assert.deepEqual(Object.keys(local), Object.keys(local).toSorted());
    assert.equal((await api.request("GET", `${REGISTRIES}/none`, { as: "root" })).status, 422);
  });
});

test("proxy projects", async (t) => {
  const { api } = await start(t);
  const upstream = await startUpstream(t);
  const id = await create(api, { name: "hub", type: "docker-hub", url: upstream.url });
  const post = async (body: object, as = "root"): Promise<string> => {
    const answer = await api.request("POST", "/api/v2.0/projects", { as, body });
    return `${answer.status}${answer.json ? ` ${answer.json.errors[0].message}` : ""}`;
  };

  await t.test("are made with an upstream and its manner, which are checked", async () => {
    const metadata = {
      public: "true",
      proxy_mode: "local-first",
      proxy_tag_ttl: "300",
      proxy_max_stale: "3600",
      proxy_negative_ttl: "15",
      proxy_keep_deleted: "true",
      proxy_allow: "{library,bitnami}/**, team-*/app",
      proxy_deny: "library/evil",
      proxy_speed_kb: "-1",
      max_upstream_conn: "30",
      proxy_cache_local_on_not_found: "true",
    };
    assert.equal(await post({ project_name: "hub", registry_id: id, metadata }), "201");
    const project = (await api.request("GET", "/api/v2.0/projects/hub", { as: "root" })).json;
    assert.equal(project.registry_id, id);
    assert.deepEqual(project.metadata, metadata);
    for (const wrong of [
      { proxy_mode: "sometimes" },
      { proxy_tag_ttl: "-5" },
      { proxy_keep_deleted: "yes" },
      { proxy_allow: "*".repeat(11) },
      { proxy_cache_filter_kind: "regex" },
    ]) {
      assert.match(await post({ project_name: "other", registry_id: id, metadata: wrong }), /^400 /, JSON.stringify(wrong));
    }
  });

  await t.test("need a registry that exists and a system administrator", async () => {
    assert.equal(await post({ project_name: "other", registry_id: 999_999 }), "400 registry 999999 not found");
    assert.equal(await post({ project_name: "other", registry_id: id }, "alice"), "403 only system administrators make proxy projects");
  });

  await t.test("keep their registry, and show it in their summary without the credential", async () => {
    const removed = await api.request("DELETE", `${REGISTRIES}/${id}`, { as: "root" });
    assert.equal(removed.status, 412);
    assert.match(removed.json.errors[0].message, /is referenced by proxy cache project, cannot delete it$/);
    const summary = (await api.request("GET", "/api/v2.0/projects/hub/summary", { as: "root" })).json;
    assert.equal(summary.registry.id, id);
    assert.equal(summary.registry.credential, undefined);
    assert.equal((await api.request("DELETE", "/api/v2.0/projects/hub", { as: "root" })).status, 200);
    assert.equal((await api.request("DELETE", `${REGISTRIES}/${id}`, { as: "root" })).status, 200);
    assert.equal((await api.request("DELETE", `${REGISTRIES}/${id}`, { as: "root" })).status, 404);
  });
});

test("every route of the registries is described, and nothing is described that has no route", async () => {
  const document = await loadOpenApi();
  assert.deepEqual(
    routesOf(createRegistriesRouter({} as RegistriesServices), "/api/v2.0").toSorted(),
    document.operations().filter((operation) => operation.includes(REGISTRIES)),
  );
});
