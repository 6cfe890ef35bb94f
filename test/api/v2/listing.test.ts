import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OCI_IMAGE, OCI_INDEX, OciClient, codeOf, contentOf, imageDocument, randomContent } from "../../support/oci-client.ts";
import type { Content } from "../../support/oci-client.ts";
import { startRegistry } from "../../support/registry-server.ts";

const registry = await startRegistry({ after });
const client = new OciClient(registry.url);

async function json<T>(path: string): Promise<{ body: T; link: string | null; answer: Response }> {
  const answer = await client.request(path);
  assert.equal(answer.status, 200, `${path}: ${await answer.clone().text()}`);
  return { body: (await answer.json()) as T, link: answer.headers.get("link"), answer };
}

function nextOf(link: string | null): string | null {
  if (link === null) return null;
  const match = /^<(\/v2\/[^>]+)>; rel="next"$/.exec(link);
  assert.ok(match?.[1], link);
  return match[1];
}

async function pages<T>(first: string): Promise<T[]> {
  const all: T[] = [];
  for (let path: string | null = first; path !== null;) {
    const { body, link } = await json<T>(path);
    all.push(body);
    path = nextOf(link);
    assert.ok(all.length < 100);
  }
  return all;
}

interface Tags {
  readonly name: string;
  readonly tags: string[];
}

test("tags come in byte order, by pages that a relative Link joins", async () => {
  const manifest = await client.pushImage("listing/tags", "seed");
  const tags = ["B", "a", "10", "9", "_x", "v1.0", "V1.0", "z-9"];
  for (const tag of tags) await client.putManifest("listing/tags", tag, manifest.bytes);
  const expected = [...tags, "seed"].toSorted((one, other) => (one < other ? -1 : 1));
  const whole = await json<Tags>("/v2/listing/tags/tags/list");
  assert.deepEqual(whole.body, { name: "listing/tags", tags: expected });
  assert.equal(whole.answer.headers.get("content-type"), "application/json");
  assert.equal(whole.link, null);
  for (const n of [1, 2, 4, 9]) {
    const found = await pages<Tags>(`/v2/listing/tags/tags/list?n=${n}`);
    assert.deepEqual(
      found.flatMap((page) => page.tags),
      expected,
    );
    assert.ok(found.every((page) => page.tags.length <= n));
  }
  const afterV1 = await json<Tags>("/v2/listing/tags/tags/list?last=a");
  assert.deepEqual(
    afterV1.body.tags,
    expected.filter((tag) => tag > "a"),
  );
  assert.deepEqual((await json<Tags>("/v2/listing/tags/tags/list?last=zzz")).body.tags, []);
  const none = await json<Tags>("/v2/listing/tags/tags/list?n=0");
  assert.deepEqual(none.body.tags, []);
  assert.equal(none.link, null);
  assert.equal((await client.request("/v2/listing/tags/tags/list", { method: "HEAD" })).status, 200);
});

test("a one-component repository is listed under the name that was asked for", async () => {
  await client.pushImage("plain", "v1");
  assert.deepEqual((await json<Tags>("/v2/plain/tags/list")).body, { name: "plain", tags: ["v1"] });
  assert.deepEqual((await json<Tags>("/v2/library/plain/tags/list")).body, { name: "library/plain", tags: ["v1"] });
});

test("a repository whose last tag went has an empty list", async () => {
  await client.pushImage("listing/emptied", "only");
  await client.request("/v2/listing/emptied/manifests/only", { method: "DELETE" });
  assert.deepEqual((await json<Tags>("/v2/listing/emptied/tags/list")).body, { name: "listing/emptied", tags: [] });
});

test("page parameters that are none are refused, and unknown repositories are unknown", async () => {
  await client.pushImage("listing/tags", "seed");
  for (const query of ["n=x", "n=-1", "n=1.5", "n=", "n=99999999999999999999", "n=1e3", "last=%00", `last=${"x".repeat(2_000)}`]) {
    for (const path of [`/v2/listing/tags/tags/list?${query}`, `/v2/_catalog?${query}`]) {
      const answer = await client.request(path);
      assert.equal(answer.status, 400, path);
      await codeOf(answer);
    }
  }
  assert.equal((await json<Tags>("/v2/listing/tags/tags/list?n=999999999")).body.name, "listing/tags");
  for (const name of ["listing/never", "never/never"]) {
    const answer = await client.request(`/v2/${name}/tags/list`);
    assert.equal(answer.status, 404);
    assert.equal(await codeOf(answer), "NAME_UNKNOWN");
  }
});

test("the catalog lists all repositories by pages", async () => {
  for (const name of ["cat/a", "cat/b", "cat/c/d", "cat/e"]) await client.pushImage(name, "v1");
  const found = (await pages<{ repositories: string[] }>("/v2/_catalog?n=2")).flatMap((page) => page.repositories);
  assert.deepEqual(found, found.toSorted());
  assert.deepEqual(
    found.filter((name) => name.startsWith("cat/")),
    ["cat/a", "cat/b", "cat/c/d", "cat/e"],
  );
  assert.deepEqual((await json<{ repositories: string[] }>("/v2/_catalog?n=0")).body, { repositories: [] });
  assert.deepEqual((await json<{ repositories: string[] }>("/v2/_catalog?n=1&last=cat/a")).body.repositories, ["cat/b"]);
});

interface Referrers {
  readonly schemaVersion: number;
  readonly mediaType: string;
  readonly manifests: { digest: string; size: number; mediaType: string; artifactType?: string; annotations?: Record<string, string> }[];
}

test("an unknown digest or repository has no referrers, which is an empty index", async () => {
  const digest = contentOf("nobody").digest;
  for (const name of ["listing/tags", "never/never", "listing/none"]) {
    for (const algorithm of [digest, contentOf("nobody", "sha512").digest]) {
      const { body, answer } = await json<Referrers>(`/v2/${name}/referrers/${algorithm}`);
      assert.equal(answer.headers.get("content-type"), OCI_INDEX);
      assert.deepEqual(body, { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] });
    }
  }
  assert.equal(await codeOf(await client.request("/v2/listing/tags/referrers/sha256:bad")), "DIGEST_INVALID");
  assert.equal(await codeOf(await client.request("/v2/listing/tags/referrers/latest")), "DIGEST_INVALID");
});

async function pushReferrer(name: string, subject: Content, fields: object): Promise<Content> {
  const config = randomContent(20);
  await client.pushBlob(name, config);
  const descriptor = { mediaType: OCI_IMAGE, digest: subject.digest, size: subject.bytes.length };
  const manifest = contentOf(JSON.stringify(imageDocument(config, null, { subject: descriptor, ...fields })));
  const created = await client.putManifest(name, manifest.digest, manifest.bytes);
  assert.equal(created.status, 201);
  assert.equal(created.headers.get("oci-subject"), subject.digest);
  return manifest;
}

test("referrers are described in full, filtered, and listed by pages", async () => {
  const name = "listing/referrers";
  const subject = await client.pushImage(name, "subject");
  const sbom = await pushReferrer(name, subject, { artifactType: "application/spdx+json", annotations: { org: "test" } });
  const plain = await pushReferrer(name, subject, {});
  const others = [];
  for (let index = 0; index < 4; index += 1) others.push(await pushReferrer(name, subject, { artifactType: "application/vnd.sig" }));
  const path = `/v2/${name}/referrers/${subject.digest}`;
  const { body, answer } = await json<Referrers>(path);
  assert.equal(answer.headers.get("oci-filters-applied"), null);
  assert.deepEqual(
    body.manifests.map((entry) => entry.digest).toSorted(),
    [sbom, plain, ...others].map((manifest) => manifest.digest).toSorted(),
  );
  assert.deepEqual(
    body.manifests.find((entry) => entry.digest === sbom.digest),
    {
      mediaType: OCI_IMAGE,
      digest: sbom.digest,
      size: sbom.bytes.length,
      artifactType: "application/spdx+json",
      annotations: { org: "test" },
    },
  );
  assert.equal(body.manifests.find((entry) => entry.digest === plain.digest)?.artifactType, "application/vnd.oci.image.config.v1+json");
  for (const type of ["application/spdx%2Bjson", "application/spdx+json"]) {
    const filtered = await json<Referrers>(`${path}?artifactType=${type}`);
    assert.equal(filtered.answer.headers.get("oci-filters-applied"), "artifactType");
    assert.deepEqual(
      filtered.body.manifests.map((entry) => entry.digest),
      [sbom.digest],
    );
  }
  const paged = await pages<Referrers>(`${path}?n=2&artifactType=application/vnd.sig`);
  assert.equal(paged.length, 2);
  assert.deepEqual(
    paged.flatMap((page) => page.manifests.map((entry) => entry.digest)).toSorted(),
    others.map((manifest) => manifest.digest).toSorted(),
  );
});

test("a referrer may come before its subject, and goes with its manifest", async () => {
  const name = "listing/early";
  const subject = contentOf("a subject that comes later, or never");
  const referrer = await pushReferrer(name, subject, { artifactType: "application/vnd.early" });
  const path = `/v2/${name}/referrers/${subject.digest}`;
  assert.equal((await json<Referrers>(path)).body.manifests.length, 1);
  await client.request(`/v2/${name}/manifests/${referrer.digest}`, { method: "DELETE" });
  assert.equal((await json<Referrers>(path)).body.manifests.length, 0);
});

test("clients of the tag schema find the referrers, and theirs are listed", async () => {
  const name = "listing/fallback";
  const subject = await client.pushImage(name, "subject");
  const tag = subject.digest.replace(":", "-");
  const known = await pushReferrer(name, subject, { artifactType: "application/vnd.known" });
  const answer = await client.request(`/v2/${name}/manifests/${tag}`);
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("content-type"), OCI_INDEX);
  assert.deepEqual(
    ((await answer.json()) as Referrers).manifests.map((entry) => entry.digest),
    [known.digest],
  );
  const other = await client.pushImage(name, "signature");
  const entry = { mediaType: OCI_IMAGE, digest: other.digest, size: other.bytes.length, artifactType: "application/vnd.old" };
  const index = contentOf(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [entry] }));
  assert.equal((await client.putManifest(name, tag, index.bytes, { "content-type": OCI_INDEX })).status, 201);
  const listed = (await json<Referrers>(`/v2/${name}/referrers/${subject.digest}`)).body.manifests.map((item) => item.digest);
  assert.deepEqual(listed.toSorted(), [known.digest, other.digest].toSorted());
});
