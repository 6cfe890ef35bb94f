// What a registry accepts as a manifest, and what it reads from it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type ErrorCode, isSlipwayError } from "../../src/core/errors.ts";
import { parseManifest } from "../../src/oci/manifest.ts";
import { MEDIA_TYPES, essence, isNonDistributable } from "../../src/oci/media-types.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;
const SHA512 = `sha512:${"b".repeat(128)}`;

function descriptor(extra: object = {}): object {
  return { mediaType: "application/octet-stream", digest: DIGEST, size: 10, ...extra };
}

function image(extra: object = {}): string {
  const config = descriptor({ mediaType: "application/vnd.oci.image.config.v1+json" });
  return JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociImage, config, layers: [descriptor()], ...extra });
}

function refused(content: string | Uint8Array, contentType: string | undefined, code: ErrorCode = "MANIFEST_INVALID"): void {
  assert.throws(
    () => parseManifest(content, contentType),
    (error) => isSlipwayError(error, code),
  );
}

test("an image yields config, layers, subject and annotations", () => {
  const parsed = parseManifest(
    image({ subject: descriptor({ digest: SHA512 }), annotations: { a: "b" }, custom: { x: [1] } }),
    MEDIA_TYPES.ociImage,
  );
  assert.equal(parsed.kind, "image");
  assert.equal(parsed.layers.length, 1);
  assert.equal(parsed.config?.digest, DIGEST);
  assert.equal(parsed.subject?.digest, SHA512);
  assert.deepEqual(parsed.annotations, { a: "b" });
  assert.equal(parsed.artifactType, "application/vnd.oci.image.config.v1+json");
});

test("a declared artifactType goes before that of the config", () => {
  assert.equal(parseManifest(image({ artifactType: "application/x.sbom" }), MEDIA_TYPES.ociImage).artifactType, "application/x.sbom");
  assert.equal(parseManifest(image({ artifactType: "" }), MEDIA_TYPES.ociImage).artifactType, "application/vnd.oci.image.config.v1+json");
});

test("an index yields its children with platforms, and may be empty", () => {
  const child = descriptor({ platform: { architecture: "arm64", os: "linux", variant: "v8" }, annotations: { k: "v" } });
  const parsed = parseManifest(JSON.stringify({ schemaVersion: 2, manifests: [child] }), MEDIA_TYPES.ociIndex);
  assert.equal(parsed.kind, "index");
  assert.deepEqual(parsed.manifests[0]?.platform, { architecture: "arm64", os: "linux", variant: "v8" });
  assert.equal(parsed.artifactType, null);
  assert.equal(parseManifest(JSON.stringify({ schemaVersion: 2, manifests: [] }), MEDIA_TYPES.ociIndex).manifests.length, 0);
});

test("the Docker variants are read alike", () => {
  assert.equal(parseManifest(image({ mediaType: MEDIA_TYPES.dockerImage }), MEDIA_TYPES.dockerImage).kind, "docker-image");
  const list = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.dockerList, manifests: [descriptor()] });
  assert.equal(parseManifest(list, MEDIA_TYPES.dockerList).kind, "docker-list");
});

test("a Content-Type with parameters or without meaning leaves the decision to the document", () => {
  assert.equal(parseManifest(image(), `${MEDIA_TYPES.ociImage}; charset=utf-8`).kind, "image");
  assert.equal(parseManifest(image(), "application/json").kind, "image");
  assert.equal(parseManifest(image(), undefined).kind, "image");
  assert.equal(parseManifest(image({ mediaType: undefined }), undefined).mediaType, MEDIA_TYPES.ociImage);
  assert.equal(essence(" Text/Plain ; a=b"), "text/plain");
});

test("mediaType and Content-Type must agree", () => {
  refused(image(), MEDIA_TYPES.ociIndex);
  refused(image(), MEDIA_TYPES.dockerImage);
  refused(image({ mediaType: "application/x.other" }), "application/x.other");
  refused(image({ mediaType: 5 }), MEDIA_TYPES.ociImage);
});

test("a document that could be read as image and as index is refused", () => {
  refused(image({ manifests: [] }), MEDIA_TYPES.ociImage);
  refused(JSON.stringify({ schemaVersion: 2, manifests: [], layers: [descriptor()] }), MEDIA_TYPES.ociIndex);
});

test("schema 1 is refused with a reason", () => {
  for (const [content, type] of [
    [JSON.stringify({ schemaVersion: 1, name: "a", fsLayers: [] }), MEDIA_TYPES.dockerSchema1Signed],
    [JSON.stringify({ schemaVersion: 1, name: "a", fsLayers: [] }), undefined],
  ] as const)
    assert.throws(() => parseManifest(content, type), /schema 1/);
});

test("malformed documents are refused", () => {
  for (const content of ["", "null", "[]", "5", '"text"', "{", "{}", "<html>", '{"schemaVersion":2}', "\uFEFF" + image()])
    refused(content, MEDIA_TYPES.ociImage);
  refused(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), MEDIA_TYPES.ociImage);
  for (const bad of [
    { size: -1 },
    { size: 1.5 },
    { size: "10" },
    { size: 2 ** 60 },
    { digest: "sha256:abc" },
    { digest: 5 },
    { mediaType: "" },
    { urls: [1] },
  ])
    refused(image({ layers: [descriptor(bad)] }), MEDIA_TYPES.ociImage);
  refused(image({ layers: descriptor() }), MEDIA_TYPES.ociImage);
  refused(image({ config: undefined }), MEDIA_TYPES.ociImage);
  refused(image({ subject: "x" }), MEDIA_TYPES.ociImage);
  refused(image({ annotations: { a: 1 } }), MEDIA_TYPES.ociImage);
  refused(image({ annotations: { a: "\0" } }), MEDIA_TYPES.ociImage);
  refused(image({ artifactType: "\ud800" }), MEDIA_TYPES.ociImage);
});

test("deep nesting is refused quickly, brackets inside strings do not count", () => {
  const deep = `{"schemaVersion":2,"x":${"[".repeat(10_000)}${"]".repeat(10_000)}}`;
  const started = performance.now();
  refused(deep, MEDIA_TYPES.ociImage);
  refused("[".repeat(4_000_000), MEDIA_TYPES.ociImage);
  assert.ok(performance.now() - started < 1000);
  const text = `${'[\\"{'.repeat(500)}`;
  assert.equal(parseManifest(image().replace("{", `{"x":"${text}",`), MEDIA_TYPES.ociImage).kind, "image");
});

test("4 MB are accepted, more than the limit is too large", () => {
  assert.equal(parseManifest(image({ annotations: { a: "x".repeat(4_000_000) } }), MEDIA_TYPES.ociImage).kind, "image");
  refused(new Uint8Array(8 * 1024 * 1024 + 1), MEDIA_TYPES.ociImage, "PAYLOAD_TOO_LARGE");
});

test("layers that registries need not hold are known by their type", () => {
  assert.ok(isNonDistributable("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"));
  assert.ok(isNonDistributable("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"));
  assert.ok(isNonDistributable("application/vnd.oci.image.layer.nondistributable.v1.tar"));
  assert.ok(!isNonDistributable("application/vnd.oci.image.layer.v1.tar+gzip"));
});
