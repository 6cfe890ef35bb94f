import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OCI_IMAGE, OCI_INDEX, OciClient, bytesOf, codeOf, contentOf, imageDocument, randomContent } from "../../support/oci-client.ts";
import type { Content } from "../../support/oci-client.ts";
import { startRegistry } from "../../support/registry-server.ts";

const registry = await startRegistry({ after });
const client = new OciClient(registry.url);
const NAME = "manifests/repo";
const ACCEPT = `${OCI_INDEX}, ${OCI_IMAGE}`;

async function assertServed(reference: string, manifest: Content, type = OCI_IMAGE, name = NAME): Promise<void> {
  // Twice, since the second answer comes from memory.
  for (const method of ["GET", "HEAD", "GET", "HEAD"]) {
    const answer = await client.request(`/v2/${name}/manifests/${reference}`, { method, headers: { accept: ACCEPT } });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get("content-type"), type);
    assert.equal(answer.headers.get("content-length"), String(manifest.bytes.length));
    assert.equal(answer.headers.get("docker-content-digest"), manifest.digest);
    assert.equal(answer.headers.get("etag"), `"${manifest.digest}"`);
    assert.equal(answer.headers.get("docker-distribution-api-version"), "registry/2.0");
    assert.deepEqual(await bytesOf(answer), method === "GET" ? manifest.bytes : Buffer.alloc(0));
  }
}

async function image(fields: Readonly<Record<string, unknown>> = {}, name = NAME): Promise<Content> {
  const [config, layer] = [randomContent(40), randomContent(200)];
  await client.pushBlob(name, config);
  await client.pushBlob(name, layer);
  return contentOf(JSON.stringify(imageDocument(config, layer, fields), null, 2));
}

function indexOf(children: readonly Content[], fields: object = {}): Content {
  const manifests = children.map((child) => ({ mediaType: OCI_IMAGE, digest: child.digest, size: child.bytes.length }));
  return contentOf(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests, ...fields }));
}

test("a manifest is served by tag and by digest, byte for byte", async () => {
  const manifest = await image({ unknown: { field: [1, 2, { deep: true }] }, annotations: { a: "ü" } });
  const created = await client.putManifest(NAME, "v1", manifest.bytes);
  assert.equal(created.status, 201);
  assert.equal(created.headers.get("docker-content-digest"), manifest.digest);
  assert.equal(created.headers.get("location"), `/v2/${NAME}/manifests/${manifest.digest}`);
  assert.equal(created.headers.get("oci-subject"), null);
  assert.equal(created.headers.get("oci-tag"), null);
  await assertServed("v1", manifest);
  await assertServed(manifest.digest, manifest);
});

test("a one-component name is served as it was written", async () => {
  const [config, layer] = [randomContent(40), randomContent(200)];
  for (const blob of [config, layer]) await client.pushBlob("single", blob);
  const manifest = contentOf(JSON.stringify(imageDocument(config, layer)));
  const created = await client.putManifest("single", "v1", manifest.bytes);
  assert.equal(created.headers.get("location"), `/v2/single/manifests/${manifest.digest}`);
  await assertServed("v1", manifest, OCI_IMAGE, "single");
  await assertServed("v1", manifest, OCI_IMAGE, "library/single");
});

test("a moved tag is moved for the next request", async () => {
  const [first, second] = [await image(), await image()];
  await client.putManifest(NAME, "moving", first.bytes);
  await assertServed("moving", first);
  await client.putManifest(NAME, "moving", second.bytes);
  await assertServed("moving", second);
  await assertServed(first.digest, first);
});

test("tags of the query are set and told", async () => {
  const manifest = await image();
  const tags = Array.from({ length: 12 }, (_, index) => `param-${index}`);
  const query = tags.map((tag) => `tag=${tag}`).join("&");
  const created = await client.putManifest(NAME, `${manifest.digest}?${query}`, manifest.bytes);
  assert.equal(created.status, 201);
  assert.deepEqual(created.headers.get("oci-tag")?.split(", ").toSorted(), tags.toSorted());
  for (const tag of tags) assert.equal((await client.request(`/v2/${NAME}/manifests/${tag}`, { method: "HEAD" })).status, 200);
  const many = Array.from({ length: 65 }, (_, index) => `tag=many-${index}`).join("&");
  assert.equal((await client.putManifest(NAME, `${manifest.digest}?${many}`, manifest.bytes)).status, 414);
  const bad = await client.putManifest(NAME, `${manifest.digest}?tag=good&tag=b%20d`, manifest.bytes);
  assert.equal(await codeOf(bad), "MANIFEST_INVALID");
  assert.equal((await client.request(`/v2/${NAME}/manifests/good`)).status, 404);
});

test("a sha512 manifest is pushed and served by that digest, with tags of the query", async () => {
  const manifest = contentOf((await image()).bytes, "sha512");
  const created = await client.putManifest(NAME, `${manifest.digest}?tag=long`, manifest.bytes);
  assert.equal(created.status, 201);
  assert.equal(created.headers.get("docker-content-digest"), manifest.digest);
  await assertServed(manifest.digest, manifest);
  await assertServed("long", manifest);
});

test("index manifests may be empty, nested, sparse, and have a subject", async () => {
  const child = await image();
  await client.putManifest(NAME, child.digest, child.bytes);
  const absent = contentOf("nobody pushed this");
  const inner = indexOf([child, absent]);
  const outer = indexOf([inner], {
    artifactType: "application/vnd.test",
    subject: { mediaType: OCI_IMAGE, digest: absent.digest, size: 18 },
  });
  for (const index of [indexOf([]), inner, outer]) {
    const created = await client.putManifest(NAME, "index", index.bytes, { "content-type": OCI_INDEX });
    assert.equal(created.status, 201, await created.clone().text());
    assert.equal(created.headers.get("oci-subject"), index === outer ? absent.digest : null);
    await assertServed("index", index, OCI_INDEX);
  }
});

test("layers that are absent make a sparse image, foreign layers are nobody's business, a missing config is refused", async () => {
  const [config, absent] = [randomContent(40), randomContent(9)];
  await client.pushBlob(NAME, config);
  const sparse = contentOf(JSON.stringify(imageDocument(config, absent)));
  assert.equal((await client.putManifest(NAME, "sparse", sparse.bytes)).status, 201);
  await assertServed("sparse", sparse);
  assert.equal((await client.request(`/v2/${NAME}/blobs/${absent.digest}`)).status, 404);
  const missing = await client.putManifest(NAME, "no-config", contentOf(JSON.stringify(imageDocument(absent, config))).bytes);
  assert.equal(missing.status, 400);
  assert.equal(await codeOf(missing), "MANIFEST_BLOB_UNKNOWN");
});

test("embedded data, layers of other places and fields that nobody knows survive byte for byte", async () => {
  const [config, layer] = [randomContent(40), randomContent(60)];
  for (const blob of [config, layer]) await client.pushBlob(NAME, blob);
  const document = {
    ...imageDocument(config, layer),
    config: {
      mediaType: "application/vnd.oci.image.config.v1+json",
      digest: config.digest,
      size: config.bytes.length,
      data: config.bytes.toString("base64"),
    },
    layers: [
      {
        mediaType: "application/vnd.oci.image.layer.v1.tar",
        digest: layer.digest,
        size: 60,
        data: layer.bytes.toString("base64"),
        "org.example": [],
      },
      {
        mediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        digest: contentOf("never pushed").digest,
        size: 12,
        urls: ["https://example.com/layer"],
      },
    ],
    "org.example.unknown": { nested: [1.5e3, "\u00fc", null] },
  };
  const manifest = contentOf(JSON.stringify(document, null, 3).replace("null", "null "));
  const created = await client.putManifest(NAME, "odd", manifest.bytes);
  assert.equal(created.status, 201, await created.clone().text());
  await assertServed("odd", manifest);
});

test("a manifest of nearly four megabytes works, one of a hundred is refused at once", async () => {
  const large = await image({ annotations: { filler: "x".repeat(3_900_000) } });
  assert.equal((await client.putManifest(NAME, "large", large.bytes)).status, 201);
  await assertServed("large", large);
  const started = performance.now();
  const huge = await client.putManifest(NAME, "huge", Buffer.alloc(100_000_000, 32)).catch((error: unknown) => error);
  // The server answers and closes; whether the client sees the answer before its own write fails is the client's affair.
  if (huge instanceof Response) {
    assert.equal(huge.status, 413);
    assert.equal(await codeOf(huge), "SIZE_INVALID");
  }
  assert.ok(performance.now() - started < 15_000);
  assert.equal((await client.request(`/v2/${NAME}/manifests/huge`)).status, 404);
  assert.equal((await client.request("/v2/")).status, 200);
});

test("what is no manifest is refused with its code", async () => {
  const good = await image();
  const text = good.bytes.toString();
  const deep = `${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`;
  const cases: [string, string, string, Record<string, string>][] = [
    ["not JSON", "v", "not JSON", {}],
    ["nothing", "v", "", {}],
    ["an array", "v", "[]", {}],
    ["cut short", "v", text.slice(0, 50), {}],
    ["nested 10,000 deep", "v", `${text.slice(0, -1)},"deep":${deep}}`, {}],
    ["nested arrays", "v", "[".repeat(100_000), {}],
    ["another Content-Type than its mediaType", "v", text, { "content-type": OCI_INDEX }],
    ["a type that is none", "v", text, { "content-type": "text/html" }],
    ["bytes that are no UTF-8", "v", '{"mediaType":"\xff"}', {}],
    ["a tag that is none", "-tag", text, {}],
    ["a tag that is too long", "t".repeat(129), text, {}],
  ];
  for (const [what, reference, body, headers] of cases) {
    const answer = await client.putManifest(NAME, reference, Buffer.from(body, "latin1"), { "content-type": OCI_IMAGE, ...headers });
    assert.equal(answer.status, 400, what);
    assert.equal(await codeOf(answer), "MANIFEST_INVALID", what);
  }
  for (const reference of ["sha256:baddigeststring", `sha256:${"0".repeat(64)}`, `md5:${"0".repeat(32)}`]) {
    const answer = await client.putManifest(NAME, reference, good.bytes);
    assert.equal(answer.status, 400, reference);
    assert.equal(await codeOf(answer), "DIGEST_INVALID", reference);
  }
});

test("unknown manifests and repositories have their codes", async () => {
  await client.putManifest(NAME, "known", (await image()).bytes);
  const cases: [string, number, string][] = [
    [`${NAME}/manifests/unknown`, 404, "MANIFEST_UNKNOWN"],
    [`${NAME}/manifests/${contentOf("unknown").digest}`, 404, "MANIFEST_UNKNOWN"],
    [`${NAME}/manifests/not+a+tag`, 404, "MANIFEST_UNKNOWN"],
    [`${NAME}/manifests/sha256:baddigeststring`, 400, "DIGEST_INVALID"],
    ["nobody/here/manifests/known", 404, "NAME_UNKNOWN"],
    ["Upper/case/manifests/known", 400, "NAME_INVALID"],
  ];
  for (const [path, status, code] of cases) {
    const answer = await client.request(`/v2/${path}`);
    assert.equal(answer.status, status, path);
    assert.equal(await codeOf(answer), code, path);
  }
});

test("a client that has the manifest is told so, until the tag moves", async () => {
  const manifest = await image();
  await client.putManifest(NAME, "conditional", manifest.bytes);
  const headers = { "if-none-match": `"${manifest.digest}"` };
  for (const method of ["GET", "HEAD"]) {
    const answer = await client.request(`/v2/${NAME}/manifests/conditional`, { method, headers });
    assert.equal(answer.status, 304);
    assert.equal(answer.headers.get("docker-content-digest"), manifest.digest);
  }
  await client.putManifest(NAME, "conditional", (await image()).bytes);
  assert.equal((await client.request(`/v2/${NAME}/manifests/conditional`, { headers })).status, 200);
});

test("writes are conditional when they say so", async () => {
  const [first, second] = [await image(), await image()];
  const put = (manifest: Content, condition: Record<string, string>): Promise<Response> =>
    client.putManifest(NAME, "guarded", manifest.bytes, { "content-type": OCI_IMAGE, ...condition });
  assert.equal((await put(first, { "if-match": "*" })).status, 412);
  assert.equal((await put(first, { "if-none-match": "*" })).status, 201);
  assert.equal((await put(second, { "if-none-match": "*" })).status, 412);
  assert.equal((await put(second, { "if-match": `"${second.digest}"` })).status, 412);
  assert.equal((await put(second, { "if-match": `W/"${first.digest}"` })).status, 412);
  assert.equal((await put(second, { "if-match": `"${first.digest}"` })).status, 201);
  await assertServed("guarded", second);
  const remove = (condition: Record<string, string>): Promise<Response> =>
    client.request(`/v2/${NAME}/manifests/guarded`, { method: "DELETE", headers: condition });
  assert.equal((await remove({ "if-match": `"${first.digest}"` })).status, 412);
  assert.equal((await remove({ "if-match": `"${second.digest}"` })).status, 202);
  assert.equal((await client.request(`/v2/${NAME}/manifests/guarded`)).status, 404);
  await assertServed(second.digest, second);
});

test("a deleted tag leaves its manifest, a deleted manifest takes its tags along", async () => {
  const manifest = await image();
  for (const tag of ["one", "two", "three"]) await client.putManifest(NAME, tag, manifest.bytes);
  await assertServed("one", manifest);
  const remove = (reference: string): Promise<Response> => client.request(`/v2/${NAME}/manifests/${reference}`, { method: "DELETE" });
  assert.equal((await remove("one")).status, 202);
  assert.equal((await client.request(`/v2/${NAME}/manifests/one`)).status, 404);
  assert.equal(await codeOf(await remove("one")), "MANIFEST_UNKNOWN");
  await assertServed("two", manifest);
  await assertServed(manifest.digest, manifest);
  assert.equal((await remove(manifest.digest)).status, 202);
  for (const reference of ["two", "three", manifest.digest]) {
    assert.equal((await client.request(`/v2/${NAME}/manifests/${reference}`, { method: "HEAD" })).status, 404);
  }
  assert.equal((await remove(manifest.digest)).status, 404);
  assert.equal((await remove("sha256:bad")).status, 400);
});
