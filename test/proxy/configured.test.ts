import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { createEncryption } from "../../src/auth/encryption.ts";
import type { InvalidationBus } from "../../src/catalog/cache/invalidation-bus.ts";
import { ProjectStore } from "../../src/catalog/project-store.ts";
import type { ConfiguredUpstream } from "../../src/config/config.ts";
import { parseUpstreams } from "../../src/config/upstreams.ts";
import type { Database } from "../../src/db/pool.ts";
import { syncUpstreams } from "../../src/proxy/configured-upstreams.ts";
import type { SyncOptions, SyncReport } from "../../src/proxy/configured-upstreams.ts";
import { DEFAULT_HOSTS } from "../../src/proxy/default-upstreams.ts";
import { EMPTY_REGISTRY, REGISTRIES_SCOPE, RegistryStore } from "../../src/proxy/registry-store.ts";
import { silentLogger } from "../../src/telemetry/logger.ts";
import { testDatabase } from "../support/services.ts";
import { testBus } from "../support/test-bus.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

interface Started {
  readonly database: Database;
  readonly bus: InvalidationBus;
  readonly registries: RegistryStore;
  readonly projects: ProjectStore;
  sync(upstreams: readonly ConfiguredUpstream[] | null, rest?: Partial<SyncOptions>): Promise<SyncReport>;
}

async function start(t: Cleanable): Promise<Started> {
  const { database } = await testDatabase(t);
  const bus = await testBus(t);
  const encryption = createEncryption(randomBytes(32));
  return {
    database,
    bus,
    registries: new RegistryStore(database, encryption, bus),
    projects: new ProjectStore(database, bus),
    sync: (upstreams, rest = {}) =>
      syncUpstreams({ database, encryption, announcer: bus, logger: silentLogger, upstreams, defaults: false, mirrorHost: null, ...rest }),
  };
}

function configured(...entries: object[]): ConfiguredUpstream[] {
  const problems: string[] = [];
  const upstreams = parseUpstreams({ upstreams: entries }, problems);
  assert.deepEqual(problems, []);
  return upstreams;
}

const NOTHING: SyncReport = { created: [], updated: [], disabled: [], taken: [], projects: [], withoutProject: [] };

test("upstreams of the configuration file", async (t) => {
  const { registries, projects, sync, bus, database } = await start(t);
  const hub = {
    name: "hub",
    url: "https://registry-1.docker.io",
    username: "bot",
    password: "pass-of-bot",
    tag_ttl: 300,
    routes: [{ pattern: "a/*" }],
  };
  const corp = { name: "corp", url: "https://corp.example", projects: [{ name: "team-a" }] };

  await t.test("become rows and proxy projects, announced once they are there", async () => {
    const announced: string[] = [];
    const stop = bus.subscribe((scopes) => announced.push(...scopes));
    const report = await sync(configured(hub, corp));
    stop();
    assert.deepEqual(
      [report.created, report.projects],
      [
        ["hub", "corp"],
        ["hub", "corp"],
      ],
    );
    assert.ok(announced.includes(REGISTRIES_SCOPE) && announced.includes("project:hub"));
    const row = await registries.findByName("hub");
    assert.deepEqual([row?.origin, row?.type, row?.accessSecret, row?.credentialType], ["config", "docker-hub", "pass-of-bot", "basic"]);
    const project = await projects.find("hub");
    assert.deepEqual([project?.registryId, project?.public, project?.metadata], [row?.id, false, { proxy_tag_ttl: "300" }]);
    assert.equal((await projects.find("corp"))?.public, true);
  });

  await t.test("cost no write when nothing changed", async () => {
    const before = await registries.findByName("hub");
    assert.deepEqual(await sync(configured(corp, hub)), NOTHING);
    assert.equal((await registries.findByName("hub"))?.version, before?.version);
  });

  await t.test("are changed when the file changes, and keep what REST set beside it", async () => {
    const project = await projects.find("hub");
    await projects.update(project?.id ?? 0, { metadataMerge: { proxy_keep_deleted: "true" }, public: true });
    const report = await sync(configured({ ...hub, password: "new-pass", tag_ttl: 10 }, corp));
    assert.deepEqual(report.updated, ["hub"]);
    assert.equal((await registries.findByName("hub"))?.accessSecret, "new-pass");
    const after = await projects.find("hub");
    assert.deepEqual([after?.metadata, after?.public], [{ proxy_tag_ttl: "10", proxy_keep_deleted: "true" }, true]);
  });

  await t.test("are switched off when the file no longer names them, and on again when it does", async () => {
    assert.deepEqual((await sync(configured(corp))).disabled, ["hub"]);
    assert.equal((await registries.findByName("hub"))?.enabled, false);
    assert.ok(await projects.find("hub"), "its content stays");
    assert.deepEqual((await sync(configured(corp))).disabled, [], "once");
    await sync(null);
    assert.equal((await registries.findByName("corp"))?.enabled, true, "a process without a file changes nothing");
    assert.deepEqual((await sync(configured(corp, hub))).updated, ["hub"]);
    assert.equal((await registries.findByName("hub"))?.enabled, true);
  });

  await t.test("never touch what was made by REST", async () => {
    const made = await registries.save({ ...EMPTY_REGISTRY, name: "mine", url: "https://mine.example" });
    await projects.create({ name: "taken", public: true, ownerId: null });
    const report = await sync(
      configured(
        hub,
        corp,
        { name: "mine", url: "https://other.example" },
        { name: "blocked", url: "https://x.example", project: "taken" },
      ),
    );
    assert.deepEqual([report.taken, report.withoutProject], [["mine"], ["blocked"]]);
    const row = await registries.findByName("mine");
    assert.deepEqual([row?.url, row?.version], ["https://mine.example", made.version]);
    assert.equal((await projects.find("taken"))?.registryId, null);
    assert.deepEqual((await sync(configured(hub, corp))).disabled, ["blocked"]);
  });

  await t.test("leave nothing half done when the work fails", async () => {
    const before = await registries.listAll();
    // A name that the database refuses comes last.
    const broken = configured({ name: "fine", url: "https://fine.example" }, { name: "broken", url: "https://broken.example" });
    const last = { ...(broken[1] as ConfiguredUpstream), description: "\u0000" };
    await assert.rejects(sync([broken[0] as ConfiguredUpstream, last]));
    assert.deepEqual(
      (await registries.listAll()).map(({ name, version }) => [name, version]),
      before.map(({ name, version }) => [name, version]),
    );
    assert.equal((await database.query("SELECT 1 FROM projects WHERE name = 'fine'")).rowCount, 0);
  });
});

test("processes that start together do the work once", async (t) => {
  const { registries, sync } = await start(t);
  const upstreams = configured(...Array.from({ length: 8 }, (_, index) => ({ name: `up-${index}`, url: `https://up-${index}.example` })));
  const reports = await Promise.all(Array.from({ length: 5 }, () => sync(upstreams, { defaults: true, mirrorHost: "mirror.example" })));
  assert.deepEqual(
    reports.map(({ created }) => created.length).toSorted((a, b) => a - b),
    [0, 0, 0, 0, 8 + DEFAULT_HOSTS.length + 1],
  );
  assert.equal((await registries.listAll()).length, 8 + DEFAULT_HOSTS.length + 1);
});

test("a change by REST in the middle is neither lost nor overwritten", async (t) => {
  const { registries, sync } = await start(t);
  const entries = Array.from({ length: 20 }, (_, index) => ({ name: `up-${index}`, url: `https://up-${index}.example` }));
  await sync(configured(...entries));
  const changed = configured(...entries.map((entry) => ({ ...entry, priority: 7 })));
  const racing = Array.from({ length: 20 }, async (_, index) => {
    const row = await registries.findByName(`up-${index}`);
    if (row) await registries.saveStatus(row.id, "unhealthy");
  });
  await Promise.all([sync(changed), ...racing]);
  const rows = await registries.listAll();
  assert.deepEqual([...new Set(rows.map(({ priority, status }) => `${priority} ${status}`))], ["7 unhealthy"]);
});

test("default upstreams", async (t) => {
  const { registries, projects, sync } = await start(t);

  await t.test("are made when asked for, as public proxy projects named by their hosts", async () => {
    assert.deepEqual((await sync(null)).created, []);
    const report = await sync(null, { defaults: true });
    assert.deepEqual(report.created, [...DEFAULT_HOSTS]);
    assert.deepEqual(report.projects, [...DEFAULT_HOSTS]);
    const hub = await registries.findByName("docker.io");
    assert.deepEqual([hub?.url, hub?.type, hub?.hosts], ["https://registry-1.docker.io", "docker-hub", ["docker.io"]]);
    assert.deepEqual([(await projects.find("docker.io"))?.public, (await projects.find("docker.io"))?.registryId], [true, hub?.id]);
  });

  await t.test("are made once: what was removed or changed stays so", async () => {
    const quay = await registries.findByName("quay.io");
    const hub = await registries.findByName("docker.io");
    await projects.remove((await projects.find("quay.io"))?.id ?? 0);
    await registries.remove(quay?.id ?? 0);
    if (hub) await registries.update(hub.id, { ...hub, accessKey: "me", accessSecret: "mine" }, hub.version);
    assert.deepEqual(await sync(null, { defaults: true }), NOTHING);
    assert.equal(await registries.findByName("quay.io"), null);
    assert.equal((await registries.findByName("docker.io"))?.accessKey, "me");
  });

  await t.test("are taken over by an upstream of the same name in the file", async () => {
    const report = await sync(configured({ name: "docker.io", url: "https://mirror.example", hosts: ["docker.io"] }), { defaults: true });
    assert.deepEqual([report.updated, report.withoutProject], [["docker.io"], []]);
    const hub = await registries.findByName("docker.io");
    assert.deepEqual([hub?.origin, hub?.url], ["config", "https://mirror.example"]);
  });
});

test("the host of the mirror becomes an upstream unless one serves it", async (t) => {
  const { registries, projects, sync } = await start(t);
  assert.deepEqual((await sync(null, { mirrorHost: "docker.io" })).created, ["docker.io"]);
  assert.deepEqual((await sync(null, { mirrorHost: "docker.io" })).created, []);
  assert.deepEqual((await sync(null, { mirrorHost: "registry.corp:5000" })).created, ["registry.corp:5000"]);
  assert.equal((await projects.find("registry.corp-5000"))?.registryId, (await registries.findByName("registry.corp:5000"))?.id);
  assert.equal((await sync(null, { mirrorHost: "docker.io", defaults: true })).created.length, 0, "another default exists already");
  const own = configured({ name: "own", url: "https://own.example", hosts: ["served.example"] });
  assert.deepEqual((await sync(own, { mirrorHost: "served.example" })).created, ["own"]);
});

test("defaults that are asked for after the mirror are made beside it", async (t) => {
  const { sync } = await start(t);
  await sync(null, { mirrorHost: "docker.io" });
  const report = await sync(null, { mirrorHost: "docker.io", defaults: true });
  assert.deepEqual(
    report.created,
    DEFAULT_HOSTS.filter((host) => host !== "docker.io"),
  );
});
