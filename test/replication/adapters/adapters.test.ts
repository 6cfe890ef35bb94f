/** What every adapter can do, against a registry of the protocol and against the local registry in process: the same calls, the same outcomes. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "node:test";
import type { TestContext } from "node:test";
import type { RegistryAdapter } from "../../../src/replication/adapters/adapter.ts";
import { startDockerRegistry } from "../../support/docker-registry.ts";
import { sha256 } from "../../support/fake-answers.ts";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import { missingTool } from "../../support/tools.ts";
import { imageManifest, indexManifest } from "../../catalog/support.ts";
import { readAll, withCode } from "../../upstream/support.ts";
import { replicationSetting } from "../support.ts";
import type { ReplicationSetting } from "../support.ts";

const SIGNAL = new AbortController().signal;
const IMAGE = "application/vnd.oci.image.manifest.v1+json";
const INDEX = "application/vnd.oci.image.index.v1+json";

interface Case {
  readonly name: string;
  readonly skip: string | false;
  /** Whether it deletes a tag and leaves the manifest. */
  readonly deletesTags: boolean;
  open(t: TestContext, setting: ReplicationSetting): Promise<number>;
}

const CASES: readonly Case[] = [
  { name: "local", skip: false, deletesTags: true, open: () => Promise.resolve(0) },
  {
    name: "distribution",
    skip: missingTool("docker-registry"),
    deletesTags: false,
    open: async (t, setting) => await setting.addRegistry({ url: (await startDockerRegistry(t)).url }),
  },
  {
    name: "a registry on a socket",
    skip: false,
    deletesTags: true,
    open: async (t, setting) => await setting.addRegistry({ url: (await startFakeRegistry(t)).url }),
  },
];

async function put(adapter: RegistryAdapter, repository: string, bytes: Buffer): Promise<string> {
  const digest = sha256(bytes);
  const blob = { digest, size: bytes.length, open: () => Promise.resolve(Readable.from([bytes])) };
  assert.equal((await adapter.putBlob(repository, blob, null, SIGNAL)).digest ?? digest, digest);
  return digest;
}

for (const kind of CASES) {
  test(`${kind.name}: content goes in and comes out as it was`, { skip: kind.skip }, async (t) => {
    const setting = await replicationSetting(t);
    const registryId = await kind.open(t, setting);
    const adapter = await setting.adapters.openTarget({ registryId, sourceRegistryId: 7 }, SIGNAL);
    assert.deepEqual(await adapter.prepare("team/app", { public: true }, SIGNAL), { usable: true });
    assert.deepEqual((await adapter.listArtifacts("team/app", null, SIGNAL)).artifacts, []);

    const [config, layer] = [randomBytes(40), randomBytes(100)];
    const digests = [await put(adapter, "team/app", config), await put(adapter, "team/app", layer)] as const;
    assert.deepEqual(
      [await adapter.hasBlob("team/app", digests[1], SIGNAL), await adapter.hasBlob("team/web", digests[1], SIGNAL)],
      [true, false],
    );
    assert.deepEqual(await adapter.mountBlob("team/web", { digest: digests[1], from: "team/app" }, SIGNAL), { mounted: true });
    assert.equal((await adapter.mountBlob("team/web", { digest: sha256("absent"), from: "team/app" }, SIGNAL)).mounted, false);

    const bytes = imageManifest({ config: digests[0], configSize: 40, layer: digests[1], layerSize: 100 });
    const digest = sha256(bytes);
    await assert
      .rejects(
        adapter.putManifest("team/web", { reference: "v1", bytes, mediaType: IMAGE, digest }, SIGNAL),
        withCode("MANIFEST_BLOB_UNKNOWN"),
      )
      .catch((error: unknown) => {
        // The scripted registry takes everything.
        if (kind.name !== "a registry on a socket") throw error;
      });
    const put1 = { reference: digest, bytes, mediaType: IMAGE, digest };
    assert.equal((await adapter.putManifest("team/app", put1, SIGNAL)).digest, digest);
    const index = indexManifest([{ digest, size: bytes.length }]);
    const put2 = { reference: "v1", bytes: index, mediaType: INDEX, digest: sha256(index) };
    assert.equal((await adapter.putManifest("team/app", put2, SIGNAL)).digest, sha256(index));
    await adapter.putManifest("team/app", { ...put1, reference: "v0" }, SIGNAL);

    const head = await adapter.headManifest("team/app", "v1", SIGNAL);
    assert.deepEqual([head.digest, head.mediaType], [sha256(index), INDEX]);
    assert.ok((await adapter.getManifest("team/app", digest, SIGNAL)).bytes.equals(bytes));
    await assert.rejects(adapter.getManifest("team/app", "absent", SIGNAL), withCode("MANIFEST_UNKNOWN"));
    assert.ok((await readAll(await adapter.readBlob("team/app", { digest: digests[1], size: 100 }, SIGNAL))).equals(layer));
    const part = await adapter.readBlob("team/app", { digest: digests[1], size: 100, range: { start: 90 } }, SIGNAL);
    assert.ok((await readAll(part)).equals(layer.subarray(90)));
    await assert.rejects(adapter.readBlob("team/app", { digest: sha256("absent"), size: 6 }, SIGNAL), withCode("BLOB_UNKNOWN"));

    const signature = imageManifest({ config: digests[0], configSize: 40, layer: digests[1], layerSize: 100 }, { subject: { digest } });
    await adapter.putManifest(
      "team/app",
      { reference: sha256(signature), bytes: signature, mediaType: IMAGE, digest: sha256(signature) },
      SIGNAL,
    );
    const referrers = await adapter.listReferrers("team/app", digest, SIGNAL);
    // Debian's distribution has no referrers API, and its tag schema is up to the client.
    assert.deepEqual(
      referrers.map((each) => each.digest),
      kind.name === "distribution" ? [] : [sha256(signature)],
    );

    const listed = await adapter.listArtifacts("team/app", null, SIGNAL);
    assert.deepEqual(
      listed.artifacts
        .filter(({ tag }) => tag !== null)
        .map(({ tag }) => tag)
        .toSorted(),
      ["v0", "v1"],
    );
    assert.deepEqual(
      (await adapter.listRepositories({ names: null, namespaces: ["team"] }, null, SIGNAL)).repositories.toSorted()[0],
      "team/app",
    );
  });

  test(`${kind.name}: an upload goes on in another process from what is confirmed, and can be given up`, { skip: kind.skip }, async (t) => {
    const setting = await replicationSetting(t);
    const registryId = await kind.open(t, setting);
    const adapter = await setting.adapters.openTarget({ registryId, sourceRegistryId: 7 }, SIGNAL);
    await adapter.prepare("team/app", { public: null }, SIGNAL);
    const bytes = randomBytes(300_000);
    const digest = sha256(bytes);
    let session = await adapter.startUpload("team/app", digest, SIGNAL);
    session = await adapter.uploadChunk("team/app", { session, bytes: bytes.subarray(0, 100_000), size: 100_000 }, SIGNAL);

    const other = await setting.adapters.openTarget({ registryId, sourceRegistryId: 7 }, SIGNAL);
    let kept = JSON.parse(JSON.stringify(session)) as typeof session;
    kept = await other.uploadStatus("team/app", kept, SIGNAL);
    assert.equal(kept.offset, 100_000);
    kept = await other.uploadChunk("team/app", { session: kept, bytes: Readable.from([bytes.subarray(100_000)]), size: 200_000 }, SIGNAL);
    assert.equal((await other.finishUpload("team/app", { session: kept, digest }, SIGNAL)).digest ?? digest, digest);
    assert.ok((await readAll(await other.readBlob("team/app", { digest, size: bytes.length }, SIGNAL))).equals(bytes));

    const unwanted = await adapter.startUpload("team/app", digest, SIGNAL);
    await adapter.cancelUpload("team/app", unwanted, SIGNAL);
    if (kind.name !== "distribution")
      await assert.rejects(adapter.uploadStatus("team/app", unwanted, SIGNAL), withCode("BLOB_UPLOAD_UNKNOWN"));
  });

  test(`${kind.name}: tags and manifests are deleted, and what is gone is no failure`, { skip: kind.skip }, async (t) => {
    const setting = await replicationSetting(t);
    const registryId = await kind.open(t, setting);
    const adapter = await setting.adapters.openTarget({ registryId, sourceRegistryId: 7 }, SIGNAL);
    await adapter.prepare("team/app", { public: null }, SIGNAL);
    const config = randomBytes(40);
    await put(adapter, "team/app", config);
    const bytes = imageManifest({ config: sha256(config), configSize: 40, layer: sha256(config), layerSize: 40 });
    const digest = sha256(bytes);
    for (const reference of ["v1", "v2"]) await adapter.putManifest("team/app", { reference, bytes, mediaType: IMAGE, digest }, SIGNAL);
    if (kind.deletesTags) {
      assert.equal(await adapter.deleteTag("team/app", "v1", SIGNAL), true);
      assert.equal((await adapter.headManifest("team/app", "v2", SIGNAL)).digest, digest, "its other tag stays");
      assert.equal(await adapter.deleteTag("team/app", "v1", SIGNAL), false);
    } else await assert.rejects(adapter.deleteTag("team/app", "v1", SIGNAL), withCode("UNSUPPORTED"));
    assert.equal(await adapter.deleteManifest("team/app", digest, SIGNAL), true);
    assert.equal(await adapter.deleteManifest("team/app", digest, SIGNAL), false);
  });
}

test("what the local registry is given says where it came from, and is checked like any push", async (t) => {
  const setting = await replicationSetting(t);
  const adapter = await setting.adapters.openTarget({ registryId: 0, sourceRegistryId: 7 }, SIGNAL);
  await adapter.prepare("team/app", { public: true }, SIGNAL);
  assert.equal(await adapter.isPublic("team/app", SIGNAL), true);
  const bytes = randomBytes(50);
  const wrong = { digest: sha256("other"), size: 50, open: () => Promise.resolve(Readable.from([bytes])) };
  await assert.rejects(adapter.putBlob("team/app", wrong, null, SIGNAL), withCode("DIGEST_INVALID"));
  const digest = await put(adapter, "team/app", bytes);
  const manifest = imageManifest({ config: digest, configSize: 50, layer: digest, layerSize: 50 });
  await adapter.putManifest("team/app", { reference: "v1", bytes: manifest, mediaType: IMAGE, digest: sha256(manifest) }, SIGNAL);
  await adapter.deleteTag("team/app", "v1", SIGNAL);
  const { rows } = await setting.database.query<{ payload: { type: string; origin: string; originRegistry: number; principal: string } }>(
    "SELECT payload FROM outbox WHERE kind = 'event' ORDER BY id",
  );
  assert.deepEqual(
    rows.map(({ payload }) => [payload.type, payload.origin, payload.originRegistry, payload.principal]),
    [
      ["push", "replication", 7, "replication"],
      ["tag", "replication", 7, "replication"],
      ["untag", "replication", 7, "replication"],
    ],
  );
  // A link is the only right to read: bytes that are here for somebody else are not this repository's.
  await assert.rejects(adapter.readBlob("team/other", { digest, size: 50 }, SIGNAL), withCode("BLOB_UNKNOWN"));
});

test("a token that runs out in front of a blob costs a second try, not the copy", async (t) => {
  const setting = await replicationSetting(t);
  const registry = await startFakeRegistry(t, { auth: { type: "bearer" } });
  const adapter = await setting.adapters.open(await setting.addRegistry({ url: registry.url }), SIGNAL);
  await put(adapter, "team/app", randomBytes(10));
  let opened = 0;
  const bytes = randomBytes(1000);
  const blob = {
    digest: sha256(bytes),
    size: bytes.length,
    open: () => {
      opened += 1;
      if (opened === 1) registry.revokeTokens();
      return Promise.resolve(Readable.from([bytes]));
    },
  };
  await adapter.putBlob("team/app", blob, null, SIGNAL);
  assert.equal(opened, 2);
  assert.ok(registry.repository("team/app").blobs.has(blob.digest));
});
