/** Policies over real sockets and a real database: what is refused with which text, what comes back, who may. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { createAdaptersRouter } from "../../../api/harbor/replication/adapters.ts";
import { createPoliciesRouter } from "../../../api/harbor/replication/policies.ts";
import type { PoliciesServices } from "../../../api/harbor/replication/policies.ts";
import { createRegistriesRouter } from "../../../api/harbor/registries.ts";
import { createEncryption } from "../../../src/auth/encryption.ts";
import { SlipwayError } from "../../../src/core/errors.ts";
import type { Database } from "../../../src/db/pool.ts";
import { EMPTY_REGISTRY, RegistryStore } from "../../../src/proxy/registry-store.ts";
import { PolicyStore } from "../../../src/replication/policy-store.ts";
import { addUser, startApi, testAuth, TEST_ADDRESSES } from "../../support/auth.ts";
import type { Answer, TestApi } from "../../support/auth.ts";
import { quietLogger } from "../../support/maintenance.ts";
import { loadOpenApi, routesOf } from "../../support/openapi.ts";
import { testDatabase } from "../../support/services.ts";
import { testBus } from "../../support/test-bus.ts";

const POLICIES = "/api/v2.0/replication/policies";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

interface Started {
  readonly api: TestApi;
  readonly database: Database;
  readonly policies: PolicyStore;
  /** Ids of policies whose schedule was to follow. */
  readonly followed: number[];
  readonly hub: number;
  readonly mirror: number;
}

async function start(t: Cleanable, follow?: (id: number) => Promise<never>): Promise<Started> {
  const { database } = await testDatabase(t);
  const bus = await testBus(t);
  const parts = testAuth(t, { database, bus });
  await addUser(parts, "root", { sysadmin: true });
  await addUser(parts, "alice");
  const registries = new RegistryStore(database, createEncryption(randomBytes(32)), bus);
  const save = async (name: string): Promise<number> => {
    const credential = { accessKey: "bot", accessSecret: "s3cret-of-bot", credentialType: "basic" };
    return (await registries.save({ ...EMPTY_REGISTRY, ...credential, name, url: `https://${name}.example.com` })).id;
  };
  const [hub, mirror] = [await save("hub"), await save("mirror")];
  const policies = new PolicyStore(database);
  const followed: number[] = [];
  const schedules: PoliciesServices["schedules"] = {
    follow: async (id) => {
      followed.push(id);
      return follow ? await follow(id) : "created";
    },
  };
  const services = { auth: parts.auth, addresses: TEST_ADDRESSES };
  const api = await startApi(t, parts, {
    routers: [
      createAdaptersRouter(services),
      createPoliciesRouter({ ...services, policies, registries, schedules, logger: quietLogger }),
      createRegistriesRouter({ ...services, store: registries, probe: { probe: async () => ({ healthy: true }) } }),
    ],
  });
  return { api, database, policies, followed, hub, mirror };
}

function idOf({ headers }: Answer): number {
  return Number(headers.get("location")?.split("/").at(-1));
}

function said({ status, json, text }: Answer): string {
  return json === undefined ? `${status}${text}` : `${status} ${json.errors[0].code} ${json.errors[0].message}`;
}

test("policies are refused with the texts that clients of Harbor know, in its order", async (t) => {
  const { api, hub, policies } = await start(t);
  const good = { name: "p", dest_registry: { id: hub } };
  const scheduled = (cron: string): object => ({ trigger: { type: "scheduled", trigger_settings: { cron } } });
  const filter = (...fields: unknown[]): object => ({
    filters: [Object.fromEntries(["type", "value", "decoration", "kind"].map((name, i) => [name, fields[i]]))],
  });
  const names = { long: "x".repeat(257) };
  const table: [body: object, text: string][] = [
    [
      { name: "", single_active_replication: true, trigger: { type: "event_based" } },
      "single active replication is not allowed for event_based triggers",
    ],
    [{ name: "", dest_registry: null }, "empty name"],
    [{ name: null }, "empty name"],
    [{ name: names.long }, "the max length of name is 256"],
    [{ name: "a\u0000b" }, "the name has a control character"],
    [{ description: "x".repeat(4097) }, "the max length of description is 4096"],
    [
      { dest_registry: null, filters: [{ type: "x" }] },
      "either src_registry or dest_registry should be empty and the other one shouldn't be empty",
    ],
    [
      { dest_registry: { id: 0 }, src_registry: { id: 0 } },
      "either src_registry or dest_registry should be empty and the other one shouldn't be empty",
    ],
    [{ ...filter("name", 7), dest_namespace: "NO" }, "the type of filter value isn't string"],
    [filter("tag", ["v1"]), "the type of filter value isn't string"],
    [filter("resource", 7), "the type of filter value isn't string"],
    [filter("resource", "chart"), "invalid resource filter: chart"],
    [filter("resource", "image", "matches"), "only tag and label filter support decoration"],
    [filter("label", "a"), "the type of label filter value isn't string slice"],
    [filter("label", ["a", 1]), "the type of label filter value isn't string slice"],
    [filter("chart", "a"), "invalid filter type"],
    [filter("tag", "a", "includes"), "invalid filter decoration, :includes"],
    [filter("label", ["a"], "includes"), "invalid filter decoration, :includes"],
    [filter("tag", "v[1"), 'invalid pattern "v[1": a [ is not closed'],
    [filter("name", "{a,b"), 'invalid pattern "{a,b": a { is not closed'],
    [filter("tag", "(", "", "regex"), 'invalid regular expression "(": missing closing ): `(`'],
    [filter("tag", "newest", "", "semver"), 'invalid version range "newest": expected a range like ^1.2, >=2.0.0 <3 or 1.x'],
    [filter("tag", "a", "", "grep"), "invalid filter kind: grep"],
    [filter("name", "^1", "", "semver"), "invalid filter kind: semver"],
    [filter("platform", "linux"), 'invalid platform "linux": expected os/architecture or os/architecture/variant'],
    [filter("platform", ["linux/amd64"], "excludes"), "the platform filter supports no decoration"],
    [filter("newest", 0), "the value of the newest filter must be a whole number from 1 to 10000"],
    [filter("max_age", "1d"), "the value of the max_age filter must be a whole number from 1 to 3155760000"],
    [filter("media_type", []), "the type of filter value is neither string nor string slice"],
    [{ filters: Array.from({ length: 65 }, () => ({ type: "tag", value: "v1" })) }, "a policy has at most 64 filters"],
    [
      { filters: Array.from({ length: 20 }, () => ({ type: "tag", value: "x".repeat(1000) })) },
      "the filters are longer than 16384 characters",
    ],
    [filter("tag", "a\u0000"), "a filter value has a NUL character"],
    [{ dest_namespace: "Upper", trigger: { type: "x" } }, "invalid destination namespace: Upper"],
    [{ dest_namespace: "a/" }, "invalid destination namespace: a/"],
    [{ destinations: [{ dest_registry: { id: hub }, dest_namespace: "a//b" }] }, "invalid destination namespace: a//b"],
    [{ trigger: { type: "hourly" } }, "invalid trigger type"],
    [{ trigger: {} }, "invalid trigger type"],
    [scheduled(""), "the cron string cannot be empty when the trigger type is scheduled"],
    [{ trigger: { type: "scheduled" } }, "the cron string cannot be empty when the trigger type is scheduled"],
    [scheduled("often"), "invalid cron string for scheduled trigger: often"],
    [scheduled("0 0 * * *"), "invalid cron string for scheduled trigger: 0 0 * * *"],
    [scheduled("@daily"), "invalid cron string for scheduled trigger: @daily"],
    [scheduled("0 61 * * * *"), "invalid cron string for scheduled trigger: 0 61 * * * *"],
    [scheduled("5 0 * * * *"), "the 1st field (indicating Seconds of time) of the cron setting must be 0"],
    [scheduled("CRON_TZ=UTC 0 0 2 * * *"), "the 1st field (indicating Seconds of time) of the cron setting must be 0"],
    [scheduled("0 * * * * *"), "* is not allowed for the Minutes field of the cron setting of replication policy"],
    [{ ...scheduled("0 5 * * * *"), timezone: "Mars/Olympus" }, "unknown time zone: Mars/Olympus"],
    [{ timezone: "+05:00" }, "unknown time zone: +05:00"],
    [{ overlap: "maybe" }, "invalid overlap: maybe"],
    [{ overlap: "allow", single_active_replication: true }, "single_active_replication is the overlap skip"],
    [{ overlap: "skip", trigger: { type: "event_based" } }, "a policy on events takes the overlap queue-one or allow"],
    [
      { src_registry: { id: hub }, dest_registry: null, trigger: { type: "event_based" } },
      "event_based triggers follow the local registry, so src_registry must be empty",
    ],
    [{ destinations: [] }, "destinations must not be empty; null leaves dest_registry alone"],
    [{ destinations: [{ dest_registry: { id: hub + 7 } }] }, "dest_registry and the first of the destinations must be the same registry"],
    [{ destinations: [{ dest_registry: { id: hub } }, { dest_registry: { id: hub } }] }, "the destinations 1 and 2 are the same"],
    [{ src_registry: { id: hub } }, `the destination ${hub} is the source, so it needs a namespace of its own`],
  ];
  for (const [body, text] of table) {
    assert.equal(said(await api.request("POST", POLICIES, { as: "root", body: { ...good, ...body } })), `400 BAD_REQUEST ${text}`, text);
  }
  const wrongTypes = [
    { enabled: "yes" },
    { speed: 2 ** 31 },
    { dest_namespace_replace_count: 128 },
    { max_deletion_percent: 101 },
    { src_registry: { id: -1 } },
  ];
  for (const body of wrongTypes) {
    assert.match(
      said(await api.request("POST", POLICIES, { as: "root", body: { ...good, ...body } })),
      /^400 BAD_REQUEST invalid body at /,
    );
  }
  assert.equal(said(await api.request("POST", POLICIES, { as: "root", body: "{" })).slice(0, 3), "400");
  const post = async (body: object): Promise<string> =>
    said(await api.request("POST", POLICIES, { as: "root", body: { ...good, ...body } }));
  assert.equal(await post({ src_registry: { id: 4711 } }), "404 NOT_FOUND registry 4711 not found");
  assert.equal(await post({}), "201");
  assert.equal(await post({}), "409 CONFLICT replication policy p already exists");
  assert.equal(await post({ name: "q" }), "201");
  const [q] = (await policies.list({ filters: [{ key: "name", kind: "equals", value: "q" }], sort: [], page: 1, pageSize: 1 })).rows;
  const put = async (id: number | string, body: object): Promise<string> =>
    said(await api.request("PUT", `${POLICIES}/${id}`, { as: "root", body: { ...good, ...body } }));
  assert.equal(await put(q?.id ?? 0, {}), "409 CONFLICT replication policy p already exists");
  assert.equal(await put(4711, { name: "" }), "400 BAD_REQUEST empty name");
  assert.equal(await put(4711, { name: "r" }), "404 NOT_FOUND replication policy 4711 not found");
  assert.equal(await put(0, { name: "r" }), "404 NOT_FOUND replication policy 0 not found");
  assert.equal(said(await api.request("DELETE", `${POLICIES}/0`, { as: "root" })), "404 NOT_FOUND replication policy 0 not found");
  assert.equal(said(await api.request("DELETE", `${POLICIES}/4711`, { as: "root" })), "404 NOT_FOUND replication policy 4711 not found");
  assert.equal((await api.request("GET", `${POLICIES}/x`, { as: "root" })).status, 422);
});

test("a policy comes back as Harbor writes it, with both registries in full", async (t) => {
  const { api, hub } = await start(t);
  const bare = await api.request("POST", POLICIES, { as: "root", body: { name: "bare", src_registry: { id: hub } } });
  assert.equal(bare.status, 201);
  assert.equal(bare.text, "");
  assert.equal(bare.headers.get("location"), `${POLICIES}/${idOf(bare)}`);
  const { json } = await api.request("GET", `${POLICIES}/${idOf(bare)}`, { as: "root" });
  assert.deepEqual(Object.keys(json), Object.keys(json).toSorted());
  const { creation_time, update_time, src_registry, dest_registry, destinations, ...rest } = json;
  assert.match(creation_time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.equal(update_time, creation_time);
  assert.deepEqual(rest, {
    copy_by_chunk: false,
    dest_namespace_replace_count: -1,
    filters: null,
    id: idOf(bare),
    max_deletion_percent: 10,
    max_deletions: 100,
    mirror: false,
    name: "bare",
    overlap: "allow",
    single_active_replication: false,
    speed: 0,
    timezone: "UTC",
  });
  assert.deepEqual(
    [src_registry.id, src_registry.url, src_registry.credential],
    [hub, "https://hub.example.com", { access_key: "bot", access_secret: "*****", type: "basic" }],
  );
  assert.deepEqual([dest_registry.id, dest_registry.name, dest_registry.type], [0, "Local", "harbor"]);
  assert.deepEqual(dest_registry.credential, { access_secret: "*****", type: "secret" });
  assert.deepEqual(destinations, [{ dest_namespace: null, dest_namespace_replace_count: null, dest_registry }]);

  const full = {
    name: "full",
    description: "all of it",
    dest_registry: { id: hub },
    dest_namespace: "backup",
    dest_namespace_replace_count: 0,
    trigger: { type: "scheduled", trigger_settings: { cron: "0 15 2 * * *" } },
    filters: [
      { type: "name", value: "library/**" },
      { type: "tag", value: "v*", decoration: "excludes" },
      { type: "label", value: ["gold"], decoration: "matches" },
      { type: "resource", value: "image" },
    ],
    deletion: true,
    override: true,
    enabled: true,
    speed: -1,
    copy_by_chunk: true,
    single_active_replication: true,
  };
  const made = await api.request("POST", POLICIES, { as: "root", body: full });
  const read = (await api.request("GET", `${POLICIES}/${idOf(made)}`, { as: "root" })).json;
  const shown = Object.fromEntries(Object.keys(full).map((key) => [key, read[key]]));
  assert.deepEqual({ ...shown, dest_registry: { id: read.dest_registry.id } }, { ...full, speed: 0 });
  assert.deepEqual([read.replicate_deletion, read.overlap], [true, "skip"]);
  const other = await api.request("POST", POLICIES, {
    as: "root",
    body: { name: "other", dest_registry: { id: hub }, replicate_deletion: true },
  });
  assert.equal((await api.request("GET", `${POLICIES}/${idOf(other)}`, { as: "root" })).json.deletion, true);
});

test("an update replaces Harbor's fields, and keeps further ones that it does not name", async (t) => {
  const { api, hub, mirror, policies, database } = await start(t);
  const body = {
    name: "p",
    src_registry: { id: hub },
    dest_registry: { id: mirror },
    description: "before",
    enabled: true,
    deletion: true,
    filters: [{ type: "tag", value: "v.*", kind: "regex" }],
    destinations: [
      { dest_registry: { id: mirror }, dest_namespace: "a" },
      { dest_registry: { id: 0 }, dest_namespace_replace_count: 1 },
    ],
    timezone: "Europe/Berlin",
    overlap: "queue-one",
    mirror: true,
    max_deletions: 7,
    max_deletion_percent: 70,
  };
  const id = idOf(await api.request("POST", POLICIES, { as: "root", body }));
  const put = async (fields: object): Promise<void> => {
    const answer = await api.request("PUT", `${POLICIES}/${id}`, { as: "root", body: fields });
    assert.equal(answer.status, 200, answer.text);
  };
  const harbor = { name: "p", src_registry: { id: hub }, dest_registry: { id: mirror }, filters: [{ type: "tag", value: "v.*" }] };
  await put(harbor);
  const kept = await policies.find(id);
  assert.deepEqual([kept?.description, kept?.enabled, kept?.deletion, kept?.creator], ["", false, false, "root"]);
  assert.deepEqual(
    [kept?.timezone, kept?.overlap, kept?.mirror, kept?.maxDeletions, kept?.maxDeletionPercent],
    ["Europe/Berlin", "queue-one", true, 7, 70],
  );
  assert.deepEqual(
    kept?.destinations.map((one) => [one.registryId, one.ownNamespace, one.ownReplaceCount]),
    [
      [mirror, "a", null],
      [0, null, 1],
    ],
  );
  assert.equal(kept?.filters[0]?.kind, "regex");
  await put({
    ...harbor,
    filters: [{ type: "tag", value: "v.*", kind: null }],
    timezone: null,
    overlap: null,
    mirror: null,
    max_deletions: null,
    max_deletion_percent: null,
    destinations: null,
  });
  const cleared = await policies.find(id);
  assert.deepEqual(
    [cleared?.timezone, cleared?.overlap, cleared?.mirror, cleared?.maxDeletions, cleared?.maxDeletionPercent, cleared?.filters[0]?.kind],
    ["UTC", "allow", false, 100, 10, "glob"],
  );
  assert.deepEqual(
    cleared?.destinations.map(({ registryId }) => registryId),
    [mirror],
  );
  await put({ ...harbor, single_active_replication: true });
  assert.equal((await policies.find(id))?.overlap, "skip");
  await put(harbor);
  assert.equal((await policies.find(id))?.overlap, "allow", "it was no choice of its own");
  // Two that meet are made one after the other.
  await Promise.all([put({ ...harbor, mirror: true }), put({ ...harbor, max_deletions: 9 }), put({ ...harbor, timezone: "Asia/Tokyo" })]);
  const met = await policies.find(id);
  assert.deepEqual([met?.mirror, met?.maxDeletions, met?.timezone], [true, 9, "Asia/Tokyo"]);
  assert.equal((await database.query("SELECT 1 FROM replication_destinations")).rowCount, 1);
});

test("policies are listed by query, order and page", async (t) => {
  const { api, hub, mirror } = await start(t);
  const make = async (name: string, fields: object): Promise<number> =>
    idOf(await api.request("POST", POLICIES, { as: "root", body: { name, dest_registry: { id: hub }, ...fields } }));
  await make("alpha", { trigger: { type: "event_based" }, enabled: true });
  await make("beta", { src_registry: { id: hub }, dest_registry: { id: mirror }, speed: 5 });
  await make("gamma", { filters: [{ type: "name", value: "library/**" }], override: true, deletion: true });
  const names = async (query: string): Promise<string> => {
    const answer = await api.request("GET", `${POLICIES}?${query}`, { as: "root" });
    assert.equal(answer.status, 200, answer.text);
    return (answer.json as { name: string }[]).map(({ name }) => name).join(" ");
  };
  const table: [query: string, expected: string][] = [
    ["", "gamma beta alpha"],
    ["sort=name", "alpha beta gamma"],
    ["sort=-name,nonsense", "gamma beta alpha"],
    ["name=A&q=name%3Dbeta", "gamma beta alpha"],
    ["q=name%3Dbeta", "beta"],
    ["q=name%3D~ET", "beta"],
    [`q=src_registry_id%3D${hub}`, "beta"],
    ["q=src_registry_id%3D0&sort=name", "alpha gamma"],
    [`q=dest_registry_id%3D${mirror}`, "beta"],
    ["q=trigger%3D~event_based", "alpha"],
    [`q=${encodeURIComponent(encodeURIComponent('filters=~"type":"name"'))}`, "gamma"],
    ["q=enabled%3Dtrue", "alpha"],
    ["q=override%3Dtrue,replicate_deletion%3Dtrue", "gamma"],
    ["q=speed_kb%3D%5B5~%5D", "beta"],
    [
      "q=creator%3Droot,single_active_replication%3Dfalse,copy_by_chunk%3Dfalse,dest_namespace_replace_count%3D-1&sort=id",
      "alpha beta gamma",
    ],
    ["q=speed_kb__gt%3D4", "beta"],
    ["q=speed_kb__lt%3D5,SrcRegistryID%3D0&sort=Name", "alpha gamma"],
    ["q=nonsense%3D1&sort=id", "alpha beta gamma"],
    ["page=2&page_size=1", "beta"],
  ];
  for (const [query, expected] of table) assert.equal(await names(query), expected, query);
  const page = await api.request("GET", `${POLICIES}?page=2&page_size=1`, { as: "root" });
  assert.equal(page.headers.get("x-total-count"), "3");
  assert.equal(page.headers.get("link"), `<${POLICIES}?page=1&page_size=1>; rel="prev" , <${POLICIES}?page=3&page_size=1>; rel="next"`);
  assert.equal((await api.request("GET", `${POLICIES}?strict=true&q=nonsense%3D1`, { as: "root" })).status, 400);
});

test("a policy stays while a run of it has not ended, and its registries stay with it", async (t) => {
  const { api, database, hub, mirror, policies, followed } = await start(t);
  const trigger = { type: "scheduled", trigger_settings: { cron: "0 0 3 * * *" } };
  const body = { name: "p", src_registry: { id: hub }, dest_registry: { id: mirror }, trigger };
  const id = idOf(await api.request("POST", POLICIES, { as: "root", body }));
  const execution = await database.query<{ id: number }>(
    "INSERT INTO executions (vendor, vendor_id, trigger) VALUES ('REPLICATION', $1, 'manual') RETURNING id",
    [id],
  );
  await database.query("INSERT INTO replication_runs (execution_id, policy_id) VALUES ($1, $2)", [execution.rows[0]?.id, id]);
  const remove = async (path: string): Promise<string> => said(await api.request("DELETE", path, { as: "root" }));
  assert.equal(
    await remove(`${POLICIES}/${id}`),
    "412 PRECONDITION contains executions that aren't in final status, stop the execution first",
  );
  for (const registry of [hub, mirror]) {
    assert.equal(
      await remove(`/api/v2.0/registries/${registry}`),
      `412 PRECONDITION the registry ${registry} is referenced by replication policies, cannot delete it`,
    );
  }
  await database.query("UPDATE executions SET status = 'Success', ended_at = now(), planned_at = now()");
  assert.equal(await remove(`${POLICIES}/${id}`), "200");
  assert.equal(await policies.find(id), null);
  assert.equal(await remove(`/api/v2.0/registries/${mirror}`), "200");
  assert.deepEqual(followed, [id, id], "the schedule follows creation and removal");
});

test("a policy is saved while the workflow service is away", async (t) => {
  const away = async (): Promise<never> => {
    throw new SlipwayError("TEMPORAL_UNAVAILABLE");
  };
  const { api, hub, followed } = await start(t, away);
  const trigger = { type: "scheduled", trigger_settings: { cron: "0 0 3 * * *" } };
  const body = { name: "p", dest_registry: { id: hub }, trigger };
  const created = await api.request("POST", POLICIES, { as: "root", body });
  assert.equal(created.status, 201);
  const id = idOf(created);
  assert.equal((await api.request("PUT", `${POLICIES}/${id}`, { as: "root", body: { ...body, trigger: null } })).status, 200);
  assert.equal((await api.request("PUT", `${POLICIES}/${id}`, { as: "root", body: { ...body, trigger: null } })).status, 200);
  assert.deepEqual(followed, [id, id], "one that had no schedule and gets none needs nobody");
});

test("system administrators and robots with the right work with policies", async (t) => {
  const { api, hub } = await start(t);
  const robot = async (name: string, access: object[]): Promise<string> => {
    const permissions = [{ kind: "system", namespace: "/", access }];
    const made = await api.request("POST", "/api/v2.0/robots", { as: "root", body: { name, level: "system", duration: -1, permissions } });
    assert.equal(made.status, 201, made.text);
    return `Basic ${Buffer.from(`${made.json.name}:${made.json.secret}`).toString("base64")}`;
  };
  const reader = await robot(
    "reader",
    ["read", "list"].map((action) => ({ resource: "replication-policy", action })),
  );
  const writer = await robot(
    "writer",
    ["create", "update", "delete"].map((action) => ({ resource: "replication-policy", action })),
  );
  const body = { name: "p", dest_registry: { id: hub } };
  const id = idOf(await api.request("POST", POLICIES, { as: writer, body }));
  const one = `${POLICIES}/${id}`;
  const table: [method: string, path: string, body: object | undefined, reader: number, writer: number][] = [
    ["GET", POLICIES, undefined, 200, 403],
    ["GET", one, undefined, 200, 403],
    ["POST", POLICIES, { ...body, name: "q" }, 403, 201],
    ["PUT", one, body, 403, 200],
    ["GET", "/api/v2.0/replication/adapters", undefined, 403, 403],
    ["GET", "/api/v2.0/replication/adapterinfos", undefined, 403, 403],
    ["DELETE", one, undefined, 403, 200],
  ];
  for (const [method, path, content, forReader, forWriter] of table) {
    const ask = async (as?: string): Promise<number> =>
      (await api.request(method, path, { ...(as === undefined ? {} : { as }), ...(content === undefined ? {} : { body: content }) }))
        .status;
    assert.deepEqual(
      [await ask(), await ask("alice"), await ask(reader), await ask(writer)],
      [401, 403, forReader, forWriter],
      `${method} ${path}`,
    );
  }
  const adapters = await api.request("GET", "/api/v2.0/replication/adapters", { as: "root" });
  assert.deepEqual(adapters.json, (adapters.json as string[]).toSorted());
  assert.ok(adapters.json.includes("harbor"));
  const infos = (await api.request("GET", "/api/v2.0/replication/adapterinfos", { as: "root" })).json;
  assert.deepEqual(infos["docker-hub"].endpoint_pattern.endpoints, [{ key: "hub.docker.com", value: "https://hub.docker.com" }]);
});

test("every route of policies and adapters is described, and nothing is described that has no route", async () => {
  const routes = [
    ...routesOf(createPoliciesRouter({} as PoliciesServices), "/api/v2.0"),
    ...routesOf(createAdaptersRouter({} as PoliciesServices), "/api/v2.0"),
  ];
  const described = (await loadOpenApi()).operations().filter((operation) => /\/replication\/(policies|adapter)/.test(operation));
  assert.deepEqual(routes.toSorted(), described);
});
