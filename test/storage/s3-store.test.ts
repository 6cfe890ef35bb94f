/** S3 against the demands on all drivers, on a real server, and what only a service can do: go away, hand out URLs, copy by itself. */
import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { after, test } from "node:test";
import { S3BlobStore } from "../../src/storage/s3-store.ts";
import type { S3StorageConfig } from "../../src/storage/storage-config.ts";
import { chunksOf, collect, digestOf, hasCode, MIB } from "../support/store-checks.ts";
import { storeConformance, type StoreFixture } from "../support/store-conformance.ts";
import { storeCrashes } from "../support/store-crashes.ts";
import { missingVersitygw, type S3Server, startVersitygw } from "../support/versitygw.ts";

const skip = await missingVersitygw();
const server = skip === false ? await startVersitygw({ after }) : null;
let prefixes = 0;

function ownConfig(from: S3Server | null = server): S3StorageConfig {
  if (!from) throw new Error("no server");
  prefixes += 1;
  return { ...from.config, prefix: `test-${prefixes}` };
}

const fixture: StoreFixture = { name: "s3", skip, storage: () => Promise.resolve(ownConfig()) };
storeConformance(fixture);
storeCrashes(fixture, { mayLose: 8 * MIB, growthMb: { one: 60, parallel: 260 } });

const QUICK = { attempts: 2, connectMs: 1_000, answerMs: 3_000, idleMs: 2_000 };

test("s3: a redirect leads to the blob, at the public endpoint, for a short time", { skip }, async () => {
  const config = ownConfig();
  const store = S3BlobStore.open(config);
  const bytes = randomBytes(100_000);
  await store.put(digestOf(bytes), bytes);
  const url = await store.redirectUrl(digestOf(bytes));
  assert.ok(url);
  assert.equal(new URL(url).searchParams.get("X-Amz-Expires"), "600");
  const answer = await fetch(url, { headers: { range: "bytes=10-99" } });
  assert.equal(answer.status, 206);
  assert.deepEqual(Buffer.from(await answer.arrayBuffer()), bytes.subarray(10, 100));
  const forged = new URL(url);
  forged.searchParams.set("X-Amz-Expires", "60000");
  assert.equal((await fetch(forged)).status, 403);

  const elsewhere = S3BlobStore.open({ ...config, publicEndpoint: "https://blobs.example.com:8443" });
  assert.match(
    (await elsewhere.redirectUrl(digestOf(bytes))) ?? "",
    /^https:\/\/blobs\.example\.com:8443\/blobs\/test-\d+\/blobs\/sha256\//,
  );
  const hosted = S3BlobStore.open({ ...config, pathStyle: false, publicEndpoint: "https://s3.example.com" });
  assert.match((await hosted.redirectUrl(digestOf(bytes))) ?? "", /^https:\/\/blobs\.s3\.example\.com\/test-\d+\/blobs\/sha256\//);
  assert.equal(await S3BlobStore.open({ ...config, redirect: false }).redirectUrl(digestOf(bytes)), null);
});

test("s3: without a key of its own the store takes the credentials of the environment, as the SDK does", { skip }, async (t) => {
  const config = ownConfig();
  const chained = { ...config, accessKeyId: null, secretAccessKey: null };
  const names = { AWS_ACCESS_KEY_ID: config.accessKeyId, AWS_SECRET_ACCESS_KEY: config.secretAccessKey };
  const before = Object.keys(names).map((name) => [name, process.env[name]] as const);
  t.after(() => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
  for (const [name, value] of Object.entries(names)) process.env[name] = value ?? "";
  const bytes = randomBytes(1000);
  await S3BlobStore.open(chained).put(digestOf(bytes), bytes);
  assert.deepEqual(await collect(await S3BlobStore.open(config).read(digestOf(bytes))), bytes);
  process.env["AWS_SECRET_ACCESS_KEY"] = "another";
  await assert.rejects(S3BlobStore.open(chained).check(), hasCode("STORAGE_UNAVAILABLE"));
});

test("s3: large blobs are copied in pieces, and an append with too many parts goes on in a further segment", { skip }, async () => {
  const store = S3BlobStore.open({ ...ownConfig(), limits: { copyBytes: 6 * MIB, partsPerSegment: 3, copyParallel: 2 } });
  const bytes = randomBytes(41 * MIB + 7);
  const id = randomUUID();
  await store.createSession(id);
  assert.equal((await store.append(id, chunksOf(bytes), { offset: 0 })).offset, bytes.length);
  assert.deepEqual(await collect(await store.readSession(id)), bytes);
  await store.commitSession(id, { digest: digestOf(bytes), size: bytes.length });
  assert.deepEqual(await store.readAll(digestOf(bytes), bytes.length), bytes);
});

test("s3: appends beyond the number allowed wait, and are refused as OVERLOADED when that takes too long", { skip }, async () => {
  const store = S3BlobStore.open({ ...ownConfig(), limits: { appends: 1, appendWaitMs: 100 } });
  const ids = [randomUUID(), randomUUID()] as const;
  for (const id of ids) await store.createSession(id);
  let finish: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    finish = resolve;
  });
  async function* slow(): AsyncGenerator<Uint8Array> {
    yield Buffer.of(1);
    await held;
  }
  const first = store.append(ids[0], slow(), { offset: 0 });
  await assert.rejects(store.append(ids[1], chunksOf(Buffer.of(2)), { offset: 0 }), hasCode("OVERLOADED"));
  const second = store.append(ids[1], chunksOf(Buffer.of(2)), { offset: 0 });
  finish();
  assert.equal((await first).offset, 1);
  assert.equal((await second).offset, 1);
});

test(
  "s3: a service that dies in the middle of a read or an upload is STORAGE_UNAVAILABLE, and the upload goes on when it is back",
  { skip, timeout: 60_000 },
  async (t) => {
    const own = await startVersitygw(t);
    const store = S3BlobStore.open({ ...ownConfig(own), limits: QUICK });
    const bytes = randomBytes(32 * MIB);
    await store.put(digestOf(bytes), bytes);
    const stream = await store.read(digestOf(bytes));
    await assert.rejects(async () => {
      for await (const _chunk of stream) await own.kill();
    }, hasCode("STORAGE_UNAVAILABLE"));
    await assert.rejects(store.check(), hasCode("STORAGE_UNAVAILABLE"));
    await assert.rejects(store.stat(digestOf(bytes)), hasCode("STORAGE_UNAVAILABLE"));
    await own.restart();
    await store.check();

    const id = randomUUID();
    await store.createSession(id);
    async function* source(): AsyncGenerator<Uint8Array> {
      yield* chunksOf(bytes.subarray(0, 17 * MIB));
      await own.kill();
      yield* chunksOf(bytes.subarray(17 * MIB));
    }
    await assert.rejects(store.append(id, source(), { offset: 0 }), hasCode("STORAGE_UNAVAILABLE"));
    await own.restart();
    const offset = (await store.sessionSize(id)) ?? -1;
    assert.ok(offset >= 10 * MIB, `only ${offset} bytes were kept`);
    await store.append(id, chunksOf(bytes.subarray(offset)), { offset });
    assert.deepEqual(await collect(await store.readSession(id)), bytes);
    await store.commitSession(id, { digest: digestOf(bytes), size: bytes.length });
  },
);

test("s3: a missing bucket and a wrong secret are STORAGE_UNAVAILABLE, and the error tells no secret", { skip }, async () => {
  const config = ownConfig();
  for (const broken of [
    { ...config, bucket: "no-such-bucket" },
    { ...config, secretAccessKey: "wrong-secret-value" },
  ]) {
    const store = S3BlobStore.open({ ...broken, limits: QUICK });
    await assert.rejects(store.check(), (error: Error) => {
      hasCode("STORAGE_UNAVAILABLE")(error);
      assert.ok(!`${error.message} ${String(error.cause)}`.includes("wrong-secret-value"));
      return true;
    });
  }
});

test("s3: a service that accepts and never answers, or falls silent in a body, is STORAGE_UNAVAILABLE in bounded time", async (t) => {
  const silent = createServer((request, response) => {
    if (request.url?.includes("half-sent")) response.writeHead(200, { "content-length": 1000 }).write("half");
  });
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    silent.closeAllConnections();
    silent.close();
  });
  const address = silent.address();
  assert.ok(address && typeof address === "object");
  const config: S3StorageConfig = {
    driver: "s3",
    bucket: "half-sent",
    prefix: "",
    region: "us-east-1",
    endpoint: `http://127.0.0.1:${address.port}`,
    pathStyle: true,
    accessKeyId: "key",
    secretAccessKey: "secret",
    redirect: false,
    publicEndpoint: null,
    limits: { ...QUICK, answerMs: 300, idleMs: 300 },
  };
  const body = S3BlobStore.open(config);
  await assert.rejects(async () => collect(await body.read(digestOf(Buffer.of(1)))), hasCode("STORAGE_UNAVAILABLE"));
  const none = S3BlobStore.open({ ...config, bucket: "never" });
  await assert.rejects(none.stat(digestOf(Buffer.of(1))), hasCode("STORAGE_UNAVAILABLE"));
  await assert.rejects(none.stat(digestOf(Buffer.of(1)), AbortSignal.timeout(20)), hasCode("CANCELLED"));
  await body.close();
  await none.close();
});
