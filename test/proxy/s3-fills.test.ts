/** Pull-through with its content in S3: one fetch for all, readers that outlive the fill, followers of other hosts, and a fresh database over the same bucket. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { get } from "node:http";
import type { IncomingMessage } from "node:http";
import { after, test } from "node:test";
import type { App } from "../../src/app.ts";
import type { MaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { createActivityServices } from "../../workers/activity-services.ts";
import { FakeRegistry } from "../support/fake-registry.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { buildImage } from "../support/image.ts";
import { ask, blobGets, createProxyProject, eventually, serveImage } from "../support/proxy-server.ts";
import { registryBacking, startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";
import { tempDir } from "../support/temp.ts";
import { missingVersitygw, startVersitygw } from "../support/versitygw.ts";

const skip = await missingVersitygw();
const files = scope({ after });

async function startAll() {
  const upstream = await new FakeRegistry().start();
  files.after(() => upstream.stop());
  const network = await new FaultProxy({ port: upstream.port }).start();
  files.after(() => network.stop());
  const s3 = await startVersitygw(files);
  const env = {
    SLIPWAY_STORAGE: "s3",
    SLIPWAY_S3_BUCKET: s3.config.bucket,
    SLIPWAY_S3_ENDPOINT: s3.endpoint,
    SLIPWAY_S3_PATH_STYLE: "true",
    SLIPWAY_S3_ACCESS_KEY_ID: s3.config.accessKeyId ?? "",
    SLIPWAY_S3_SECRET_ACCESS_KEY: s3.config.secretAccessKey ?? "",
  };
  const backing = await registryBacking(files);
  const server = await startRegistry(files, { backing, env });
  const elsewhere = await startRegistry(files, { backing: { ...backing, dataDir: await tempDir(files) }, env });
  await createProxyProject(server.app, { name: "hub", url: network.url });
  return { upstream, network, env, server, elsewhere };
}

const parts = skip ? null : await startAll();

test(
  "a cold image comes once for 20 clients and is served from the bucket afterwards, small and large layers alike",
  { skip },
  async () => {
    assert.ok(parts);
    const { upstream, server } = parts;
    const image = serveImage(upstream, "app", "1", buildImage({ layers: 3, layerBytes: 200_000 }));
    const large = randomBytes(12_000_000);
    const blobs = new Map([...image.blobs, [upstream.putBlob("app", large), large]]);
    const pull = async (state: string): Promise<void> => {
      await ask(`${server.url}/v2/hub/app/manifests/1`);
      await Promise.all(
        [...blobs].map(async ([digest, bytes]) => {
          const got = await ask(`${server.url}/v2/hub/app/blobs/${digest}`);
          assert.ok(got.status === 200 && got.bytes.equals(bytes), `${got.status} ${got.bytes.length}`);
          if (state === "HIT") assert.equal(got.cache, "HIT");
        }),
      );
    };
    await Promise.all(Array.from({ length: 20 }, () => pull("MISS")));
    assert.deepEqual([...blobGets(upstream).values()], [1, 1, 1, 1, 1]);
    await eventually("the fills are over", () => server.app.proxy.fills.active === 0);
    await pull("HIT");
    assert.equal(blobGets(upstream).size, 5);
    for (const [digest, bytes] of blobs) assert.equal((await server.app.store.stat(digest))?.size, bytes.length);
  },
);

test("a reader that is slower than the fill gets the rest, and a range of it is right", { skip }, async () => {
  assert.ok(parts);
  const { upstream, server } = parts;
  const content = randomBytes(24_000_000);
  const digest = upstream.putBlob("app", content);
  const url = `${server.url}/v2/hub/app/blobs/${digest}`;
  const slow = await new Promise<IncomingMessage>((resolve, reject) => get(url, { agent: false }, resolve).once("error", reject));
  const chunks: Buffer[] = [];
  slow.pause();
  await eventually(
    "it is in the bucket and the fill is over",
    async () => (await server.app.store.stat(digest)) !== null && server.app.proxy.fills.active === 0,
  );
  for await (const chunk of slow) chunks.push(chunk as Buffer);
  assert.ok(Buffer.concat(chunks).equals(content));
  const range = await ask(url, { headers: { range: "bytes=9000000-9999999" } });
  assert.deepEqual([range.status, range.cache], [206, "HIT"]);
  assert.ok(range.bytes.equals(content.subarray(9_000_000, 10_000_000)));
  assert.equal(blobGets(upstream).get(digest), 1);
});

test("a process of another host follows the fill and then reads the bucket", { skip }, async () => {
  assert.ok(parts);
  const { upstream, network, server, elsewhere } = parts;
  const content = randomBytes(6_000_000);
  const digest = upstream.putBlob("app", content);
  network.set({ bytesPerSecond: 4_000_000 });
  const owner = ask(`${server.url}/v2/hub/app/blobs/${digest}`);
  await eventually("the fill has begun", () => server.app.proxy.fills.active > 0);
  const followed = await ask(`${elsewhere.url}/v2/hub/app/blobs/${digest}`);
  network.heal();
  assert.ok(followed.bytes.equals(content) && (await owner).bytes.equals(content));
  await eventually("it is stored", async () => (await ask(`${elsewhere.url}/v2/hub/app/blobs/${digest}`)).cache === "HIT");
  assert.equal(blobGets(upstream).get(digest), 1);
});

test("wrong bytes never reach the bucket", { skip }, async () => {
  assert.ok(parts);
  const { upstream, server } = parts;
  const content = randomBytes(1_000_000);
  const digest = upstream.putBlob("app", content);
  upstream.on({ method: "GET", path: new RegExp(digest) }, (_request, response) => {
    response.writeHead(200, { "content-length": content.length }).end(Buffer.alloc(content.length));
  });
  await assert.rejects(ask(`${server.url}/v2/hub/app/blobs/${digest}`));
  assert.equal(await server.app.store.stat(digest), null);
});

/** Writes what is due to be recorded in storage. */
async function relay(app: App): Promise<void> {
  const stop = new AbortController();
  const running = createActivityServices(app, {} as MaintenanceStarters).relay.run(stop.signal, () => undefined);
  await app.proxy.manifests.settled();
  await eventually("the records are written", async () => (await app.database.query("SELECT 1 FROM outbox LIMIT 1")).rowCount === 0);
  stop.abort();
  await running.catch(() => undefined);
}

async function rebuild(app: App): Promise<void> {
  const { rebuilder } = createActivityServices(app, {} as MaintenanceStarters);
  const { signal } = new AbortController();
  for (const phase of ["rebuildProjects", "rebuildContent"] as const) {
    for (let cursor: string | null = null; ;) {
      cursor = (await rebuilder[phase]({ limit: 200, after: cursor }, signal)).next;
      if (cursor === null) break;
    }
  }
}

test(
  "a fresh database over the same bucket transfers nothing again, and serves hits without upstream once its rows are back",
  { skip },
  async (t) => {
    assert.ok(parts);
    const { upstream, network, env, server } = parts;
    const image = serveImage(upstream, "fresh", "1", buildImage({ layers: 3 }));
    await ask(`${server.url}/v2/hub/fresh/manifests/1`);
    for (const digest of image.blobs.keys()) await ask(`${server.url}/v2/hub/fresh/blobs/${digest}`);
    await eventually("the fills are over", () => server.app.proxy.fills.active === 0);
    await relay(server.app);
    upstream.resetCalls();

    const early = await startRegistry(t, { env });
    await createProxyProject(early.app, { name: "hub", url: upstream.url });
    assert.equal((await ask(`${early.url}/v2/hub/fresh/manifests/1`)).digest, image.manifest.digest);
    for (const [digest, bytes] of image.blobs) assert.ok((await ask(`${early.url}/v2/hub/fresh/blobs/${digest}`)).bytes.equals(bytes));
    assert.equal(blobGets(upstream).size, 0, "upstream shows that it has them, and sends none");

    const late = await startRegistry(t, { env });
    await rebuild(late.app);
    network.set({ refuse: true });
    network.dropConnections();
    const manifest = await ask(`${late.url}/v2/hub/fresh/manifests/1`);
    assert.deepEqual([manifest.status, manifest.digest], [200, image.manifest.digest]);
    for (const [digest, bytes] of image.blobs) {
      const got = await ask(`${late.url}/v2/hub/fresh/blobs/${digest}`);
      assert.ok(got.cache === "HIT" && got.bytes.equals(bytes), `${got.status} ${got.cache}`);
    }
    network.heal();
  },
);
