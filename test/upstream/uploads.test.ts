/** Pushing to registries that name odd Locations, refuse chunks, lose sessions or lie about ranges. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "node:test";
import { fail, send, sha256 } from "../support/fake-answers.ts";
import { OCI_MANIFEST, startFakeRegistry } from "../support/fake-registry.ts";
import { startClient, withCode } from "./support.ts";

const BYTES = randomBytes(300_000);
const DIGEST = sha256(BYTES);
const BASIC = { type: "basic", username: "user", password: "secret" } as const;

test("uploads in chunks, in another process from the middle on, and closes with the last chunk", async (t) => {
  const registry = await startFakeRegistry(t);
  let session = await startClient(t, registry.url).startUpload("a");
  session = await startClient(t, registry.url).uploadChunk("a", session, { bytes: BYTES.subarray(0, 100_000), size: 100_000 });
  assert.equal(session.offset, 100_000);
  const other = startClient(t, registry.url);
  const kept = JSON.parse(JSON.stringify(session)) as typeof session;
  const confirmed = await other.uploadStatus("a", { ...kept, offset: 0 });
  assert.equal(confirmed.offset, 100_000);
  const result = await other.finishUpload("a", confirmed, DIGEST, { lastChunk: { bytes: BYTES.subarray(100_000), size: 200_000 } });
  assert.equal(result.digest, DIGEST);
  assert.ok(registry.repository("a").blobs.get(DIGEST)?.equals(BYTES));
  const patch = registry.calls.find((call) => call.method === "PATCH");
  assert.deepEqual([patch?.headers["content-range"], patch?.headers["content-length"]], ["0-99999", "100000"]);
});

test("the state in a Location is kept as it is and the digest is appended", async (t) => {
  const registry = await startFakeRegistry(t);
  const state = "_state=a%2Bb%2Fc%3D&x=%7E1";
  const base = `/v2/a/blobs/uploads/7?${state}`;
  for (const [location, put] of [
    [`${registry.url}${base}`, `${base}&digest=`],
    [base, `${base}&digest=`],
    [`7?${state}`, `${base}&digest=`],
    ["/v2/a/blobs/uploads/7", "/v2/a/blobs/uploads/7?digest="],
  ] as const) {
    registry.clearScripts();
    registry.on({ method: "POST", path: /uploads/ }, (_, response) => send(response, 202, { location }));
    registry.on({ method: "PUT", path: /uploads/ }, (_, response) => send(response, 201, {}));
    const client = startClient(t, registry.url);
    await client.finishUpload("a", await client.startUpload("a"), DIGEST, { lastChunk: { bytes: BYTES, size: BYTES.length } });
    assert.equal(registry.calls.at(-1)?.url, `${put}${encodeURIComponent(DIGEST)}`);
  }
});

test("a Location on another host is followed without credentials", async (t) => {
  const registry = await startFakeRegistry(t, { auth: BASIC });
  const elsewhere = await startFakeRegistry(t);
  registry.on({ method: "POST", path: /uploads/ }, (request, response) => {
    if (request.headers.authorization) send(response, 202, { location: `${elsewhere.url}/up?sig=1` });
    else fail(response, 401, "UNAUTHORIZED", { "www-authenticate": "Basic realm=x" });
  });
  elsewhere.on({ path: /^\/up/ }, (_, response) => send(response, 201, {}));
  const client = startClient(t, registry.url, { endpoint: { credential: BASIC } });
  await client.uploadMonolithic("a", DIGEST, { bytes: BYTES, size: BYTES.length });
  assert.equal(elsewhere.calls.length, 1);
  assert.equal(elsewhere.calls[0]?.headers.authorization, undefined);
});

test("a stream is sent with its length, in one PUT and in one PATCH", async (t) => {
  const registry = await startFakeRegistry(t);
  const client = startClient(t, registry.url);
  await client.uploadMonolithic("a", DIGEST, { bytes: Readable.from([BYTES.subarray(0, 9), BYTES.subarray(9)]), size: BYTES.length });
  assert.equal(registry.calls.at(-1)?.headers["content-length"], String(BYTES.length));
  const data = { bytes: Readable.from([BYTES]), size: BYTES.length };
  const session = await client.uploadChunk("b", await client.startUpload("b"), data, { streamed: true });
  assert.equal((await client.finishUpload("b", session, DIGEST)).digest, DIGEST);
  assert.ok(registry.calls.every((call) => call.headers["transfer-encoding"] === undefined));
});

test("a small blob goes in one POST, or in two calls where the registry answers 202", async (t) => {
  const registry = await startFakeRegistry(t);
  const client = startClient(t, registry.url);
  await client.uploadMonolithic("a", DIGEST, { bytes: BYTES, size: BYTES.length }, { singlePost: true });
  assert.equal(registry.count("upload"), 1);
  registry.on({ method: "POST", path: /uploads\/\?digest/, times: 1 }, (_, response) => send(response, 405, {}));
  await client.uploadMonolithic("b", DIGEST, { bytes: BYTES, size: BYTES.length }, { singlePost: true });
  assert.ok(registry.repository("b").blobs.has(DIGEST));
});

test("a PATCH answered 201 or with a Range that makes no sense does not stop the upload; one that says less is believed", async (t) => {
  const registry = await startFakeRegistry(t);
  const client = startClient(t, registry.url);
  const session = await client.startUpload("a");
  for (const [status, range, offset] of [
    [201, "0-0", 1000],
    [202, "garbage", 1000],
    [202, "0-99999999", 1000],
    [204, "bytes=0-499", 500],
  ] as const) {
    registry.on({ method: "PATCH", path: /uploads/, times: 1 }, (_, response) => send(response, status, { range }));
    assert.equal((await client.uploadChunk("a", session, { bytes: BYTES.subarray(0, 1000), size: 1000 })).offset, offset, range);
  }
});

test("says what a registry has against an upload", async (t) => {
  const registry = await startFakeRegistry(t);
  const client = startClient(t, registry.url);
  const session = await client.startUpload("a");
  const chunk = { bytes: BYTES.subarray(0, 10), size: 10 };
  await assert.rejects(client.uploadChunk("a", { ...session, offset: 5 }, chunk), withCode("RANGE_INVALID"));
  await assert.rejects(client.finishUpload("a", session, DIGEST, { lastChunk: chunk }), withCode("DIGEST_INVALID"));
  await assert.rejects(client.uploadChunk("a", session, chunk), withCode("BLOB_UPLOAD_UNKNOWN"));
  registry.on({ method: "PATCH", path: /uploads/ }, (_, response) => send(response, 413, {}, "<html>too large</html>"));
  await assert.rejects(client.uploadChunk("a", await client.startUpload("a"), chunk), withCode("PAYLOAD_TOO_LARGE"));
});

test("honours the smallest chunk that a registry takes", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.on({ method: "POST", path: /uploads/ }, (_, response) => {
    send(response, 202, { location: "/v2/a/blobs/uploads/1", "oci-chunk-min-length": "5242880" });
  });
  assert.equal((await startClient(t, registry.url).startUpload("a")).minChunkBytes, 5_242_880);
});

test("mounts a blob; anything but 201 means that it must be uploaded", async (t) => {
  const registry = await startFakeRegistry(t);
  registry.putBlob("from", BYTES);
  const client = startClient(t, registry.url);
  assert.deepEqual(await client.mountBlob("to", DIGEST, "from"), { mounted: true });
  const refused = await client.mountBlob("to", sha256("other"), "from");
  assert.ok(!refused.mounted && refused.session !== null);
  for (const status of [400, 401, 403, 404, 405]) {
    registry.on({ path: /uploads/, times: 1 }, (_, response) => fail(response, status, "NO"));
    assert.deepEqual(await client.mountBlob("to", DIGEST, "from"), { mounted: false, session: null }, String(status));
  }
});

test("asks for a mount's two repositories in one token", async (t) => {
  const registry = await startFakeRegistry(t, { auth: { ...BASIC, type: "bearer" } });
  registry.putBlob("from", BYTES);
  await startClient(t, registry.url, { endpoint: { credential: BASIC } }).mountBlob("to", DIGEST, "from");
  const url = new URL(registry.calls.find((call) => call.kind === "token")?.url ?? "", registry.url);
  assert.deepEqual(url.searchParams.getAll("scope"), ["repository:to:pull,push", "repository:from:pull"]);
});

test("puts and deletes a manifest, and notices when the registry stored another one", async (t) => {
  const registry = await startFakeRegistry(t);
  const client = startClient(t, registry.url);
  const bytes = Buffer.from('{"schemaVersion":2}');
  const digest = sha256(bytes);
  assert.deepEqual(await client.putManifest("a", digest, { bytes, mediaType: OCI_MANIFEST }), { digest, subject: null });
  await client.putManifest("a", "v1", { bytes, mediaType: OCI_MANIFEST });
  assert.ok(registry.repository("a").manifests.get(digest)?.bytes.equals(bytes));
  await client.deleteManifest("a", digest);
  await assert.rejects(client.deleteManifest("a", digest), withCode("MANIFEST_UNKNOWN"));
  registry.on({ method: "PUT", path: /manifests/ }, (_, response) => send(response, 201, { "docker-content-digest": sha256("other") }));
  await assert.rejects(client.putManifest("a", digest, { bytes, mediaType: OCI_MANIFEST }), withCode("DIGEST_MISMATCH"));
});

for (const [status, code, expected] of [
  [400, "MANIFEST_BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"],
  [404, "MANIFEST_BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"],
  [400, "MANIFEST_INVALID", "MANIFEST_INVALID"],
  [409, "TAG_IMMUTABLE", "CONFLICT"],
  [412, "PRECONDITION", "PRECONDITION_FAILED"],
  [413, "TOO_LARGE", "PAYLOAD_TOO_LARGE"],
  [400, "OTHER", "BAD_REQUEST"],
] as const) {
  test(`a manifest refused with ${status} ${code} is reported as ${expected}`, async (t) => {
    const registry = await startFakeRegistry(t);
    registry.on({ method: "PUT", path: /manifests/ }, (_, response) => fail(response, status, code));
    const put = startClient(t, registry.url).putManifest("a", "v1", { bytes: Buffer.from("{}"), mediaType: OCI_MANIFEST });
    await assert.rejects(put, withCode(expected));
  });
}

test("a token that ran out in the middle is renewed and the session goes on", async (t) => {
  const registry = await startFakeRegistry(t, { auth: { ...BASIC, type: "bearer" } });
  const client = startClient(t, registry.url, { endpoint: { credential: BASIC } });
  let session = await client.startUpload("a");
  registry.revokeTokens();
  session = await client.uploadChunk("a", session, { bytes: BYTES.subarray(0, 1000), size: 1000 });
  registry.revokeTokens();
  const stream = (): { bytes: Readable; size: number } => ({ bytes: Readable.from([BYTES.subarray(1000)]), size: BYTES.length - 1000 });
  // A stream cannot be sent twice; the caller is told to come again, and then it works.
  await assert.rejects(client.finishUpload("a", session, DIGEST, { lastChunk: stream() }), withCode("UPSTREAM_UNAVAILABLE"));
  assert.equal((await client.finishUpload("a", session, DIGEST, { lastChunk: stream() })).digest, DIGEST);
});

test("cancels an upload, and one that is gone or may not be cancelled is no trouble", async (t) => {
  const registry = await startFakeRegistry(t);
  const client = startClient(t, registry.url);
  const session = await client.startUpload("a");
  await client.cancelUpload("a", session);
  await assert.rejects(client.uploadStatus("a", session), withCode("BLOB_UPLOAD_UNKNOWN"));
  await client.cancelUpload("a", session);
  registry.on({ method: "DELETE", path: /uploads/ }, (_, response) => fail(response, 403, "DENIED"));
  await client.cancelUpload("a", session);
});
