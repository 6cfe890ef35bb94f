/** Copies between real registries: what arrives, in how many requests, and what the second time costs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { assertSameBytes } from "../../support/bytes.ts";
import { startDockerRegistry } from "../../support/docker-registry.ts";
import { sha256 } from "../../support/fake-answers.ts";
import { OCI_MANIFEST } from "../../support/fake-registry.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { missingTool } from "../../support/tools.ts";
import { buildImage, buildIndex } from "../../support/image.ts";
import type { BuiltImage } from "../../support/image.ts";
import { SOURCE_ID, startCopier } from "./setting.ts";

const skip = missingTool("docker-registry");

async function pushBlob(url: string, repository: string, bytes: Buffer): Promise<string> {
  const digest = sha256(bytes);
  const started = await fetch(`${url}/v2/${repository}/blobs/uploads/`, { method: "POST" });
  const location = new URL(started.headers.get("location") ?? "", url);
  location.searchParams.set("digest", digest);
  const put = await fetch(location, {
    method: "PUT",
    body: new Uint8Array(bytes),
    headers: { "content-type": "application/octet-stream" },
  });
  assert.equal(put.status, 201);
  return digest;
}

async function pushManifest(url: string, at: { repository: string; reference: string; mediaType?: string }, bytes: Buffer): Promise<void> {
  const put = await fetch(`${url}/v2/${at.repository}/manifests/${at.reference}`, {
    method: "PUT",
    body: new Uint8Array(bytes),
    headers: { "content-type": at.mediaType ?? OCI_MANIFEST },
  });
  assert.equal(put.status, 201, await put.text());
}

async function pushImage(url: string, repository: string, tag: string, image: BuiltImage): Promise<void> {
  for (const bytes of image.blobs.values()) await pushBlob(url, repository, bytes);
  await pushManifest(url, { repository, reference: tag }, image.manifestBytes);
}

async function read(url: string, repository: string, what: string): Promise<Buffer | null> {
  const accept = `${OCI_MANIFEST}, application/vnd.oci.image.index.v1+json`;
  const answer = await fetch(`${url}/v2/${repository}/${what}`, { headers: { accept } });
  return answer.ok ? Buffer.from(await answer.arrayBuffer()) : null;
}

async function assertArrived(url: string, repository: string, tag: string, image: BuiltImage): Promise<void> {
  assertSameBytes((await read(url, repository, `manifests/${tag}`)) ?? Buffer.alloc(0), image.manifestBytes, `manifest ${tag}`);
  for (const [digest, bytes] of image.blobs) {
    assertSameBytes((await read(url, repository, `blobs/${digest}`)) ?? Buffer.alloc(0), bytes, digest);
  }
}

/** Two docker-registry processes, each behind a proxy that counts. */
async function startPair(t: TestContext) {
  const source = await startDockerRegistry(t);
  const target = await startDockerRegistry(t);
  const sourceProxy = await startFaultProxy(t, source);
  const targetProxy = await startFaultProxy(t, target);
  return { source, target, sourceProxy, targetProxy };
}

test("copies a repository exactly, each blob once, in the fewest requests", { skip }, async (t) => {
  const { source, target, sourceProxy, targetProxy } = await startPair(t);
  const setting = await startCopier(t, { registries: { [SOURCE_ID]: { url: sourceProxy.url }, 2: { url: targetProxy.url } } });
  const images = [buildImage({ layers: 3, layerBytes: 50_000 }), buildImage({ layers: 2 }), buildImage({ layers: 2 })];
  // The third shares the layers of the first.
  for (const [index, image] of images.entries()) await pushImage(source.url, "team/app", `v${index}`, image);
  const shared = JSON.parse(images[0]?.manifestBytes.toString() ?? "") as object;
  await pushManifest(
    source.url,
    { repository: "team/app", reference: "same-layers" },
    Buffer.from(JSON.stringify({ ...shared, annotations: { a: "b" } })),
  );

  const { executionId, outcome } = await setting.copy({ repository: "team/app", tags: ["v0", "v1", "v2", "same-layers"], targets: [2] });

  assert.deepEqual(outcome, { again: [], succeeded: 1, failed: 0 });
  for (const [index, image] of images.entries()) await assertArrived(target.url, "team/app", `v${index}`, image);
  const blobs = new Set(images.flatMap((image) => [...image.blobs.keys()])).size;
  assert.equal(targetProxy.counts.requests, 2 * blobs + 4, "POST and PUT for each blob, PUT for each tag");
  // One question finds out about the API, its tag schema answer is one more, and the tags are listed once.
  assert.ok(sourceProxy.counts.requests <= blobs + 4 + 2 * 4 + 1, `source: ${sourceProxy.counts.requests} requests`);
  const items = await setting.itemsOf(executionId);
  assert.deepEqual(new Set(items.map((item) => `${item.status} ${item.reason}`)), new Set(["Success copied"]));
  assert.equal(
    items.reduce((sum, item) => sum + item.blobsCopied, 0),
    blobs,
  );
  const figures = await setting.figures(executionId);
  const bytes = images.flatMap((image) => [...image.blobs.values()]).reduce((sum, blob) => sum + blob.length, 0);
  assert.equal(figures.bytesTotal, bytes);
  assert.equal(figures.bytesCopied, bytes);
  const [task] = await setting.tasksOf(executionId);
  assert.equal(task?.status, "Success");

  const before = targetProxy.counts.requests;
  await setting.copy({ repository: "team/app", tags: ["v0", "same-layers"], targets: [2], empty: false });
  assert.equal(targetProxy.counts.requests - before, 2, "what is known to be there costs the tags alone");
});

test("mounts into a second repository what the first one brought", { skip }, async (t) => {
  const { source, target, sourceProxy, targetProxy } = await startPair(t);
  const setting = await startCopier(t, { registries: { [SOURCE_ID]: { url: sourceProxy.url }, 2: { url: targetProxy.url } } });
  const image = buildImage({ layers: 3 });
  await pushImage(source.url, "a/one", "v1", image);
  await pushImage(source.url, "b/two", "v1", image);
  const executionId = await setting.run();
  const tasks = [
    ...(await setting.plan(executionId, { repository: "a/one", tags: ["v1"], targets: [2] })),
    ...(await setting.plan(executionId, { repository: "b/two", tags: ["v1"], targets: [2] })),
  ];
  await setting.copier.copyBatch({ executionId, tasks, round: 1 }, new AbortController().signal);
  await assertArrived(target.url, "a/one", "v1", image);
  await assertArrived(target.url, "b/two", "v1", image);
  const items = await setting.itemsOf(executionId);
  const sum = (pick: (item: (typeof items)[number]) => number): number => items.reduce((total, item) => total + pick(item), 0);
  assert.equal(
    sum((item) => item.blobsCopied),
    4,
  );
  assert.equal(
    sum((item) => item.blobsMounted),
    4,
  );
  const figures = await setting.figures(executionId);
  assert.equal(figures.bytesMounted, figures.bytesCopied);

  // A later run, and another repository: everything is mounted from what is known.
  await pushImage(source.url, "c/three", "v1", image);
  const later = await setting.copy({ repository: "c/three", tags: ["v1"], targets: [2] });
  assert.equal((await setting.item(later.executionId, "v1")).blobsMounted, 4);
  await assertArrived(target.url, "c/three", "v1", image);
});

test("one read of the source serves several destinations", { skip }, async (t) => {
  const { source, target, sourceProxy } = await startPair(t);
  const second = await startDockerRegistry(t);
  const slow = await startFaultProxy(t, second);
  const registries = { [SOURCE_ID]: { url: sourceProxy.url }, 2: { url: target.url }, 3: { url: slow.url } };
  const setting = await startCopier(t, { registries });
  const image = buildImage({ layers: 2, layerBytes: 3_000_000 });
  await pushImage(source.url, "team/app", "v1", image);
  slow.set({ delayMs: 20 });
  const { outcome, executionId } = await setting.copy({ repository: "team/app", tags: ["v1"], targets: [2, 3] });
  assert.deepEqual(outcome, { again: [], succeeded: 2, failed: 0 });
  await assertArrived(target.url, "team/app", "v1", image);
  await assertArrived(second.url, "team/app", "v1", image);
  const size = [...image.blobs.values()].reduce((sum, blob) => sum + blob.length, 0);
  assert.ok(sourceProxy.counts.bytesDown < size * 1.1, `the source sent ${sourceProxy.counts.bytesDown} of ${size} bytes`);
  assert.equal((await setting.figures(executionId)).bytesCopied, size * 2);
});

test("an index comes with its children, and with some of them where platforms are chosen", { skip }, async (t) => {
  const { source, target } = await startPair(t);
  const registries = { [SOURCE_ID]: { url: source.url }, 2: { url: target.url } };
  const built = buildIndex([buildImage({ architecture: "amd64" }), buildImage({ architecture: "arm64" })]);
  const mediaType = built.index.mediaType;
  for (const image of built.images) await pushImage(source.url, "team/multi", image.manifest.digest, image);
  await pushManifest(source.url, { repository: "team/multi", reference: "v1", mediaType }, built.indexBytes);
  const setting = await startCopier(t, { registries });
  const { outcome } = await setting.copy({ repository: "team/multi", tags: ["v1"], targets: [2] });
  assert.equal(outcome.succeeded, 1);
  assertSameBytes((await read(target.url, "team/multi", "manifests/v1")) ?? Buffer.alloc(0), built.indexBytes);
  for (const image of built.images) await assertArrived(target.url, "team/multi", image.manifest.digest, image);
});

test("a registry that wants whole indexes says so when platforms are chosen", { skip }, async (t) => {
  const { source, target } = await startPair(t);
  const platform = { type: "platform", kind: "glob", value: ["linux/arm64"], decoration: "matches" } as const;
  const registries = { [SOURCE_ID]: { url: source.url }, 2: { url: target.url } };
  const setting = await startCopier(t, { registries, policy: { filters: [platform] } });
  const built = buildIndex([buildImage({ architecture: "amd64" }), buildImage({ architecture: "arm64" })]);
  for (const image of built.images) await pushImage(source.url, "team/multi", image.manifest.digest, image);
  const { mediaType } = built.index;
  await pushManifest(source.url, { repository: "team/multi", reference: "v1", mediaType }, built.indexBytes);
  const { executionId, outcome } = await setting.copy({ repository: "team/multi", tags: ["v1"], targets: [2] });
  assert.equal(outcome.failed, 1);
  const item = await setting.item(executionId, "v1");
  assert.deepEqual([item.status, item.reason], ["Error", "refused"]);
  assert.match(item.message, /only some platforms/);
});

test("deletions at a registry that deletes manifests only", { skip }, async (t) => {
  const { source, target } = await startPair(t);
  const setting = await startCopier(t, { registries: { [SOURCE_ID]: { url: source.url }, 2: { url: target.url } } });
  const [shared, alone] = [buildImage({ layers: 1 }), buildImage({ layers: 1 })];
  await pushImage(target.url, "team/old", "a", shared);
  await pushImage(target.url, "team/old", "b", shared);
  await pushImage(target.url, "team/old", "c", alone);
  const plan = { repository: "team/old", targets: [2], action: "delete", empty: false } as const;
  const kept = await setting.copy({ ...plan, tags: ["a"], digest: shared.manifest.digest });
  assert.equal((await setting.item(kept.executionId, "a")).reason, "refused");
  const gone = await setting.copy({ ...plan, tags: ["c"], digest: alone.manifest.digest });
  assert.equal((await setting.item(gone.executionId, "c")).reason, "deleted");
  assert.equal(await read(target.url, "team/old", "manifests/c"), null);
  assert.ok(await read(target.url, "team/old", "manifests/a"));
});

test("what the tag schema lists as referrers, and tags of signatures, come along", { skip }, async (t) => {
  const { source, target } = await startPair(t);
  const setting = await startCopier(t, { registries: { [SOURCE_ID]: { url: source.url }, 2: { url: target.url } } });
  const image = buildImage();
  await pushImage(source.url, "team/signed", "v1", image);
  const empty = Buffer.from("{}");
  await pushBlob(source.url, "team/signed", empty);
  const descriptor = { mediaType: "application/vnd.oci.empty.v1+json", digest: sha256(empty), size: empty.length };
  const sbom = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      artifactType: "application/spdx+json",
      config: descriptor,
      layers: [descriptor],
      subject: image.manifest,
    }),
  );
  await pushManifest(source.url, { repository: "team/signed", reference: sha256(sbom) }, sbom);
  const schemaTag = image.manifest.digest.replace(":", "-");
  const list = { schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json" };
  const entry = { mediaType: OCI_MANIFEST, digest: sha256(sbom), size: sbom.length, artifactType: "application/spdx+json" };
  await pushManifest(
    source.url,
    { repository: "team/signed", reference: schemaTag, mediaType: list.mediaType },
    Buffer.from(JSON.stringify({ ...list, manifests: [entry] })),
  );
  const signature = buildImage({ layers: 1 });
  await pushImage(source.url, "team/signed", `${schemaTag}.sig`, signature);

  const { outcome } = await setting.copy({ repository: "team/signed", tags: ["v1"], targets: [2] });

  assert.equal(outcome.succeeded, 1);
  assertSameBytes((await read(target.url, "team/signed", `manifests/${sha256(sbom)}`)) ?? Buffer.alloc(0), sbom);
  await assertArrived(target.url, "team/signed", `${schemaTag}.sig`, signature);
  const listed = JSON.parse((await read(target.url, "team/signed", `manifests/${schemaTag}`))?.toString() ?? "{}") as {
    manifests: object[];
  };
  assert.deepEqual(listed.manifests, [entry]);
});

test("a large blob goes in chunks, read in parallel ranges, and arrives whole", { skip }, async (t) => {
  const { source, target, sourceProxy, targetProxy } = await startPair(t);
  const registries = { [SOURCE_ID]: { url: sourceProxy.url }, 2: { url: targetProxy.url } };
  const tuning = { divideBytes: 4_000_000, rangeBytes: 1_000_000, parallel: 3, chunkBytes: 2_000_000 };
  const setting = await startCopier(t, { registries, options: { tuning } });
  const image = buildImage({ layers: 1, layerBytes: 9_000_000 });
  await pushImage(source.url, "team/large", "v1", image);
  const { outcome, executionId } = await setting.copy({ repository: "team/large", tags: ["v1"], targets: [2] });
  assert.equal(outcome.succeeded, 1);
  await assertArrived(target.url, "team/large", "v1", image);
  assert.equal(targetProxy.counts.requests, 2 + (1 + 5 + 1) + 1);
  const { rows } = await setting.database.query<{ count: number }>("SELECT count(*) AS count FROM copy_uploads");
  assert.equal(rows[0]?.count, 0);
  const size = [...image.blobs.values()].reduce((sum, blob) => sum + blob.length, 0);
  assert.equal((await setting.figures(executionId)).bytesCopied, size);
});

test("several large blobs at once are not read in many ranges each", { skip }, async (t) => {
  const { source, target, sourceProxy } = await startPair(t);
  const registries = { [SOURCE_ID]: { url: sourceProxy.url }, 2: { url: target.url } };
  const tuning = { divideBytes: 4_000_000, rangeBytes: 1_000_000, parallel: 2 };
  const setting = await startCopier(t, { registries, options: { tuning } });
  const image = buildImage({ layers: 4, layerBytes: 9_000_000 });
  await pushImage(source.url, "team/large", "v1", image);
  const { outcome } = await setting.copy({ repository: "team/large", tags: ["v1"], targets: [2] });
  assert.equal(outcome.succeeded, 1);
  await assertArrived(target.url, "team/large", "v1", image);
  // Divided, each of the four would take nine.
  assert.ok(sourceProxy.counts.requests < 20, `${sourceProxy.counts.requests} requests`);
});
