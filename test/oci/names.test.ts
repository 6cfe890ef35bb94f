// The grammar of names, tags and digests decides what reaches SQL keys and storage paths.
import assert from "node:assert/strict";
import { test } from "node:test";
import { isSlipwayError } from "../../src/core/errors.ts";
import { isDigest, parseDigest, referrersTag, requireDigest, subjectPrefixOfTag } from "../../src/oci/digests.ts";
import { isProjectName, parseRepositoryName, requireRepositoryName } from "../../src/oci/names.ts";
import { isTag, parseReference, requireReference } from "../../src/oci/references.ts";

const HEX = "0123456789abcdef".repeat(4);

test("a name splits into project and path, and one component lives in library", () => {
  assert.deepEqual(parseRepositoryName("team/app/api"), { name: "team/app/api", project: "team", path: "app/api" });
  assert.deepEqual(parseRepositoryName("alpine"), { name: "library/alpine", project: "library", path: "alpine" });
  assert.deepEqual(parseRepositoryName("docker.io/library/alpine")?.project, "docker.io");
});

test("names outside the grammar are refused", () => {
  const bad = [
    "",
    "/",
    "a/",
    "/a",
    "a//b",
    "../etc",
    "a/../b",
    "a/./b",
    "A/b",
    "a b",
    "a%2fb",
    "a/_b",
    "a/b_",
    "a/b..c",
    "a___b/c",
    "ä/b",
    "a\u0000/b",
  ];
  for (const name of bad) assert.equal(parseRepositoryName(name), null, name);
  for (const name of ["a--b/c", "a__b/c", "a.b/c_d", "0/0"]) assert.notEqual(parseRepositoryName(name), null, name);
  assert.throws(
    () => requireRepositoryName("A"),
    (error) => isSlipwayError(error, "NAME_INVALID"),
  );
});

test("255 characters are the longest name, counted with the project", () => {
  assert.notEqual(parseRepositoryName(`p/${"a".repeat(253)}`), null);
  assert.equal(parseRepositoryName(`p/${"a".repeat(254)}`), null);
  assert.equal(parseRepositoryName("a".repeat(255)), null);
  assert.notEqual(parseRepositoryName("a".repeat(247)), null);
});

test("a long hostile name is decided at once", () => {
  const started = performance.now();
  assert.equal(parseRepositoryName(`${"a-".repeat(100_000)}!`), null);
  assert.equal(parseRepositoryName(`${"a_".repeat(120)}_____`), null);
  assert.ok(performance.now() - started < 1000);
});

test("a project is one component", () => {
  assert.ok(isProjectName("docker.io"));
  assert.ok(!isProjectName("a/b"));
});

test("digests are lower-case hex of the algorithm's length", () => {
  assert.deepEqual(parseDigest(`sha256:${HEX}`), { algorithm: "sha256", encoded: HEX });
  assert.ok(isDigest(`sha512:${HEX}${HEX}`));
  const bad = [
    "",
    "sha256",
    "sha256:",
    ":abc",
    `sha256:${HEX}0`,
    `sha256:${HEX.toUpperCase()}`,
    `md5:${HEX}`,
    `sha512:${HEX}`,
    `SHA256:${HEX}`,
    `sha256:${HEX}\n`,
  ];
  for (const digest of bad) assert.equal(isDigest(digest), false, digest);
  assert.throws(
    () => requireDigest("sha256:baddigeststring"),
    (error) => isSlipwayError(error, "DIGEST_INVALID"),
  );
});

test("the referrers tag cuts sha512 to 64 characters and leads back to the subject", () => {
  assert.equal(referrersTag(`sha256:${HEX}`), `sha256-${HEX}`);
  assert.equal(referrersTag(`sha512:${HEX}${HEX}`), `sha512-${HEX}`);
  assert.equal(referrersTag(`${"x".repeat(40)}+b:${HEX}`), `${"x".repeat(32)}-${HEX}`);
  assert.equal(subjectPrefixOfTag(`sha256-${HEX}`), `sha256:${HEX}`);
  assert.equal(subjectPrefixOfTag("sha256-abc"), null);
  assert.ok(isTag(referrersTag(`sha512:${HEX}${HEX}`)));
});

test("a colon makes a reference a digest, everything else is a tag or nothing", () => {
  assert.deepEqual(parseReference("v1.0"), { kind: "tag", tag: "v1.0" });
  assert.deepEqual(parseReference(`sha256:${HEX}`), { kind: "digest", digest: `sha256:${HEX}` });
  for (const text of ["", "-a", ".a", "a/b", "a".repeat(129), "sha256:abc", "v1\n"]) assert.equal(parseReference(text), null, text);
  assert.throws(
    () => requireReference("sha256:abc"),
    (error) => isSlipwayError(error, "DIGEST_INVALID"),
  );
  assert.throws(
    () => requireReference("-a"),
    (error) => isSlipwayError(error, "MANIFEST_INVALID"),
  );
});
