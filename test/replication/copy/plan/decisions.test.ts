/** What failures mean, when tasks are tried again, what belongs to a manifest. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SlipwayError } from "../../../../src/core/errors.ts";
import type { ErrorCode } from "../../../../src/core/errors.ts";
import { outlineManifest, selectChildren } from "../../../../src/replication/copy/plan/content.ts";
import { judge, quickRetryMs, SideError } from "../../../../src/replication/copy/plan/failure.ts";
import { retryDelay } from "../../../../src/replication/copy/plan/retry.ts";

const digest = (digit: string): string => `sha256:${digit.repeat(64)}`;

function at(side: "source" | "target", code: ErrorCode, options: { detail?: unknown; writesTag?: boolean } = {}): SideError {
  const { detail, writesTag = false } = options;
  return new SideError({ side, host: "registry", writesTag }, new SlipwayError(code, { detail }));
}

test("failures are judged by kind and side, never by text", () => {
  const cases: [SideError, string, string][] = [
    [at("source", "MANIFEST_UNKNOWN"), "skipped", "gone-at-source"],
    [at("target", "MANIFEST_UNKNOWN"), "failed", "failed"],
    [at("target", "UPSTREAM_LIMITED"), "again", "limited"],
    [at("source", "UPSTREAM_TIMEOUT"), "again", "unavailable"],
    [at("target", "STORAGE_FULL"), "again", "unavailable"],
    [at("target", "UPSTREAM_REFUSED"), "failed", "refused"],
    [at("target", "CONFLICT", { writesTag: true }), "failed", "immutable"],
    [at("target", "BAD_REQUEST", { writesTag: true, detail: { code: "TAG_INVALID" } }), "failed", "immutable"],
    [at("target", "CONFLICT"), "failed", "failed"],
    [at("source", "MANIFEST_INVALID"), "failed", "unsupported-manifest"],
    [at("target", "DIGEST_INVALID"), "failed", "digest-mismatch"],
    [at("source", "BLOB_UNKNOWN"), "failed", "failed"],
  ];
  for (const [error, kind, reason] of cases) {
    const found = judge(error);
    assert.deepEqual([found.kind, found.reason], [kind, reason], `${error.side} ${error.error.code}`);
    assert.match(found.message, new RegExp(`^the ${error.side} registry: `));
  }
});

test("only what may pass soon is tried again at once", () => {
  assert.equal(quickRetryMs(new SlipwayError("UPSTREAM_UNREACHABLE"), 1), 200);
  assert.equal(quickRetryMs(new SlipwayError("UPSTREAM_UNREACHABLE"), 3), null);
  assert.equal(quickRetryMs(new SlipwayError("UPSTREAM_LIMITED", { retryAfterSeconds: 60 }), 1), null);
  assert.equal(quickRetryMs(new SlipwayError("UPSTREAM_UNAVAILABLE", { detail: { breaker: "open" } }), 1), null);
  assert.equal(quickRetryMs(new SlipwayError("UPSTREAM_REFUSED"), 1), null);
});

test("a task waits as long as it was told, else longer each time, and not for ever", () => {
  const question = { reason: "unavailable", retryAfterMs: null, round: 1, trigger: "manual", elapsedMs: 0, random: () => 1 } as const;
  assert.equal(retryDelay(question), 8_000);
  assert.equal(retryDelay({ ...question, round: 2 }), 16_000);
  assert.equal(retryDelay({ ...question, round: 40 }), 3_600_000);
  assert.equal(retryDelay({ ...question, retryAfterMs: 60_000 }), 66_250);
  assert.equal(retryDelay({ ...question, elapsedMs: 6 * 3_600_000 }), null);
  assert.equal(retryDelay({ ...question, trigger: "event", elapsedMs: 70 * 3_600_000 }), 8_000);
  assert.equal(retryDelay({ ...question, trigger: "event", elapsedMs: 72 * 3_600_000 }), null);
});

test("layers that nobody has to hold are left out, and each digest is there once", () => {
  const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar", digest: digest("a"), size: 1 };
  const foreign = { ...layer, mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", digest: digest("b") };
  const config = { mediaType: "application/vnd.oci.image.config.v1+json", digest: digest("c"), size: 2 };
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, config, layers: [layer, foreign, layer] }));
  assert.deepEqual(
    outlineManifest(bytes, mediaType).blobs.map((blob) => blob.digest),
    [config.digest, layer.digest],
  );
});

test("of an index the chosen platforms are kept with what attests them", () => {
  const child = (digit: string, architecture: string, rest: object = {}) => ({
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    digest: digest(digit),
    size: 1,
    platform: { os: architecture === "unknown" ? "unknown" : "linux", architecture, ...(digit === "c" ? { variant: "v7" } : {}) },
    ...rest,
  });
  const attests = (digit: string) => ({ annotations: { "vnd.docker.reference.digest": digest(digit) } });
  const children = [
    child("a", "amd64"),
    child("b", "arm64"),
    child("c", "arm"),
    child("d", "unknown", attests("a")),
    child("e", "unknown", attests("b")),
  ];
  const chosen = (...platforms: string[]): string[] => selectChildren(children, platforms).map((each) => each.digest.slice(7, 8));
  assert.deepEqual(chosen("linux/amd64"), ["a", "d"]);
  assert.deepEqual(chosen("linux/arm/v7"), ["c"]);
  assert.deepEqual(chosen("linux/arm/v6"), []);
  assert.equal(selectChildren(children, null).length, 5);
});
