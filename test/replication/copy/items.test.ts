/** What else is asked of items: referrers by API, platforms, nothing overridden, deletions, audits, and how a run is stopped or paused. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { isSlipwayError } from "../../../src/core/errors.ts";
import { KnownStore } from "../../../src/replication/known-store.ts";
import { fail, sha256 } from "../../support/fake-answers.ts";
import { OCI_INDEX, OCI_MANIFEST, startFakeRegistry } from "../../support/fake-registry.ts";
import type { FakeRegistry } from "../../support/fake-registry.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { eventually } from "../../support/maintenance.ts";
import { SOURCE_ID, startCopier } from "./setting.ts";
import type { CopierSetting, CopyTest } from "./setting.ts";

const REPOSITORY = "team/app";

async function start(t: TestContext, rest: Partial<CopierSetting> = {}) {
  const source = await startFakeRegistry(t);
  const target = await startFakeRegistry(t);
  const registries = { [SOURCE_ID]: { url: source.url }, 2: { url: target.url, ...rest.registries?.[2] } };
  return { source, target, setting: await startCopier(t, { ...rest, registries }) };
}

/** An artifact that refers to a manifest. */
function putReferrer(source: FakeRegistry, subject: string, kind: string): string {
  const config = Buffer.from("{}");
  const digest = source.putBlob(REPOSITORY, config);
  const size = source.repository(REPOSITORY).manifests.get(subject)?.bytes.length ?? 0;
  return source.putManifest(REPOSITORY, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: kind,
    config: { mediaType: "application/vnd.oci.empty.v1+json", digest, size: config.length },
    layers: [],
    subject: { mediaType: OCI_MANIFEST, digest: subject, size },
  });
}

test("referrers come with their subject, those of referrers too, before the tag is seen", async (t) => {
  const { source, target, setting } = await start(t);
  const subject = source.putImage(REPOSITORY, "v1");
  const sbom = putReferrer(source, subject, "application/spdx+json");
  const signature = putReferrer(source, sbom, "application/signature");
  const { outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.equal(outcome.succeeded, 1);
  const puts = target.calls.filter((call) => call.kind === "manifest-put").map((call) => call.url.split("/").at(-1));
  assert.equal(puts[0], subject);
  assert.equal(puts.at(-1), "v1");
  for (const digest of [sbom, signature]) assert.ok(puts.includes(digest) && target.repository(REPOSITORY).manifests.has(digest));
  // This target did not say that it keeps the lists itself.
  const list = target.repository(REPOSITORY).tags.get(subject.replace(":", "-")) ?? "";
  assert.match(target.repository(REPOSITORY).manifests.get(list)?.bytes.toString() ?? "", new RegExp(sbom));
});

test("of an index only the chosen platforms come, and the index itself is exact", async (t) => {
  const platform = { type: "platform", kind: "glob", value: ["linux/arm64"], decoration: "matches" } as const;
  const { source, target, setting } = await start(t, { policy: { filters: [platform] } });
  const children = ["amd64", "arm64"].map((architecture) => {
    const digest = source.putImage(REPOSITORY, architecture, [Buffer.from(`layer for ${architecture}`)]);
    const size = source.repository(REPOSITORY).manifests.get(digest)?.bytes.length ?? 0;
    return { mediaType: OCI_MANIFEST, digest, size, platform: { os: "linux", architecture } };
  });
  const index = source.putManifest(
    REPOSITORY,
    { schemaVersion: 2, mediaType: OCI_INDEX, manifests: children },
    { tag: "v1", mediaType: OCI_INDEX },
  );
  const { outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.equal(outcome.succeeded, 1);
  const there = target.repository(REPOSITORY);
  assert.equal(there.tags.get("v1"), index);
  assert.deepEqual(
    children.map((child) => there.manifests.has(child.digest)),
    [false, true],
  );
  assert.equal(there.blobs.size, 2);
});

test("without override a tag that is something else stays", async (t) => {
  const { source, target, setting } = await start(t, { policy: { override: false } });
  source.putImage(REPOSITORY, "taken");
  source.putImage(REPOSITORY, "free");
  const kept = target.putImage(REPOSITORY, "taken", [Buffer.from("another")]);
  const { executionId, outcome } = await setting.copy({ repository: REPOSITORY, tags: ["taken", "free"], targets: [2], empty: false });
  assert.equal(outcome.succeeded, 1);
  assert.equal(target.repository(REPOSITORY).tags.get("taken"), kept);
  assert.ok(target.repository(REPOSITORY).tags.has("free"));
  const item = await setting.item(executionId, "taken");
  assert.deepEqual([item.status, item.reason], ["Skipped", "not-overridden"]);
});

test("a deletion takes what was deleted at the source, and nothing that changed since", async (t) => {
  const { source, target, setting } = await start(t);
  const digest = target.putImage(REPOSITORY, "old");
  target.putImage(REPOSITORY, "moved", [Buffer.from("new work")]);
  const plan = { repository: REPOSITORY, tags: ["old", "moved", "gone"], targets: [2], action: "delete", digest, empty: false } as const;
  const { executionId, outcome } = await setting.copy(plan);
  assert.equal(outcome.succeeded, 1);
  assert.deepEqual([...target.repository(REPOSITORY).tags.keys()], ["moved"]);
  const reasons = (await setting.itemsOf(executionId)).map((item) => `${item.tag} ${item.status} ${item.reason}`);
  assert.deepEqual(reasons, ["old Success deleted", "moved Skipped diverged", "gone Success already-gone"]);
  assert.equal(source.calls.length, 0);
});

test("where tags cannot be deleted, a manifest goes only when no other tag needs it", async (t) => {
  const { target, setting } = await start(t);
  target.on({ method: "DELETE", path: /manifests\/(?!sha256)/ }, (_request, response) => fail(response, 400, "UNSUPPORTED"));
  const shared = target.putImage(REPOSITORY, "a");
  target.repository(REPOSITORY).tags.set("b", shared);
  const alone = target.putImage(REPOSITORY, "c", [Buffer.from("alone")]);
  const plan = { repository: REPOSITORY, targets: [2], action: "delete", empty: false } as const;
  const first = await setting.copy({ ...plan, tags: ["a"], digest: shared });
  assert.deepEqual([(await setting.item(first.executionId, "a")).reason, first.outcome.failed], ["refused", 1]);
  await setting.copy({ ...plan, tags: ["c"], digest: alone });
  assert.deepEqual(
    [target.repository(REPOSITORY).manifests.has(shared), target.repository(REPOSITORY).manifests.has(alone)],
    [true, false],
  );
});

test("an audit names what is missing at the target", async (t) => {
  const { source, target, setting } = await start(t);
  const layer = randomBytes(500);
  const subject = source.putImage(REPOSITORY, "v1", [layer]);
  source.putImage(REPOSITORY, "v2", [randomBytes(500)]);
  const referrer = putReferrer(source, subject, "application/spdx+json");
  await setting.copy({ repository: REPOSITORY, tags: ["v1", "v2"], targets: [2] });
  target.repository(REPOSITORY).blobs.delete(sha256(layer));
  target.repository(REPOSITORY).manifests.delete(referrer);
  const puts = target.count("manifest-put");
  const { executionId, outcome } = await setting.copy({
    repository: REPOSITORY,
    tags: ["v1", "v2"],
    targets: [2],
    action: "audit",
    empty: false,
  });
  assert.equal(outcome.failed, 1);
  const item = await setting.item(executionId, "v1");
  assert.deepEqual([item.status, item.reason], ["Error", "incomplete-at-target"]);
  assert.ok(item.message.includes(sha256(layer)) && item.message.includes(referrer), item.message);
  assert.deepEqual((await setting.item(executionId, "v2")).reason, "up-to-date");
  assert.equal(target.count("manifest-put"), puts);
});

test("what arrived is known afterwards, and told in the task's log", async (t) => {
  const { source, setting } = await start(t);
  const digest = source.putImage(REPOSITORY, "v1");
  const { executionId } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.equal((await new KnownStore(setting.database).digests(2, REPOSITORY)).get("v1")?.digest, digest);
  const { rows } = await setting.database.query<{ line: string }>("SELECT line FROM execution_logs WHERE execution_id = $1", [executionId]);
  assert.match(rows[0]?.line ?? "", /^team\/app:v1 to team\/app copied; 2 blobs copied/);
});

async function interrupt(t: TestContext, stop: boolean, later?: (setting: CopyTest, executionId: number) => Promise<void>) {
  const { source, target, setting } = await start(t, { options: { tuning: { chunkBytes: 100_000 } } });
  source.putImage(REPOSITORY, "v1", [randomBytes(350_000)]);
  let held = false;
  // Takes two chunks and never answers the third.
  let chunks = 0;
  target.on({ method: "PATCH", path: /uploads/, times: 3 }, (request, response, body) => {
    chunks += 1;
    held = chunks === 3;
    if (held) return;
    response.writeHead(202, { location: request.url ?? "", range: `0-${chunks * 100_000 - 1}` }).end();
    assert.equal(body.length, 100_000);
  });
  const executionId = await setting.run();
  const tasks = await setting.plan(executionId, { repository: REPOSITORY, tags: ["v1"], targets: [2] });
  const abort = new AbortController();
  const copying = setting.copier.copyBatch({ executionId, tasks, round: 1 }, abort.signal);
  copying.catch(() => undefined);
  await eventually("a held chunk", () => Promise.resolve(held));
  if (stop) await setting.executions.end(executionId, "Stopped", "stopped by a person");
  const begun = Date.now();
  abort.abort();
  await assert.rejects(copying, (error) => isSlipwayError(error, "CANCELLED"));
  assert.ok(Date.now() - begun < 5_000);
  await later?.(setting, executionId);
  const { rows } = await setting.database.query<{ session: string }>("SELECT session FROM copy_uploads");
  const cancelled = target.calls.filter((call) => call.method === "DELETE").length;
  const claims = await setting.database.query<{ count: number }>("SELECT count(*) AS count FROM copy_claims");
  return { kept: rows, cancelled, claims: claims.rows[0]?.count };
}

test("a stopped run cancels its half-written uploads at the target", async (t) => {
  assert.deepEqual(await interrupt(t, true), { kept: [], cancelled: 1, claims: 0 });
});

test("a paused run keeps them, sealed, for whoever goes on", async (t) => {
  const { kept, cancelled, claims } = await interrupt(t, false);
  assert.deepEqual([kept.length, cancelled, claims], [1, 0, 0]);
  assert.doesNotMatch(kept[0]?.session ?? "", /uploads|_state/);
});

test("what a paused run kept is cancelled when that is stopped, by whoever comes by", async (t) => {
  const signal = AbortSignal.timeout(20_000);
  const found: number[] = [];
  const stop = async ({ copier, executions }: CopyTest, executionId: number): Promise<void> => {
    found.push(await copier.abandonUploads(executionId, signal), await copier.abandonUploads(null, signal));
    await executions.end(executionId, "Stopped", "stopped by a person");
    found.push(await copier.abandonUploads(null, signal));
  };
  assert.deepEqual(await interrupt(t, false, stop), { kept: [], cancelled: 1, claims: 0 });
  assert.deepEqual(found, [0, 0, 1], "nothing while it may go on");
});

test("no target gets more than half of a worker's batches", async (t) => {
  const { source, target, setting } = await start(t, { options: { slots: 2 } });
  source.putImage(REPOSITORY, "v1");
  let release = (): void => undefined;
  const gate = new Promise<void>((resolve) => (release = resolve));
  target.on({ method: "POST", path: /uploads/, times: 1 }, async (_request, response) => {
    await gate;
    fail(response, 500, "UNKNOWN");
  });
  const first = setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  await eventually("a busy target", () => Promise.resolve(target.count("upload") > 0));
  const second = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.deepEqual([second.outcome.again.length, second.outcome.again[0]?.tried, second.outcome.succeeded], [1, false, 0]);
  assert.deepEqual((await setting.item(second.executionId, "v1")).attempts, 0);
  release();
  assert.equal((await first).outcome.succeeded, 1);
});

test("a destination that takes its time does not hold up another that gets the same", async (t) => {
  const [source, fast, slow] = [await startFakeRegistry(t), await startFakeRegistry(t), await startFakeRegistry(t)];
  const lane = await startFaultProxy(t, slow);
  const layers = [randomBytes(300_000), randomBytes(300_000)];
  source.putImage(REPOSITORY, "v1", layers);
  // Every answer comes late.
  lane.set({ delayMs: 800 });
  const registries = { [SOURCE_ID]: { url: source.url }, 2: { url: fast.url }, 3: { url: lane.url } };
  const setting = await startCopier(t, { registries });
  const executionId = await setting.run();
  const tasks = await setting.plan(executionId, { repository: REPOSITORY, tags: ["v1"], targets: [2, 3] });
  const copying = setting.copier.copyBatch({ executionId, tasks, round: 1 }, new AbortController().signal);
  await eventually("the fast one has the tag", () => Promise.resolve(fast.repository(REPOSITORY).tags.has("v1")), 20_000);
  assert.equal(slow.repository(REPOSITORY).tags.has("v1"), false, "the slow one is still being served");
  lane.set({ delayMs: 0 });
  assert.deepEqual(await copying, { again: [], succeeded: 2, failed: 0 });
  assert.equal(slow.repository(REPOSITORY).tags.get("v1"), source.repository(REPOSITORY).tags.get("v1"));
});
