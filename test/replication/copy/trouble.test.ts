/** What source and target do wrong, each on a real socket: the item that cannot be copied says why, everything else arrives. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { assertSameBytes } from "../../support/bytes.ts";
import { fail, send } from "../../support/fake-answers.ts";
import { OCI_MANIFEST, startFakeRegistry } from "../../support/fake-registry.ts";
import type { FakeRegistry } from "../../support/fake-registry.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { SOURCE_ID, startCopier } from "./setting.ts";
import type { CopierSetting } from "./setting.ts";

const REPOSITORY = "team/app";
const BLOB = /\/blobs\/sha256/;
const CHUNKED = { options: { tuning: { chunkBytes: 100_000 } } };

async function start(t: TestContext, rest: Partial<CopierSetting> & { sourceUrl?: string; targetUrl?: string } = {}) {
  const source = await startFakeRegistry(t);
  const target = await startFakeRegistry(t);
  const registries = { [SOURCE_ID]: { url: rest.sourceUrl ?? source.url }, 2: { url: rest.targetUrl ?? target.url }, ...rest.registries };
  return { source, target, setting: await startCopier(t, { ...rest, registries }) };
}

function assertCopied(target: FakeRegistry, source: FakeRegistry, tag: string, repository = REPOSITORY): void {
  const digest = source.repository(repository).tags.get(tag) ?? "";
  assert.equal(target.repository(repository).tags.get(tag), digest, `tag ${tag}`);
  const bytes = source.repository(repository).manifests.get(digest)?.bytes ?? Buffer.alloc(0);
  assertSameBytes(target.repository(repository).manifests.get(digest)?.bytes ?? Buffer.alloc(0), bytes);
  const manifest = JSON.parse(bytes.toString()) as { config?: { digest: string }; layers?: { digest: string }[] };
  for (const { digest: blob } of [...(manifest.config ? [manifest.config] : []), ...(manifest.layers ?? [])]) {
    assertSameBytes(
      target.repository(repository).blobs.get(blob) ?? Buffer.alloc(0),
      source.repository(repository).blobs.get(blob) ?? Buffer.alloc(1),
    );
  }
}

test("a target that limits is left alone for as long as it says, and the task waits without having failed", async (t) => {
  const { source, target, setting } = await start(t);
  source.putImage(REPOSITORY, "v1");
  target.on({ path: /uploads/ }, (_request, response) => send(response, 429, { "retry-after": "60" }));
  const { executionId, outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.equal(outcome.failed + outcome.succeeded, 0);
  const [again] = outcome.again;
  assert.ok(again && again.tried && again.delayMs >= 55_000 && again.delayMs < 80_000, JSON.stringify(outcome));
  const [task] = await setting.tasksOf(executionId);
  assert.equal(task?.status, "Error");
  assert.ok(task?.retryAt && task.retryAt.getTime() > Date.now() + 50_000);
  const item = await setting.item(executionId, "v1");
  assert.deepEqual([item.status, item.reason, item.attempts], ["Pending", "limited", 1]);
});

test("a limit without a time, and trouble that passes, are tried again in later rounds", async (t) => {
  for (const status of [429, 500]) {
    const { source, target, setting } = await start(t, { pool: { breakerThreshold: 1000 } });
    source.putImage(REPOSITORY, "v1");
    target.on({ method: "POST", path: /uploads/ }, (_request, response) => send(response, status, {}));
    const { executionId, outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
    const [again] = outcome.again;
    assert.ok(again && again.delayMs >= 1000, `${status}: ${JSON.stringify(outcome)}`);
    target.clearScripts();
    // As the outcome says: several refusals at once block for longer than one.
    await new Promise((resolve) => setTimeout(resolve, again.delayMs + 200));
    const second = await setting.copier.copyBatch({ executionId, tasks: again.tasks, round: 2 }, new AbortController().signal);
    assert.deepEqual(second, { again: [], succeeded: 1, failed: 0 }, `${status}`);
    assertCopied(target, source, "v1");
    const [task] = await setting.tasksOf(executionId);
    assert.deepEqual([task?.status, task?.runCount], ["Success", 2]);
  }
});

test("single refusals by 500 and cut connections cost nothing but a moment", async (t) => {
  const { source, target, setting } = await start(t);
  source.putImage(REPOSITORY, "v1", [randomBytes(200_000)]);
  target.on({ method: "PUT", path: /uploads/, times: 1 }, (_request, response) => send(response, 500, {}));
  target.on({ method: "PUT", path: /manifests/, times: 1 }, (request) => void request.socket.destroy());
  source.on({ path: BLOB, times: 1 }, (request) => void request.socket.destroy());
  const { outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.equal(outcome.succeeded, 1);
  assertCopied(target, source, "v1");
});

test("bodies that are cut or stall in the middle go on where they stopped", async (t) => {
  const source = await startFakeRegistry(t);
  const proxy = await startFaultProxy(t, source);
  const stall = { windowMs: 600, minBytesPerSecond: 1_000 };
  for (const faults of [{ cutAfterBytes: 700_000, cuts: 2 }, { stallAfterBytes: 700_000 }]) {
    const { target, setting } = await start(t, { sourceUrl: proxy.url, pool: { stall } });
    source.putImage(REPOSITORY, "v1", [randomBytes(1_500_000)]);
    proxy.set(faults);
    setTimeout(() => proxy.heal(), 1_500).unref();
    const { outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
    proxy.heal();
    assert.equal(outcome.succeeded, 1, JSON.stringify(faults));
    assertCopied(target, source, "v1");
  }
});

test("bytes that are wrong once are read again; wrong twice they fail their item alone", async (t) => {
  const { source, target, setting } = await start(t);
  source.putImage(REPOSITORY, "good", [randomBytes(1000)]);
  const layer = randomBytes(1000);
  source.putImage(REPOSITORY, "bad", [layer]);
  const [digest = ""] = [...source.repository(REPOSITORY).blobs].find(([, bytes]) => bytes.equals(layer)) ?? [];
  const wrong = (times: number): void =>
    source.on({ path: new RegExp(`/blobs/${digest}`), times }, (_request, response) => send(response, 200, {}, randomBytes(1000)));
  wrong(2);
  const first = await setting.copy({ repository: REPOSITORY, tags: ["good", "bad"], targets: [2] });
  assert.equal(first.outcome.failed, 1);
  assertCopied(target, source, "good");
  const item = await setting.item(first.executionId, "bad");
  assert.deepEqual([item.status, item.reason], ["Error", "digest-mismatch"]);
  assert.equal(target.repository(REPOSITORY).tags.has("bad"), false);
  source.clearScripts();
  wrong(1);
  const second = await setting.copy({ repository: REPOSITORY, tags: ["bad"], targets: [2], empty: false });
  assert.equal(second.outcome.succeeded, 1);
  assertCopied(target, source, "bad");
});

test("tags that may not be moved say so", async (t) => {
  for (const [status, code] of [
    [409, "CONFLICT"],
    [412, "PRECONDITION"],
    [400, "TAG_INVALID"],
  ] as const) {
    const { source, target, setting } = await start(t);
    source.putImage(REPOSITORY, "fixed");
    source.putImage(REPOSITORY, "free");
    target.on({ method: "PUT", path: `/v2/${REPOSITORY}/manifests/fixed` }, (_request, response) => fail(response, status, code));
    const { executionId, outcome } = await setting.copy({ repository: REPOSITORY, tags: ["fixed", "free"], targets: [2] });
    assert.deepEqual([outcome.failed, outcome.again.length], [1, 0]);
    const item = await setting.item(executionId, "fixed");
    assert.deepEqual([item.status, item.reason], ["Error", "immutable"], `${status}`);
    assert.equal((await setting.item(executionId, "free")).status, "Success");
  }
});

test("a tag that may not be moved, and is what it should be, is no failure when something new refers to it", async (t) => {
  const { source, target, setting } = await start(t);
  for (const registry of [source, target]) registry.putImage(REPOSITORY, "fixed");
  const subject = { mediaType: OCI_MANIFEST, digest: source.repository(REPOSITORY).tags.get("fixed") ?? "", size: 1 };
  const config = { mediaType: "application/vnd.oci.empty.v1+json", digest: source.putBlob(REPOSITORY, Buffer.from("{}")), size: 2 };
  const signature = source.putManifest(REPOSITORY, { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [], subject });
  target.on({ method: "PUT", path: `/v2/${REPOSITORY}/manifests/fixed` }, (_request, response) => fail(response, 409, "CONFLICT"));
  const { outcome } = await setting.copy({ repository: REPOSITORY, tags: ["fixed"], targets: [2] });
  assert.deepEqual(outcome, { again: [], succeeded: 1, failed: 0 });
  assert.ok(target.repository(REPOSITORY).manifests.has(signature));
});

test("blobs that were believed to be there are sent when the target says that it lacks them", async (t) => {
  const { source, target, setting } = await start(t);
  const manifest = source.putImage(REPOSITORY, "v1", [randomBytes(1000)]);
  const blobs = [...source.repository(REPOSITORY).blobs.keys()];
  for (const digest of blobs) {
    await setting.database.query("INSERT INTO replication_content (registry_id, digest, repository) VALUES (2, $1, $2)", [
      digest,
      REPOSITORY,
    ]);
  }
  target.on({ method: "PUT", path: /manifests/, times: 1 }, (_request, response) => fail(response, 404, "MANIFEST_BLOB_UNKNOWN"));
  const { outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2], empty: false });
  assert.equal(outcome.succeeded, 1);
  assertCopied(target, source, "v1");
  assert.equal(target.repository(REPOSITORY).tags.get("v1"), manifest);
});

test("a registry that takes no chunks gets whole blobs, now and for a while", async (t) => {
  const answers: ((target: FakeRegistry) => void)[] = [
    (target) => target.on({ method: "PATCH", path: /uploads/ }, (_request, response) => fail(response, 405, "UNSUPPORTED")),
    (target) => target.on({ method: "PATCH", path: /uploads/ }, (_request, response) => send(response, 416, {})),
    (target) => target.on({ method: "PATCH", path: /uploads/ }, (_request, response) => fail(response, 404, "BLOB_UPLOAD_UNKNOWN")),
  ];
  for (const script of answers) {
    const { source, target, setting } = await start(t, CHUNKED);
    source.putImage(REPOSITORY, "v1", [randomBytes(250_000)]);
    script(target);
    assert.equal((await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] })).outcome.succeeded, 1);
    assertCopied(target, source, "v1");
    const tries = target.count("upload", "PATCH");
    source.putImage(REPOSITORY, "v2", [randomBytes(250_000)]);
    assert.equal((await setting.copy({ repository: REPOSITORY, tags: ["v2"], targets: [2] })).outcome.succeeded, 1);
    assert.equal(target.count("upload", "PATCH"), tries, "no chunk is tried again");
  }
});

test("an upload session that is gone in the middle is begun anew", async (t) => {
  const { source, target, setting } = await start(t, CHUNKED);
  source.putImage(REPOSITORY, "v1", [randomBytes(350_000)]);
  let chunks = 0;
  target.on({ method: "PATCH", path: /uploads/, times: 2 }, (request, response) => {
    chunks += 1;
    if (chunks === 1) return send(response, 202, { location: request.url ?? "", range: "0-99999" });
    return fail(response, 404, "BLOB_UPLOAD_UNKNOWN");
  });
  const { outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.equal(outcome.succeeded, 1);
  assertCopied(target, source, "v1");
});

test("an upload may be elsewhere", async (t) => {
  const { source, target, setting } = await start(t);
  const elsewhere = await startFakeRegistry(t);
  source.putImage(REPOSITORY, "v1", [randomBytes(1000)]);
  target.on({ method: "POST", path: /uploads/ }, async (_request, response) => {
    const opened = await fetch(`${elsewhere.url}/v2/${REPOSITORY}/blobs/uploads/`, { method: "POST" });
    send(response, 202, { location: new URL(opened.headers.get("location") ?? "", elsewhere.url).href });
  });
  const { outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.equal(outcome.succeeded, 1);
  assert.equal(elsewhere.repository(REPOSITORY).blobs.size, 2);
  assert.equal(target.repository(REPOSITORY).tags.size, 1);
});

test("tokens that end in the middle are renewed on both sides", async (t) => {
  const { source, target, setting } = await start(t, CHUNKED);
  source.auth = { type: "bearer" };
  target.auth = { type: "bearer" };
  source.putImage(REPOSITORY, "v1", [randomBytes(350_000), randomBytes(2_000)]);
  target.on({ method: "PATCH", path: /uploads/, times: 1 }, (_request, response) => {
    source.revokeTokens();
    target.revokeTokens();
    fail(response, 401, "UNAUTHORIZED", { "www-authenticate": `Bearer realm="${target.url}/token",service="fake"` });
  });
  const { outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.equal(outcome.succeeded, 1, JSON.stringify(outcome));
  assertCopied(target, source, "v1");
});

test("a refused credential fails at once, with the side that refused", async (t) => {
  const { source, target, setting } = await start(t);
  source.putImage(REPOSITORY, "v1");
  target.auth = { type: "basic", username: "u", password: "p" };
  const { executionId, outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.deepEqual([outcome.failed, outcome.again.length], [1, 0]);
  const item = await setting.item(executionId, "v1");
  assert.deepEqual([item.status, item.reason], ["Error", "refused"]);
  assert.match(item.message, /^the target 127/);
});

test("what was listed and is gone, and what is of the old schema, end alone", async (t) => {
  const { source, target, setting } = await start(t);
  source.putImage(REPOSITORY, "v1");
  source.putManifest(
    REPOSITORY,
    { schemaVersion: 1, name: REPOSITORY, tag: "old", fsLayers: [], history: [] },
    {
      tag: "old",
      mediaType: "application/vnd.docker.distribution.manifest.v1+prettyjws",
    },
  );
  const { executionId, outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1", "gone", "old"], targets: [2] });
  assert.deepEqual([outcome.failed, outcome.again.length], [1, 0]);
  assertCopied(target, source, "v1");
  const gone = await setting.item(executionId, "gone");
  assert.deepEqual([gone.status, gone.reason], ["Skipped", "gone-at-source"]);
  const old = await setting.item(executionId, "old");
  assert.deepEqual([old.status, old.reason], ["Error", "unsupported-manifest"]);
  assert.match(old.message, /schema 1/);
});

test("a registry that confirms what it does not have is found out", async (t) => {
  const { source, target, setting } = await start(t);
  source.putImage(REPOSITORY, "v1");
  target.digestHeader = false;
  target.on({ method: "PUT", path: /uploads/ }, (_request, response) => send(response, 201, {}));
  const { executionId, outcome } = await setting.copy({ repository: REPOSITORY, tags: ["v1"], targets: [2] });
  assert.equal(outcome.succeeded, 0);
  assert.match((await setting.item(executionId, "v1")).message, /does not have it/);
});
