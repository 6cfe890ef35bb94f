// Referrers by rows and by the tag that older clients keep, each leading to the other.
import assert from "node:assert/strict";
import { test } from "node:test";
import { MEDIA_TYPES } from "../../src/oci/media-types.ts";
import { referrersTag } from "../../src/oci/digests.ts";
import { type Fixture, catalogFixture, digestOf, indexManifest, pushImage, putManifest } from "./support.ts";
import { openReader } from "./reader-support.ts";

const REPOSITORY = "team/app";

async function subjectWith(fixture: Fixture, types: readonly string[]): Promise<{ subject: string; referrers: string[] }> {
  const { digest: subject } = await pushImage(fixture, REPOSITORY, { tags: ["v1"] });
  const referrers: string[] = [];
  for (const artifactType of types) {
    const image = await pushImage(fixture, REPOSITORY, { artifactType, subject: { digest: subject }, annotations: { type: artifactType } });
    referrers.push(image.digest);
  }
  return { subject, referrers };
}

test("referrers are listed by row, filtered and paged", async (t) => {
  const fixture = await catalogFixture(t);
  const { reader } = await openReader(t, fixture);
  const { subject, referrers } = await subjectWith(fixture, ["a/sbom", "a/signature", "a/sbom"]);
  const ask = { repository: REPOSITORY, digest: subject, artifactType: null, limit: 100, last: null };
  const all = await reader.listReferrers(ask);
  assert.deepEqual(
    all.manifests.map((descriptor) => descriptor.digest),
    referrers.toSorted(),
  );
  assert.deepEqual(new Set(all.manifests.map((descriptor) => descriptor.annotations?.["type"])), new Set(["a/sbom", "a/signature"]));
  assert.equal((await reader.listReferrers({ ...ask, artifactType: "a/sbom" })).manifests.length, 2);
  const seen: string[] = [];
  for (let last: string | null = null, first = true; first || last !== null; first = false) {
    const page = await reader.listReferrers({ ...ask, limit: 1, last });
    seen.push(...page.manifests.map((descriptor) => descriptor.digest));
    last = page.next;
  }
  assert.deepEqual(seen, referrers.toSorted());
  assert.deepEqual((await reader.listReferrers({ ...ask, repository: "team/none" })).manifests, []);
});

test("an index that clients pushed under the referrers tag is merged, once each, as far as it is here", async (t) => {
  const fixture = await catalogFixture(t);
  const { reader } = await openReader(t, fixture);
  const { subject, referrers } = await subjectWith(fixture, ["a/sbom"]);
  const old = await pushImage(fixture, REPOSITORY, { artifactType: "a/legacy" });
  const entries = [
    { digest: old.digest, size: old.bytes.length },
    { digest: referrers[0] ?? "", size: (await reader.findManifest(REPOSITORY, referrers[0] ?? ""))?.bytes.length ?? 0 },
    { digest: digestOf(Buffer.from("gone")), size: 3 },
  ];
  await putManifest(fixture, REPOSITORY, indexManifest(entries), [referrersTag(subject)]);
  const ask = { repository: REPOSITORY, digest: subject, artifactType: null, limit: 100, last: null };
  const found = (await reader.listReferrers(ask)).manifests;
  assert.deepEqual(
    found.map((descriptor) => descriptor.digest),
    [old.digest, referrers[0]].toSorted(),
  );
  const legacy = await reader.listReferrers({ ...ask, artifactType: "a/legacy" });
  assert.deepEqual(
    legacy.manifests.map((descriptor) => descriptor.digest),
    [old.digest],
  );
});

test("a referrers tag that holds something else than an index changes nothing", async (t) => {
  const fixture = await catalogFixture(t);
  const { reader } = await openReader(t, fixture);
  const { subject } = await subjectWith(fixture, []);
  const image = await pushImage(fixture, REPOSITORY, { tags: [referrersTag(subject)] });
  const found = await reader.listReferrers({ repository: REPOSITORY, digest: subject, artifactType: null, limit: 10, last: null });
  assert.deepEqual(found.manifests, []);
  assert.equal((await reader.findManifest(REPOSITORY, referrersTag(subject)))?.digest, image.digest);
});

test("where nobody pushed the tag it answers with an index of the rows, and any process has it under its digest", async (t) => {
  const fixture = await catalogFixture(t);
  const [one, two] = [await openReader(t, fixture), await openReader(t, fixture)];
  const { subject, referrers } = await subjectWith(fixture, ["a/sbom", "a/signature"]);
  const index = await one.reader.findManifest(REPOSITORY, referrersTag(subject));
  assert.ok(index);
  assert.equal(index.digest, digestOf(index.bytes));
  const parsed = JSON.parse(index.bytes.toString()) as { mediaType: string; manifests: { digest: string }[] };
  assert.equal(parsed.mediaType, MEDIA_TYPES.ociIndex);
  assert.deepEqual(
    parsed.manifests.map((descriptor) => descriptor.digest),
    referrers.toSorted(),
  );
  assert.deepEqual((await two.reader.findManifest(REPOSITORY, index.digest))?.bytes, index.bytes);
  assert.equal((await two.reader.findManifest(REPOSITORY, referrersTag(subject)))?.digest, index.digest);
  assert.deepEqual((await one.reader.listTags(REPOSITORY, 10, null)).tags, ["v1"]);
  assert.equal(await one.reader.findManifest(REPOSITORY, referrersTag(digestOf(Buffer.from("nobody")))), null);
});

test("a sha512 subject is found by its cut tag", async (t) => {
  const fixture = await catalogFixture(t);
  const { reader } = await openReader(t, fixture);
  const subject = digestOf(Buffer.from("subject"), "sha512");
  const referrer = await pushImage(fixture, REPOSITORY, { artifactType: "a/sbom", subject: { digest: subject } });
  const index = await reader.findManifest(REPOSITORY, referrersTag(subject));
  assert.ok(index?.bytes.includes(referrer.digest));
});
