/** Runs that are no plain copy: after events, of failed items, dry, auditing, mirroring. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ExecutionStore } from "../../../src/execution/execution-store.ts";
import { ItemStore } from "../../../src/replication/item-store.ts";
import { KnownStore } from "../../../src/replication/known-store.ts";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import { beginRun, destination, policyOf, replicationSetting } from "../support.ts";
import type { ReplicationSetting } from "../support.ts";
import { pushLocal } from "./local-content.ts";
import { fill, itemsOf, linesOf, planAll, plannerFor, requests, tasksOf, unchangedOf } from "./support.ts";

async function noteEvents(
  setting: ReplicationSetting,
  executionId: number,
  events: readonly { repository: string; reference: string; action: "copy" | "delete"; digest?: string }[],
): Promise<void> {
  await setting.database.query("INSERT INTO replication_policies (name, trigger_type, enabled) VALUES ('on events', 'event_based', true)");
  for (const { repository, reference, action, digest } of events)
    await setting.database.query(
      `INSERT INTO replication_events (policy_id, repository, reference, action, digest, execution_id)
       SELECT id, $1, $2, $3, $4, $5 FROM replication_policies`,
      [repository, reference, action, digest ?? null, executionId],
    );
}

test("events are compared one by one, and deletions are carried out where the policy says so", async (t) => {
  const setting = await replicationSetting(t);
  const target = await startFakeRegistry(t);
  const project = await setting.catalog.projects.ensure({ name: "team", public: true, ownerId: null });
  const same = await pushLocal(setting, project, "team/app", { tags: ["same", "new"] });
  target.putManifest("team/app", same.bytes, { tag: "same" });
  const to = await setting.addRegistry({ url: target.url });
  const digest = `sha256:${"d".repeat(64)}`;
  const events = [
    { repository: "team/app", reference: "new", action: "copy" },
    { repository: "team/app", reference: "same", action: "copy" },
    { repository: "team/app", reference: "gone", action: "copy" },
    { repository: "team/app", reference: "old", action: "delete", digest },
    { repository: "other/app", reference: "v1", action: "copy" },
  ] as const;
  const filters = [{ type: "name", kind: "glob", value: "team/**", decoration: "matches" }] as const;
  const executionId = await beginRun(setting.database, { trigger: "event" });
  await noteEvents(setting, executionId, events);
  await planAll(plannerFor(setting, policyOf(0, [destination(to)], { deletion: true, filters })), executionId);
  assert.deepEqual(requests(target), { "manifest-head": 2, "manifest-get": 1 }, "the new one is asked for; nothing is listed");
  assert.deepEqual(
    (await itemsOf(setting, executionId)).map((item) => [item.action, item.tag, item.digest]),
    [
      ["copy", "new", same.digest],
      ["delete", "old", digest],
    ],
  );
  assert.equal(await unchangedOf(setting, executionId), 1);

  await setting.database.query("DELETE FROM replication_policies");
  const careful = await beginRun(setting.database, { trigger: "event" });
  await noteEvents(setting, careful, events.slice(3, 4));
  await planAll(plannerFor(setting, policyOf(0, [destination(to)])), careful);
  assert.deepEqual(await itemsOf(setting, careful), []);
  assert.match((await linesOf(setting, careful)).join("\n"), /1 deletions are left alone/);
});

test("a retry plans the items that did not succeed, for destinations that still are some", async (t) => {
  const setting = await replicationSetting(t);
  const source = await startFakeRegistry(t);
  const targets = [await startFakeRegistry(t), await startFakeRegistry(t)];
  fill([source], { "team/app": ["v1", "v2", "v3"], "team/web": ["v1"] });
  const from = await setting.addRegistry({ url: source.url });
  const ids = await Promise.all(targets.map(({ url }) => setting.addRegistry({ url })));
  const destinations = ids.map((id, position) => destination(id, { position }));
  const first = await beginRun(setting.database);
  await planAll(plannerFor(setting, policyOf(from, destinations)), first);
  await setting.database.query(
    "UPDATE replication_items SET status = CASE WHEN tag = 'v1' THEN 'Success' ELSE 'Error' END WHERE execution_id = $1",
    [first],
  );
  source.resetCalls();
  const second = await beginRun(setting.database, { retryOf: first });
  const { batches } = await planAll(plannerFor(setting, policyOf(from, destinations.slice(0, 1))), second);
  assert.deepEqual(
    (await itemsOf(setting, second)).map(({ source: name, tag, destination: position }) => [name, tag, position]),
    [
      ["team/app", "v2", 0],
      ["team/app", "v3", 0],
    ],
  );
  assert.equal(batches.length, 1);
  assert.deepEqual(requests(source), {});
  assert.match((await linesOf(setting, second)).join("\n"), /no longer a destination of the policy, so that 2 items are not tried again/);
  assert.equal((await new ItemStore(setting.database).unfinished(second, 0, 10)).length, 2);
});

test("a dry run tells what would be copied and how much that is, and hands out nothing", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const shared = Buffer.alloc(5_000, 7);
  for (const tag of ["v1", "v2"]) source.putImage("team/app", tag, [shared]);
  fill([source, target], { "team/same": ["v1"] });
  const [from, to] = [await setting.addRegistry({ url: source.url }), await setting.addRegistry({ url: target.url })];
  const executionId = await beginRun(setting.database, { kind: "dry-run" });
  const { batches } = await planAll(plannerFor(setting, policyOf(from, [destination(to)])), executionId);
  assert.deepEqual(batches, []);
  assert.deepEqual(
    (await itemsOf(setting, executionId)).map(({ tag, status, reason }) => [tag, status, reason]),
    [
      ["v1", "Skipped", "would-copy"],
      ["v2", "Skipped", "would-copy"],
    ],
  );
  assert.deepEqual(
    (await tasksOf(setting, executionId)).map(({ status }) => status),
    ["Success"],
  );
  const execution = await new ExecutionStore(setting.database).find(executionId);
  const plan = execution?.extraAttrs["plan"] as { repositories: Record<string, unknown>[] };
  const [app, same] = plan.repositories;
  const bytes = Number(app?.["bytes"]);
  assert.ok(bytes > 5_000 && bytes < 10_000, `the shared layer counts once: ${bytes}`);
  assert.deepEqual([app?.["source"], app?.["copy"], same?.["source"], same?.["unchanged"]], ["team/app", 2, "team/same", 1]);
  assert.deepEqual(requests(target), { tags: 2, "manifest-head": 1 }, "the destination is only looked at");
});

test("an audit looks at everything of the policy that the destination has", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  fill([source], { "team/app": ["v1", "v2"] });
  fill([target], { "team/app": ["v1", "foreign"] });
  const [from, to] = [await setting.addRegistry({ url: source.url }), await setting.addRegistry({ url: target.url })];
  const executionId = await beginRun(setting.database, { kind: "audit" });
  const { batches } = await planAll(plannerFor(setting, policyOf(from, [destination(to)])), executionId);
  assert.equal(batches.length, 1);
  assert.deepEqual(
    (await itemsOf(setting, executionId)).map(({ action, tag }) => [action, tag]),
    [["audit", "v1"]],
  );
  assert.equal((await tasksOf(setting, executionId))[0]?.attrs["operation"], "audit");
});

test("a mirror deletes what it put there and the source lost, never more than it may, and nothing else", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  fill([source, target], { "team/app": ["v1", "v2", "v3"], "team/gone": ["v1"], "other/app": ["v1"] });
  const [from, to] = [await setting.addRegistry({ url: source.url }), await setting.addRegistry({ url: target.url })];
  const filters = [{ type: "name", kind: "glob", value: "team/*", decoration: "matches" }] as const;
  const policy = policyOf(from, [destination(to)], { mirror: true, maxDeletionPercent: 50, filters });
  const known = new KnownStore(setting.database);
  for (const repository of ["team/app", "team/gone", "other/app"])
    await known.record(
      to,
      [...target.repository(repository).tags].map(([tag, digest]) => ({ repository, tag, digest })),
    );
  // Pushed there by somebody else; the source loses the others, one of which comes back before it is deleted.
  target.putImage("team/app", "foreign");
  source.repository("team/app").tags.delete("v2");
  source.remove("team/gone");
  source.remove("other/app");

  const executionId = await beginRun(setting.database);
  await planAll(plannerFor(setting, policy), executionId);
  assert.deepEqual(
    (await itemsOf(setting, executionId)).map(({ action, target: where, tag }) => [action, where, tag]),
    [
      ["delete", "team/app", "v2"],
      ["delete", "team/gone", "v1"],
    ],
  );
  assert.deepEqual(new Set((await tasksOf(setting, executionId)).map(({ attrs }) => attrs["operation"])), new Set(["deletion"]));

  const few = { ...policy, maxDeletions: 1 };
  const guarded = await beginRun(setting.database);
  await assert.rejects(
    planAll(plannerFor(setting, few), guarded),
    /would delete 2 of 5 tags, and the policy allows at most 1 and at most 50 percent/,
  );
  assert.deepEqual(await tasksOf(setting, guarded), []);
  const forced = await beginRun(setting.database, { force: true });
  await planAll(plannerFor(setting, few), forced);
  assert.equal((await itemsOf(setting, forced)).length, 2);
});
