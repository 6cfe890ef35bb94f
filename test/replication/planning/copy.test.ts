/** Planning of whole policies between registries on real sockets: what is planned, what it costs, and that a repeated step adds nothing. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { KnownStore } from "../../../src/replication/known-store.ts";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import type { FakeRegistry } from "../../support/fake-registry.ts";
import { withCode } from "../../upstream/support.ts";
import { beginRun, destination, policyOf, replicationSetting } from "../support.ts";
import type { ReplicationSetting } from "../support.ts";
import { fill, itemsOf, linesOf, planAll, plannerFor, requests, tasksOf, unchangedOf } from "./support.ts";

const NO_SIGNAL = new AbortController().signal;

async function knowAll(setting: ReplicationSetting, registryId: number, target: FakeRegistry, names: readonly string[]): Promise<void> {
  const known = new KnownStore(setting.database);
  for (const repository of names)
    await known.record(
      registryId,
      [...target.repository(repository).tags].map(([tag, digest]) => ({ repository, tag, digest })),
    );
}

test("what the destination lacks is planned from the listings alone", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  fill([source], { "team/app": ["v1", "v2"], "team/web": ["v1"] });
  const policy = policyOf(await setting.addRegistry({ url: source.url }), [destination(await setting.addRegistry({ url: target.url }))]);
  const executionId = await beginRun(setting.database);
  const { batches } = await planAll(plannerFor(setting, policy), executionId);

  assert.deepEqual(requests(source), { catalog: 1, tags: 2 });
  assert.deepEqual(requests(target), { tags: 2 });
  const tasks = await tasksOf(setting, executionId);
  assert.deepEqual(
    batches.flatMap((batch) => batch.tasks).toSorted(),
    tasks.map(({ id }) => id),
  );
  assert.deepEqual(
    batches.map((batch) => batch.targets),
    [[policy.destinations[0]?.registryId]],
    "three small ones are one batch",
  );
  // Repositories are looked at side by side: which is first is not said.
  assert.deepEqual(tasks.find(({ attrs }) => attrs.src_repository === "team/app")?.attrs, {
    operation: "copy",
    resource_type: "image",
    src_resource: "team/app [2 item(s) in total]",
    dst_resource: "team/app [2 item(s) in total]",
    src_repository: "team/app",
    dst_repository: "team/app",
    destination: 0,
    target_registry_id: policy.destinations[0]?.registryId,
    items: 2,
    target_empty: true,
    referrer_tags: false,
  });
  assert.deepEqual((await itemsOf(setting, executionId)).map(({ source: from, tag, status }) => [from, tag, status]).toSorted(), [
    ["team/app", "v1", "Pending"],
    ["team/app", "v2", "Pending"],
    ["team/web", "v1", "Pending"],
  ]);
});

test("a run with nothing to do asks for each tag once at the source and lists each repository once at the destination", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const tags = Array.from({ length: 10 }, (_, index) => `v${index}`);
  const images = Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`bench/repo-${index}`, tags]));
  fill([source, target], { ...images, "bench/large": ["only"] });
  const [from, to] = [await setting.addRegistry({ url: source.url }), await setting.addRegistry({ url: target.url })];
  await knowAll(setting, to, target, [...Object.keys(images), "bench/large"]);
  const planner = plannerFor(setting, policyOf(from, [destination(to)]));
  // Copying has found out that it has no referrers API; otherwise two requests would, for all tags together.
  source.referrersApi = false;
  await (
    await setting.adapters.open(from, NO_SIGNAL)
  ).listReferrers("bench/large", source.repository("bench/large").tags.get("only") ?? "", NO_SIGNAL);
  source.calls.length = 0;

  const executionId = await beginRun(setting.database);
  const { batches } = await planAll(planner, executionId);
  assert.deepEqual(batches, []);
  assert.deepEqual(requests(source), { catalog: 1, tags: 21, "manifest-head": 201 });
  assert.deepEqual(requests(target), { tags: 21 });
  assert.equal(source.calls.length + target.calls.length, 244);
  assert.equal(await unchangedOf(setting, executionId), 201);
  assert.deepEqual(await itemsOf(setting, executionId), []);

  // What was seen a day ago is asked for once, and then known again.
  await setting.database.query("UPDATE replication_known SET verified_at = now() - interval '25 hours'");
  for (const registry of [source, target]) registry.resetCalls();
  await planAll(planner, await beginRun(setting.database));
  assert.deepEqual(requests(target), { tags: 21, "manifest-head": 201 });
  target.resetCalls();
  await planAll(planner, await beginRun(setting.database));
  assert.deepEqual(requests(target), { tags: 21 });
});

test("a step that is given again returns the same and adds nothing", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  fill([source, target], { "team/same": ["v1", "v2", "v3"] });
  fill([source], { "team/app": ["v1", "v2"] });
  const [from, to] = [await setting.addRegistry({ url: source.url }), await setting.addRegistry({ url: target.url })];
  const planner = plannerFor(setting, policyOf(from, [destination(to)]));
  const executionId = await beginRun(setting.database);
  const first = await planner.step({ executionId, cursor: null }, NO_SIGNAL, () => undefined);
  // The answer was lost; meanwhile somebody copied one of them, which changes nothing of what was planned.
  target.putImage("team/app", "v1");
  const again = await planner.step({ executionId, cursor: null }, NO_SIGNAL, () => undefined);
  assert.deepEqual(again, first);
  assert.equal(await unchangedOf(setting, executionId), 3);
  assert.equal((await itemsOf(setting, executionId)).length, 2);
});

test("a step that is broken off goes on where it was, and the one that was given up writes no more", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const names = Array.from({ length: 40 }, (_, index) => `team/app-${String(index).padStart(2, "0")}`);
  fill([source], Object.fromEntries(names.map((name) => [name, ["v1"]])));
  // Half of them answer at once, the others never.
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let heldCalls = 0;
  const scripted = /^\/v2\/team\/app-[23]\d\/tags/;
  source.on({ path: scripted }, async (_request, response) => {
    heldCalls += 1;
    await held;
    response.end(JSON.stringify({ name: "x", tags: ["v1"] }));
  });
  const [from, to] = [await setting.addRegistry({ url: source.url }), await setting.addRegistry({ url: target.url })];
  const policy = policyOf(from, [destination(to)]);
  const executionId = await beginRun(setting.database);
  const abandoned = plannerFor(setting, policy).step({ executionId, cursor: null }, NO_SIGNAL, () => undefined);
  const outcome = assert.rejects(abandoned, withCode("CONFLICT"));
  for (let tries = 0; (await tasksOf(setting, executionId)).length < 20; tries += 1) {
    assert.ok(tries < 400, "the first half was not planned");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.ok(heldCalls > 0);
  source.clearScripts();
  source.resetCalls();
  const { batches } = await planAll(plannerFor(setting, policy), executionId);
  assert.equal(source.count("tags"), 20, "what was planned is not asked for again");
  release();
  await outcome;
  const tasks = await tasksOf(setting, executionId);
  assert.equal(tasks.length, 40);
  assert.deepEqual(
    batches.flatMap((batch) => batch.tasks).toSorted((a, b) => a - b),
    tasks.map(({ id }) => id),
  );
});

test("other content at the destination is overridden or kept as the policy says; what is kept is told, and its task is over", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  fill([source, target], { "team/app": ["same", "moved"] });
  target.putImage("team/app", "moved", [Buffer.from("something else")]);
  const [from, to] = [await setting.addRegistry({ url: source.url }), await setting.addRegistry({ url: target.url })];

  const kept = await beginRun(setting.database);
  const keeping = await planAll(plannerFor(setting, policyOf(from, [destination(to)], { override: false })), kept);
  assert.deepEqual(keeping.batches, [], "there is nothing to hand out");
  assert.deepEqual(
    (await itemsOf(setting, kept)).map(({ tag, status, reason }) => [tag, status, reason]),
    [["moved", "Skipped", "not-overridden"]],
  );
  assert.deepEqual(
    (await tasksOf(setting, kept)).map(({ status }) => status),
    ["Success"],
  );
  assert.match((await linesOf(setting, kept)).join("\n"), /WARNING team\/app:moved has other content, which the policy does not override/);
  assert.equal(await unchangedOf(setting, kept), 1);

  const overridden = await beginRun(setting.database);
  const { batches } = await planAll(plannerFor(setting, policyOf(from, [destination(to)])), overridden);
  assert.equal(batches.length, 1);
  assert.deepEqual(
    (await itemsOf(setting, overridden)).map(({ tag, status }) => [tag, status]),
    [["moved", "Pending"]],
  );
});

test("only what the filters select is planned, and what they want to know is asked once", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  fill([source], { "team/app": ["v1.0.0", "v1.1.0", "v2.0.0", "edge"], "other/app": ["v1.0.0"] });
  const [from, to] = [await setting.addRegistry({ url: source.url }), await setting.addRegistry({ url: target.url })];
  const filter = { kind: "glob", decoration: "matches" } as const;
  const filters = [
    { ...filter, type: "name", value: "team/*" },
    { ...filter, type: "tag", value: "v*" },
    { ...filter, type: "media_type", value: ["application/vnd.oci.image.manifest.v1+json"] },
    { ...filter, type: "newest", kind: "semver", value: 2 },
  ] as const;
  const executionId = await beginRun(setting.database);
  await planAll(plannerFor(setting, policyOf(from, [destination(to)], { filters })), executionId);
  assert.deepEqual((await itemsOf(setting, executionId)).map(({ tag }) => tag).toSorted(), ["v1.1.0", "v2.0.0"]);
  assert.deepEqual(requests(source), { catalog: 1, tags: 1, "manifest-head": 3 }, "edge is refused by its tag alone");
});

test("names that would meet, lie too deep or do not fit end the run before anything is planned", async (t) => {
  const setting = await replicationSetting(t);
  const source = await startFakeRegistry(t);
  fill([source], { "a/app": ["v1"], "b/app": ["v1"], "b/web": ["v1"] });
  const from = await setting.addRegistry({ url: source.url });
  const to = await setting.addRegistry({ url: "http://127.0.0.1:9" });
  const hub = await setting.addRegistry({ url: "http://127.0.0.1:10", type: "docker-hub" });
  const attempt = async (where: ReturnType<typeof destination>): Promise<[number, Promise<unknown>]> => {
    const executionId = await beginRun(setting.database);
    return [executionId, planAll(plannerFor(setting, policyOf(from, [where])), executionId)];
  };
  const cases = [
    [destination(to, { namespace: "all", replaceCount: -1 }), /"a\/app" and "b\/app" would both become "all\/app"/],
    [
      destination(to, { namespace: "all", replaceCount: 2 }),
      /contains only 1 path components \[a\] excepting the last one, but the destination namespace flattening level is 2/,
    ],
    [destination(hub, { namespace: "ours", replaceCount: 0 }), /only supports 2/],
  ] as const;
  for (const [where, message] of cases) {
    const [executionId, planning] = await attempt(where);
    await assert.rejects(planning, (error: Error & { code?: string; retryable?: boolean }) => {
      assert.deepEqual([error.code, error.retryable], ["BAD_REQUEST", false]);
      assert.match(error.message, message);
      return true;
    });
    assert.deepEqual(await tasksOf(setting, executionId), []);
  }
});

test("a destination that is away holds no other, and a repository that the source refuses is a failed task", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target, away] = [await startFakeRegistry(t), await startFakeRegistry(t), await startFakeRegistry(t)];
  fill([source, target], { "team/app": ["v1"], "team/secret": ["v1"] });
  source.on({ path: "/v2/team/secret/tags/list" }, (_request, response) => void response.writeHead(403).end());
  away.on({ path: /./ }, (_request, response) => void response.writeHead(503).end());
  const from = await setting.addRegistry({ url: source.url });
  const destinations = [
    destination(await setting.addRegistry({ url: target.url })),
    destination(await setting.addRegistry({ url: away.url }), { position: 1 }),
  ];
  const executionId = await beginRun(setting.database);
  const { batches } = await planAll(plannerFor(setting, policyOf(from, destinations)), executionId);
  assert.deepEqual(
    batches.map((batch) => batch.targets),
    [[destinations[1]?.registryId]],
  );
  assert.deepEqual(
    (await itemsOf(setting, executionId)).map(({ source: name, tag, destination: position }) => [name, tag, position]),
    [["team/app", "v1", 1]],
  );
  const failed = (await tasksOf(setting, executionId)).filter(({ status }) => status === "Error");
  assert.deepEqual(
    failed.map(({ attrs }) => attrs["src_repository"]),
    ["team/secret", "team/secret"],
  );

  const alone = policyOf(from, destinations.slice(1));
  await assert.rejects(planAll(plannerFor(setting, alone), await beginRun(setting.database)), withCode("UPSTREAM_UNAVAILABLE"));
});

for (const pageSize of [1000, 100_000])
  test(`a repository of very many tags, listed ${pageSize} at a time, is planned in steps of bounded size`, async (t) => {
    const setting = await replicationSetting(t);
    const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
    const tags = Array.from({ length: 6_500 }, (_, index) => `t${String(index).padStart(5, "0")}`);
    source.on({ path: /^\/v2\/team\/huge\/tags\/list/ }, (request, response) => {
      const last = new URL(request.url ?? "", "http://x").searchParams.get("last");
      const from = last === null ? 0 : tags.indexOf(last) + 1;
      const page = tags.slice(from, from + pageSize);
      const more = from + pageSize < tags.length ? { link: `</v2/team/huge/tags/list?n=1000&last=${page.at(-1)}>; rel="next"` } : {};
      response.writeHead(200, { "content-type": "application/json", ...more }).end(JSON.stringify({ name: "team/huge", tags: page }));
    });
    source.repository("team/huge");
    const [from, to] = [await setting.addRegistry({ url: source.url }), await setting.addRegistry({ url: target.url })];
    const executionId = await beginRun(setting.database);
    const laterSteps = { durationMs: 10_000, batches: 40 };
    const planner = plannerFor(setting, policyOf(from, [destination(to)]), { laterSteps });
    const { batches, steps, longestCursor } = await planAll(planner, executionId);
    assert.ok(steps >= 3, `${steps} steps`);
    assert.equal(source.count("tags"), Math.ceil(tags.length / pageSize));
    assert.ok(longestCursor < 2048);
    assert.equal(batches.length, 130);
    assert.ok(batches.every((batch) => batch.tasks.length === 1));
    assert.equal(new Set(batches.flatMap((batch) => batch.tasks)).size, 130);
    const { rows } = await setting.database.query<{ items: number; tags: number }>(
      "SELECT count(*) AS items, count(DISTINCT tag) AS tags FROM replication_items WHERE execution_id = $1",
      [executionId],
    );
    assert.deepEqual(rows[0], { items: 6_500, tags: 6_500 });
  });
