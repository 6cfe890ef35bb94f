/** Signatures and the like that come later to a tag that stays as it is: by events, by listings, by the referrers API, by tags of their own. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { KnownStore } from "../../../src/replication/known-store.ts";
import type { PolicyFilter } from "../../../src/replication/plan/policy.ts";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import type { FakeRegistry } from "../../support/fake-registry.ts";
import { beginRun, destination, policyOf, replicationSetting } from "../support.ts";
import type { ReplicationSetting } from "../support.ts";
import { pushLocal } from "./local-content.ts";
import { fill, itemsOf, planAll, plannerFor, requests, unchangedOf } from "./support.ts";

const VERSIONS: PolicyFilter = { type: "tag", kind: "glob", value: "v*", decoration: "matches" };

function signatureOf(registry: FakeRegistry, name: string, digest: string, tag?: string): string {
  const config = registry.putBlob(name, Buffer.from("{}"));
  const descriptor = { mediaType: "application/vnd.oci.empty.v1+json", digest: config, size: 2 };
  const subject = tag === undefined ? { subject: { mediaType: "application/vnd.oci.image.manifest.v1+json", digest, size: 1 } } : {};
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: descriptor,
    layers: [],
    ...subject,
  };
  return registry.putManifest(name, manifest, tag === undefined ? {} : { tag });
}

async function plan(setting: ReplicationSetting, policy: ReturnType<typeof policyOf>): Promise<[(string | null)[], number]> {
  const executionId = await beginRun(setting.database);
  await planAll(plannerFor(setting, policy), executionId);
  return [(await itemsOf(setting, executionId)).map(({ tag }) => tag), await unchangedOf(setting, executionId)];
}

test("an event of a signature copies what it belongs to when one of its tags is selected, though that is unchanged", async (t) => {
  const setting = await replicationSetting(t);
  const target = await startFakeRegistry(t);
  const project = await setting.catalog.projects.ensure({ name: "team", public: true, ownerId: null });
  const [wanted, other] = [
    await pushLocal(setting, project, "team/app", { tags: ["v1"] }),
    await pushLocal(setting, project, "team/app", { tags: ["latest"] }),
  ];
  for (const image of [wanted, other]) target.putManifest("team/app", image.bytes, {});
  const signature = await pushLocal(setting, project, "team/app", { subject: wanted });
  const to = await setting.addRegistry({ url: target.url });
  await setting.database.query("INSERT INTO replication_policies (name, trigger_type, enabled) VALUES ('on events', 'event_based', true)");
  const executionId = await beginRun(setting.database, { trigger: "event" });
  for (const { digest } of [wanted, other, signature])
    await setting.database.query(
      `INSERT INTO replication_events (policy_id, repository, reference, action, execution_id)
       SELECT id, 'team/app', $1, 'copy', $2 FROM replication_policies`,
      [digest, executionId],
    );
  await planAll(plannerFor(setting, policyOf(0, [destination(to)], { filters: [VERSIONS] })), executionId);
  assert.deepEqual(
    (await itemsOf(setting, executionId)).map(({ tag, digest }) => [tag, digest]).toSorted(),
    [
      [null, wanted.digest],
      [null, signature.digest],
    ].toSorted(),
    "a signature of the signature leads to the same tag",
  );
});

test("a listing that tells what refers to a tag is compared with what was copied along with it", async (t) => {
  const setting = await replicationSetting(t);
  const target = await startFakeRegistry(t);
  const project = await setting.catalog.projects.ensure({ name: "team", public: true, ownerId: null });
  const image = await pushLocal(setting, project, "team/app", { tags: ["v1"] });
  target.putManifest("team/app", image.bytes, { tag: "v1" });
  const to = await setting.addRegistry({ url: target.url });
  const policy = policyOf(0, [destination(to)]);
  assert.deepEqual(await plan(setting, policy), [[], 1]);
  const signature = await pushLocal(setting, project, "team/app", { subject: image });
  assert.deepEqual(await plan(setting, policy), [["v1"], 0]);
  const copied = { repository: "team/app", tag: "v1", digest: image.digest, referrers: [signature.digest] };
  await new KnownStore(setting.database).record(to, [copied]);
  assert.deepEqual(await plan(setting, policy), [[], 1], "what was copied along is known");
});

test("a source with the referrers API is asked once for each unchanged tag, one without it only once", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  fill([source, target], { "team/app": ["v1", "v2"] });
  const [from, to] = [await setting.addRegistry({ url: source.url }), await setting.addRegistry({ url: target.url })];
  const policy = policyOf(from, [destination(to)]);
  assert.deepEqual(await plan(setting, policy), [[], 2]);
  assert.equal(requests(source)["referrers"], 2);
  const digest = source.repository("team/app").tags.get("v2") ?? "";
  const signature = signatureOf(source, "team/app", digest);
  assert.deepEqual(await plan(setting, policy), [["v2"], 1]);
  await new KnownStore(setting.database).record(to, [{ repository: "team/app", tag: "v2", digest, referrers: [signature] }]);
  assert.deepEqual(await plan(setting, policy), [[], 2]);

  const old = await startFakeRegistry(t);
  old.referrersApi = false;
  fill([old], { "team/app": ["v1", "v2"] });
  const fromOld = policyOf(await setting.addRegistry({ url: old.url }), [destination(to)]);
  await plan(setting, fromOld);
  await plan(setting, fromOld);
  const { other: refused = 0, referrers = 0 } = requests(old);
  assert.equal(refused + referrers, 1, "it was found out that it has none");
});

test("signatures under tags of their own come with tags that are selected, also to those that are there already", async (t) => {
  const setting = await replicationSetting(t);
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  source.referrersApi = false;
  fill([source, target], { "team/app": ["v1", "latest"] });
  const policy = policyOf(await setting.addRegistry({ url: source.url }), [destination(await setting.addRegistry({ url: target.url }))], {
    filters: [VERSIONS],
  });
  assert.deepEqual(await plan(setting, policy), [[], 1]);
  const tagOf = (tag: string): string => `${(source.repository("team/app").tags.get(tag) ?? "").replace(":", "-")}.sig`;
  for (const tag of ["v1", "latest"]) signatureOf(source, "team/app", "", tagOf(tag));
  assert.deepEqual(await plan(setting, policy), [[tagOf("v1")], 1], "that of a tag which is not selected stays");
  signatureOf(target, "team/app", "", tagOf("v1"));
  assert.deepEqual(await plan(setting, policy), [[], 2]);
});
