/** Manifests, tags and referrers of registries that do not do what the specification says. */
import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { test } from "node:test";
import { OCI_INDEX, OCI_MANIFEST, startFakeRegistry } from "../support/fake-registry.ts";
import { fail, send, sha256 } from "../support/fake-answers.ts";
import { startClient, withCode } from "./support.ts";

test("fetches a manifest exactly, with the full Accept set and no content coding", async (t) => {
  const registry = await startFakeRegistry(t);
  const bytes = Buffer.from(' {"schemaVersion":2,\n"layers":[] }\n');
  const digest = registry.putManifest("a/b", bytes, { tag: "v1" });
  const answer = await startClient(t, registry.url).getManifest("a/b", "v1");
  assert.ok(!answer.notModified);
  assert.deepEqual([answer.digest, answer.mediaType], [digest, OCI_MANIFEST]);
  assert.ok(answer.bytes.equals(bytes));
  const headers = registry.calls.at(-1)?.headers;
  for (const type of [OCI_INDEX, OCI_MANIFEST, "docker.distribution.manifest.list.v2", "docker.distribution.manifest.v2"]) {
    assert.ok(headers?.accept?.includes(type), type);
  }
  assert.equal(headers?.["accept-encoding"], "identity");
});

test("sends If-None-Match and reports a manifest that did not change", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putImage("a", "v1");
  const client = startClient(t, registry.url);
  const first = await client.getManifest("a", "v1");
  assert.ok(!first.notModified && first.etag !== null);
  assert.equal((await client.getManifest("a", "v1", { ifNoneMatch: first.etag })).notModified, true);
});

test("a missing manifest is unknown, never an upstream failure", async (t) => {
  const registry = await startFakeRegistry(t);
  const client = startClient(t, registry.url);
  await assert.rejects(client.getManifest("a", "none"), withCode("MANIFEST_UNKNOWN"));
  await assert.rejects(client.headManifest("a", "none"), withCode("MANIFEST_UNKNOWN"));
});

test("names that would change the path are refused before anything is sent", async (t) => {
  const registry = await startFakeRegistry(t);
  const client = startClient(t, registry.url);
  for (const name of ["../x", "a/../b", "a//b", "a?x", "a%2fb", "a\\b", ""]) {
    await assert.rejects(async () => await client.getManifest(name, "v1"), withCode("NAME_INVALID"), name);
  }
  await assert.rejects(async () => await client.getManifest("a", "v1/../../x"), withCode("MANIFEST_UNKNOWN"));
  assert.equal(registry.calls.length, 0);
});

test("a page of HTML with status 200 is no manifest", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /manifests/ }, (_, response) => send(response, 200, { "content-type": "text/html" }, "<html>log in</html>"));
  const client = startClient(t, registry.url);
  await assert.rejects(client.getManifest("a", "v1"), withCode("UPSTREAM_INVALID"));
  await assert.rejects(client.headManifest("a", "v1"), withCode("UPSTREAM_INVALID"));
});

test("a manifest above the size limit is cut off", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putManifest("a", Buffer.alloc(8 * 1024 * 1024 + 1, " "), { tag: "big" });
  await assert.rejects(startClient(t, registry.url).getManifest("a", "big"), withCode("UPSTREAM_INVALID"));
});

test("bytes that do not have the digest are asked for once more, then refused", async (t) => {
  const registry = await startFakeRegistry(t);
  const digest = registry.putImage("a", "v1");
  const wrong = JSON.stringify({ schemaVersion: 2, layers: [] });
  registry.on({ path: /manifests/, times: 1 }, (_, response) => send(response, 200, { "content-type": OCI_MANIFEST }, wrong));
  const client = startClient(t, registry.url);
  const answer = await client.getManifest("a", digest);
  assert.ok(!answer.notModified && answer.digest === digest);
  registry.on({ path: /manifests/ }, (_, response) => send(response, 200, { "content-type": OCI_MANIFEST }, wrong));
  await assert.rejects(client.getManifest("a", digest), withCode("DIGEST_MISMATCH"));
});

test("the media type is found in the content when the header is generic", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putManifest(
    "a",
    { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] },
    { tag: "v1", mediaType: "text/plain; charset=utf-8" },
  );
  const answer = await startClient(t, registry.url).getManifest("a", "v1");
  assert.ok(!answer.notModified && answer.mediaType === OCI_INDEX);
});

test("HEAD that is not supported becomes GET, and that is remembered", async (t) => {
  const registry = await startFakeRegistry(t);
  const digest = registry.putImage("a", "v1");
  registry.headSupported = false;
  const client = startClient(t, registry.url);
  const head = await client.headManifest("a", "v1");
  assert.deepEqual([head.digest, head.manifest?.bytes.length === head.size], [digest, true]);
  await client.headManifest("a", "v1");
  assert.deepEqual([registry.count("manifest-head"), registry.count("manifest-get")], [1, 2]);
});

test("HEAD without a digest becomes GET and a hash, and that is remembered", async (t) => {
  const registry = await startFakeRegistry(t);
  const digest = registry.putImage("a", "v1");
  registry.digestHeader = false;
  const client = startClient(t, registry.url);
  assert.equal((await client.headManifest("a", "v1")).digest, digest);
  assert.equal((await client.headManifest("a", "v1")).digest, digest);
  assert.equal(registry.count("manifest-head"), 1);
});

test("HEAD that says 404 is checked by GET once; afterwards it is believed", async (t) => {
  const registry = await startFakeRegistry(t);
  const client = startClient(t, registry.url);
  for (const tag of ["x", "y", "z"]) await assert.rejects(client.headManifest("a", tag), withCode("MANIFEST_UNKNOWN"));
  assert.deepEqual([registry.count("manifest-head"), registry.count("manifest-get")], [3, 1]);
});

test("pages through tags by Link, tolerates null, and leaves out what is no tag", async (t) => {
  const registry = await startFakeRegistry(t);
  for (let index = 0; index < 5; index += 1) registry.putImage("a", `v${index}`);
  const client = startClient(t, registry.url);
  const pages: (readonly string[])[] = [];
  for await (const page of client.allTags("a", { n: 2 })) pages.push(page.tags);
  assert.deepEqual(pages, [["v0", "v1"], ["v2", "v3"], ["v4"]]);
  registry.on({ path: /tags\/list/, times: 1 }, (_, response) => send(response, 200, {}, '{"name":"a","tags":null}'));
  assert.deepEqual(await client.listTags("a"), { tags: [], next: null, skipped: 0 });
  registry.on({ path: /tags\/list/, times: 1 }, (_, response) => send(response, 200, {}, '{"tags":["ok","sha256:abc",7,""]}'));
  assert.deepEqual(await client.listTags("a"), { tags: ["ok"], next: null, skipped: 3 });
  await assert.rejects(client.listTags("missing"), withCode("NAME_UNKNOWN"));
  assert.ok(registry.calls.every((call) => !/n=([2-9]\d{3}|1\d{4})/.test(call.url)));
});

test("a list of tags that goes in circles comes to an end", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /tags\/list/ }, (_, response) => {
    send(response, 200, { link: '<http://wrong.host/v2/a/tags/list?n=2&last=b>; rel="next"' }, '{"tags":["a","b"]}');
  });
  const client = startClient(t, registry.url);
  let pages = 0;
  for await (const page of client.allTags("a", { n: 2 })) pages += page.tags.length > 0 ? 1 : 0;
  assert.ok(pages <= 2);
  registry.clearScripts();
  // No Link although the page is full, and `last` is ignored.
  registry.on({ path: /tags\/list/ }, (_, response) => send(response, 200, {}, '{"tags":["a","b"]}'));
  pages = 0;
  for await (const page of client.allTags("a", { n: 2 })) pages += page.tags.length > 0 ? 1 : 0;
  assert.equal(pages, 1);
});

test("a full page without Link goes on after the last tag", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /tags\/list/ }, (request, response) => {
    const next = request.url?.includes("last=b");
    send(response, 200, {}, JSON.stringify({ tags: next ? ["c"] : ["a", "b"] }));
  });
  const tags: string[] = [];
  for await (const page of startClient(t, registry.url).allTags("a", { n: 2 })) tags.push(...page.tags);
  assert.deepEqual(tags, ["a", "b", "c"]);
});

test("a list that is a page of HTML is refused", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /tags\/list/ }, (_, response) => send(response, 200, { "content-type": "text/html" }, "<html></html>"));
  await assert.rejects(startClient(t, registry.url).listTags("a"), withCode("UPSTREAM_INVALID"));
});

test("reads referrers from the API and filters them when the registry did not", async (t) => {
  const registry = await startFakeRegistry(t);
  const subject = registry.putImage("a", "v1");
  const signature = registry.putManifest("a", { schemaVersion: 2, artifactType: "text/sig", subject: { digest: subject } });
  registry.putManifest("a", { schemaVersion: 2, artifactType: "text/sbom", subject: { digest: subject } });
  const client = startClient(t, registry.url);
  const all = await client.listReferrers("a", subject);
  assert.deepEqual([all.source, all.manifests.length], ["api", 2]);
  const some = await client.listReferrers("a", subject, { artifactType: "text/sig" });
  assert.deepEqual(
    some.manifests.map((each) => each.digest),
    [signature],
  );
});

test("without the API the tag schema is read, and the API is not asked again", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.referrersApi = false;
  const subject = registry.putImage("a", "v1");
  const listed = { mediaType: OCI_MANIFEST, digest: sha256("x"), size: 1, artifactType: "text/sig" };
  registry.putManifest(
    "a",
    { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [listed] },
    { tag: subject.replace(":", "-"), mediaType: OCI_INDEX },
  );
  const client = startClient(t, registry.url);
  const found = await client.listReferrers("a", subject);
  assert.deepEqual([found.source, found.manifests], ["tag", [listed].map((each) => ({ ...each }))]);
  assert.deepEqual((await client.listReferrers("a", sha256("nobody"))).manifests, []);
  assert.equal(registry.count("referrers"), 1);
});

for (const [what, answer] of [
  ["a redirect to a page", (response) => send(response, 303, { location: "/ui" })],
  ["401", (response) => fail(response, 401, "UNAUTHORIZED")],
  ["HTML", (response) => send(response, 200, { "content-type": "text/html" }, "<html></html>")],
] satisfies [string, (response: ServerResponse) => void][]) {
  test(`a referrers API that answers ${what} counts as missing`, async (t) => {
    const registry = await startFakeRegistry(t);
    registry.on({ path: /referrers/ }, (_, response) => answer(response));
    registry.on({ path: "/ui" }, (_, response) => send(response, 200, { "content-type": "text/html" }, "<html></html>"));
    const subject = registry.putImage("a", "v1");
    assert.deepEqual(await startClient(t, registry.url).listReferrers("a", subject), { manifests: [], source: "tag" });
  });
}

test("a referrers tag that resolves to the subject itself lists nothing", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.referrersApi = false;
  const subject = registry.putManifest("a", { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] }, { mediaType: OCI_INDEX });
  registry.repository("a").tags.set(subject.replace(":", "-"), subject);
  assert.deepEqual((await startClient(t, registry.url).listReferrers("a", subject)).manifests, []);
});

test("trouble while listing referrers is trouble, not an empty list", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ path: /referrers/ }, (_, response) => fail(response, 503, "UNAVAILABLE", { "retry-after": "60" }));
  await assert.rejects(startClient(t, registry.url).listReferrers("a", sha256("x")), withCode("UPSTREAM_UNAVAILABLE"));
});
