/** The local registry as target and as source, in process. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { assertSameBytes } from "../../support/bytes.ts";
import { sha256 } from "../../support/fake-answers.ts";
import { OCI_MANIFEST, startFakeRegistry } from "../../support/fake-registry.ts";
import { tempDir } from "../../support/temp.ts";
import { readAll } from "../../upstream/support.ts";
import { replicationSetting } from "../support.ts";
import { buildCopier, Plans } from "./setting.ts";

const SIGNAL = new AbortController().signal;
const LOCAL = 0;

test("what comes into the local registry and goes out of it again is the same, large blobs and referrers among it", async (t) => {
  const setting = await replicationSetting(t);
  const { database, adapters } = setting;
  const [from, to] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const [sourceId, targetId] = [await setting.addRegistry({ url: from.url }), await setting.addRegistry({ url: to.url })];
  const folder = await tempDir(t, "copy-staging-");
  const kv = { increment: () => Promise.resolve(0), publish: () => Promise.resolve() };
  const plans = new Plans(database);
  const copy = async (source: number, target: number, repository: string): Promise<void> => {
    const tuning = { chunkBytes: 500_000, divideBytes: 400_000, rangeBytes: 200_000 };
    const built = buildCopier(
      { registries: {}, policy: { sourceRegistryId: source }, options: { adapters, tuning } },
      { database, kv, folder },
    );
    const executionId = await plans.run();
    const tasks = await plans.plan(executionId, { repository, tags: ["v1", "v2"], targets: [target] });
    const outcome = await built.copier.copyBatch({ executionId, tasks, round: 1 }, SIGNAL);
    await built.close();
    const items = await plans.itemsOf(executionId);
    assert.deepEqual(outcome, { again: [], succeeded: 1, failed: 0 }, JSON.stringify(items.map((item) => item.message)));
  };
  const large = randomBytes(1_700_000);
  const subject = from.putImage("team/app", "v1", [large, randomBytes(300)]);
  from.putImage("team/app", "v2", [large]);
  const config = from.putBlob("team/app", Buffer.from("{}"));
  const describe = { mediaType: "application/vnd.oci.empty.v1+json", digest: config, size: 2 };
  const referrer = from.putManifest("team/app", {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: "application/spdx+json",
    config: describe,
    layers: [describe],
    subject: { mediaType: OCI_MANIFEST, digest: subject, size: from.repository("team/app").manifests.get(subject)?.bytes.length ?? 0 },
  });

  await copy(sourceId, LOCAL, "team/app");
  const local = await adapters.open(LOCAL, SIGNAL);
  assert.equal((await local.headManifest("team/app", "v1", SIGNAL)).digest, subject);
  assert.deepEqual(
    (await local.listReferrers("team/app", subject, SIGNAL)).map((each) => each.digest),
    [referrer],
  );
  assertSameBytes(await readAll(await local.readBlob("team/app", { digest: sha256(large), size: large.length }, SIGNAL)), large);

  await copy(LOCAL, targetId, "team/app");
  const there = to.repository("team/app");
  assert.deepEqual([there.tags.get("v1"), there.manifests.has(referrer)], [subject, true]);
  for (const [digest, bytes] of from.repository("team/app").blobs) assertSameBytes(there.blobs.get(digest) ?? Buffer.alloc(0), bytes);
});
