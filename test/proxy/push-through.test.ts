/** Pushes that pass through: upstream has everything before the client hears of success, and nothing is claimed when it has not. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { FakeRegistry } from "../support/fake-registry.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { buildImage } from "../support/image.ts";
import type { BuiltImage } from "../support/image.ts";
import { contentOf, imageDocument, OciClient, randomContent } from "../support/oci-client.ts";
import { ask, createProxyProject } from "../support/proxy-server.ts";
import { registryBacking, startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";

const files = scope({ after });
const upstream = await new FakeRegistry().start();
files.after(() => upstream.stop());
const network = await new FaultProxy({ port: upstream.port }).start();
files.after(() => network.stop());
const backing = await registryBacking(files);
const server = await startRegistry(files, { backing });
const second = await startRegistry(files, { backing });
await createProxyProject(server.app, { name: "hub", url: network.url, metadata: { proxy_push_through: "true" } });
const client = new OciClient(server.url);

async function pushBlobs(image: BuiltImage, repository: string): Promise<void> {
  for (const [digest, bytes] of image.blobs) await client.pushBlob(repository, { digest, bytes });
}

test("a pushed image is upstream and in the cache when the push is answered", async () => {
  const image = buildImage({ layers: 2, layerBytes: 100_000 });
  assert.equal((await ask(`${second.url}/v2/hub/app/manifests/1`)).status, 404, "absence is remembered");
  await pushBlobs(image, "hub/app");
  assert.equal(upstream.count("upload"), 0, "blobs wait for their manifest");
  const created = await client.putManifest("hub/app", "1", image.manifestBytes);
  assert.equal(created.status, 201, await created.clone().text());
  assert.equal(created.headers.get("docker-content-digest"), image.manifest.digest);
  const there = upstream.repository("app");
  assert.equal(there.tags.get("1"), image.manifest.digest);
  assert.deepEqual(there.manifests.get(image.manifest.digest)?.bytes, image.manifestBytes);
  for (const [digest, bytes] of image.blobs) assert.deepEqual(there.blobs.get(digest), bytes);
  upstream.resetCalls();
  for (const { url } of [server, second]) {
    const pulled = await ask(`${url}/v2/hub/app/manifests/1`);
    assert.deepEqual([pulled.digest, pulled.cache], [image.manifest.digest, "HIT"]);
    for (const [digest, bytes] of image.blobs) assert.ok((await ask(`${url}/v2/hub/app/blobs/${digest}`)).bytes.equals(bytes));
  }
  assert.equal(upstream.calls.length, 0);
});

test("a tag moved by a push is moved for every process at once", async () => {
  for (let round = 0; round < 3; round += 1) {
    const image = buildImage();
    await pushBlobs(image, "hub/moving");
    await client.putManifest("hub/moving", "latest", image.manifestBytes);
    for (const { url } of [server, second]) {
      assert.equal((await ask(`${url}/v2/hub/moving/manifests/latest`)).digest, image.manifest.digest, `round ${round}`);
    }
  }
});

test("while upstream is away a push fails with a reason to try again, claims nothing, and then sends only the rest", async () => {
  const image = buildImage({ layers: 2 });
  await pushBlobs(image, "hub/later");
  const [early, ...rest] = [...image.blobs.keys()];
  upstream.putBlob("later", image.blobs.get(early!)!);
  network.set({ refuse: true });
  network.dropConnections();
  const failed = await client.putManifest("hub/later", "1", image.manifestBytes);
  assert.ok([502, 503].includes(failed.status), String(failed.status));
  assert.ok(Number(failed.headers.get("retry-after")) > 0);
  network.heal();
  assert.equal(upstream.repository("later").tags.size, 0);
  const deadline = Date.now() + 15_000;
  let status = 0;
  upstream.resetCalls();
  while (status !== 201 && Date.now() < deadline) {
    ({ status } = await client.putManifest("hub/later", "1", image.manifestBytes));
    if (status !== 201) await new Promise((resolve) => setTimeout(resolve, 250));
  }
  assert.equal(status, 201);
  assert.equal(upstream.repository("later").tags.get("1"), image.manifest.digest);
  const sent = upstream.calls.filter(({ kind, method }) => kind === "upload" && method === "PUT").map(({ url }) => url);
  assert.equal(sent.length, rest.length);
});

test("what upstream refuses is not kept here either", async () => {
  const image = buildImage();
  await pushBlobs(image, "hub/refused");
  upstream.on({ method: "PUT", path: /\/v2\/refused\/manifests\// }, (_request, response) => {
    response.writeHead(403, { "content-type": "application/json" }).end('{"errors":[{"code":"DENIED","message":"no"}]}');
  });
  const refused = await client.putManifest("hub/refused", "1", image.manifestBytes);
  assert.equal(refused.status, 502);
  assert.equal((await ask(`${server.url}/v2/hub/refused/manifests/1`)).status, 404);
  assert.equal((await ask(`${server.url}/v2/hub/refused/manifests/${image.manifest.digest}`)).status, 404);
});

test("a manifest cannot bring bytes along that were not pushed, but may name what upstream has", async () => {
  const config = contentOf("{}");
  const [foreign, known] = [randomContent(1_000), randomContent(1_000)];
  await client.pushBlob("library/private", foreign);
  await client.pushBlob("hub/naming", config);
  const stolen = contentOf(JSON.stringify(imageDocument(config, foreign)));
  const answer = await client.putManifest("hub/naming", "1", stolen.bytes);
  assert.equal(answer.status, 400);
  assert.match(await answer.text(), /MANIFEST_BLOB_UNKNOWN/);
  assert.equal(upstream.repository("naming").blobs.size <= 1, true);
  upstream.putBlob("naming", known.bytes);
  const fine = contentOf(JSON.stringify(imageDocument(config, known)));
  assert.equal((await client.putManifest("hub/naming", "2", fine.bytes)).status, 201);
  assert.equal((await ask(`${server.url}/v2/hub/naming/blobs/${foreign.digest}`)).status, 404);
  assert.ok((await ask(`${server.url}/v2/hub/naming/blobs/${known.digest}`)).bytes.equals(known.bytes));
});

test("a signature is listed upstream too, whether upstream keeps the list itself or not, and by many pushes at once", async () => {
  for (const api of [true, false]) {
    const repository = `signed-${api}`;
    const image = buildImage();
    await pushBlobs(image, `hub/${repository}`);
    await client.putManifest(`hub/${repository}`, "1", image.manifestBytes);
    const empty = contentOf("{}");
    await client.pushBlob(`hub/${repository}`, empty);
    upstream.on({ method: "PUT", path: new RegExp(`/v2/${repository}/manifests/sha256:`) }, (_request, response, body) => {
      const digest = upstream.putManifest(repository, body);
      const told = api ? { "oci-subject": image.manifest.digest } : {};
      response.writeHead(201, { location: `/v2/${repository}/manifests/${digest}`, "docker-content-digest": digest, ...told }).end();
    });
    const { mediaType, digest, size } = image.manifest;
    const signatures = Array.from({ length: 5 }, (_, index) =>
      contentOf(
        JSON.stringify({
          ...imageDocument(empty, empty),
          artifactType: "application/vnd.example.signature",
          subject: { mediaType, digest, size },
          annotations: { index: String(index) },
        }),
      ),
    );
    const answers = await Promise.all(signatures.map((each) => client.putManifest(`hub/${repository}`, each.digest, each.bytes)));
    for (const answer of answers) assert.equal(answer.status, 201, await answer.text());
    const tag = upstream.repository(repository).tags.get(digest.replace(":", "-"));
    if (api) {
      assert.equal(tag, undefined);
      continue;
    }
    const list = JSON.parse(String(upstream.repository(repository).manifests.get(tag ?? "")?.bytes)) as {
      manifests: Record<string, unknown>[];
    };
    assert.deepEqual(list.manifests.map((entry) => entry["digest"]).toSorted(), signatures.map((each) => each.digest).toSorted());
    assert.ok(list.manifests.every((entry) => entry["artifactType"] === "application/vnd.example.signature" && entry["annotations"]));
  }
});

test("deleting stays refused", async () => {
  assert.equal((await ask(`${server.url}/v2/hub/app/manifests/1`, { method: "DELETE" })).status, 405);
});
