/** Cold blobs through one process: how often upstream is asked, what clients get while it sends, and what they never get. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { request } from "node:http";
import type { IncomingMessage } from "node:http";
import { after, test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import type { FakeRegistry } from "../support/fake-registry.ts";
import { sha256 } from "../support/fake-answers.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { buildImage } from "../support/image.ts";
import type { RegistryDraft } from "../../src/proxy/registry-store.ts";
import { ask, blobGets, createProxyProject, eventually, serveImage } from "../support/proxy-server.ts";
import { scope } from "../support/scope.ts";
import { startRegistry } from "../support/registry-server.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

interface World {
  readonly upstream: FakeRegistry;
  url(path: string): string;
}

const files = scope({ after });
const server = await startRegistry(files);
const { fills } = server.app.proxy;
let projects = 0;

/** An upstream of the test's own behind the server of all. */
async function start(
  t: Cleanable,
  options: { metadata?: Record<string, string>; upstream?: FakeRegistry; at?: string; registry?: Partial<RegistryDraft> } = {},
): Promise<World> {
  const upstream = options.upstream ?? (await startFakeRegistry(t));
  const name = `hub${(projects += 1)}`;
  const { metadata, registry } = options;
  await createProxyProject(server.app, {
    name,
    url: options.at ?? upstream.url,
    ...(metadata && { metadata }),
    ...(registry && { registry }),
  });
  Object.assign(fills.stats, { mismatches: 0, aheadRequests: 0, aheadBytes: 0, upstreamBytes: 0 });
  return { upstream, url: (path) => `${server.url}/v2/${name}/app/${path}` };
}

/** The answer's head, with a body that waits to be read. */
function open(url: string, headers: Record<string, string> = {}): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request(url, { headers, agent: false }, resolve).once("error", reject).end();
  });
}

async function readAll(answer: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test("a cold image of nine blobs costs ten requests, and none of them again", async (t) => {
  const { upstream, url } = await start(t);
  const image = serveImage(upstream, "app", "1", buildImage({ layers: 8, layerBytes: 300_000 }));
  const manifest = await ask(url("manifests/1"));
  assert.equal(manifest.status, 200);
  assert.equal(manifest.cache, "MISS");
  assert.deepEqual(manifest.bytes, image.manifestBytes);
  const answers = await Promise.all([...image.blobs].map(async ([digest, bytes]) => ({ bytes, got: await ask(url(`blobs/${digest}`)) })));
  for (const { bytes, got } of answers) {
    assert.equal(got.status, 200);
    assert.deepEqual(got.bytes, bytes);
  }
  assert.equal(upstream.calls.length, 10, JSON.stringify(upstream.calls.map(({ method, url: path }) => `${method} ${path}`)));
  await eventually("everything is stored", async () =>
    (await Promise.all([...image.blobs.keys()].map((digest) => ask(url(`blobs/${digest}`))))).every(({ cache }) => cache === "HIT"),
  );
  assert.equal((await ask(url("manifests/1"))).cache, "HIT");
  assert.equal(upstream.calls.length, 10);
});

test("with tokens it costs at most fourteen", async (t) => {
  const upstream = await startFakeRegistry(t, { auth: { type: "bearer", username: "me", password: "secret" } });
  const { url } = await start(t, { upstream, registry: { credentialType: "basic", accessKey: "me", accessSecret: "secret" } });
  const image = serveImage(upstream, "app", "1", buildImage({ layers: 8, layerBytes: 30_000 }));
  assert.equal((await ask(url("manifests/1"))).status, 200);
  const answers = await Promise.all([...image.blobs.keys()].map((digest) => ask(url(`blobs/${digest}`))));
  assert.ok(answers.every(({ status }) => status === 200));
  assert.ok(upstream.calls.length <= 14, `${upstream.calls.length} requests`);
});

for (const clients of [20, 200]) {
  test(`${clients} clients of a cold image take each blob once from upstream`, async (t) => {
    const { upstream, url } = await start(t);
    const image = serveImage(upstream, "app", "1", buildImage({ layers: 3, layerBytes: 200_000 }));
    const pull = async (): Promise<void> => {
      assert.deepEqual((await ask(url("manifests/1"))).bytes, image.manifestBytes);
      const blobs = await Promise.all([...image.blobs].map(async ([digest, bytes]) => ({ bytes, got: await ask(url(`blobs/${digest}`)) })));
      for (const { bytes, got } of blobs) assert.ok(got.status === 200 && got.bytes.equals(bytes), `${got.status} ${got.bytes.length}`);
    };
    await Promise.all(Array.from({ length: clients }, pull));
    assert.equal(upstream.count("manifest-get"), 1);
    assert.deepEqual([...blobGets(upstream).values()], [1, 1, 1, 1]);
    assert.equal(upstream.calls.length, 5);
  });
}

test("the first bytes reach the client before upstream has sent the last", async (t) => {
  const { upstream, url } = await start(t);
  const content = randomBytes(2_000_000);
  const digest = upstream.putBlob("app", content);
  let release: () => void = () => undefined;
  upstream.on({ method: "GET", path: /\/blobs\// }, (_request, response) => {
    response.writeHead(200, { "content-length": content.length });
    response.write(content.subarray(0, 1_000_000));
    release = () => response.end(content.subarray(1_000_000));
  });
  const answer = await open(url(`blobs/${digest}`));
  assert.equal(answer.headers["x-cache"], "MISS");
  let got = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    assert.ok(chunk.equals(content.subarray(got, got + chunk.length)));
    got += chunk.length;
    if (got === 1_000_000) release();
    if (got < 1_000_000) assert.equal(answer.readableEnded, false);
  }
  assert.equal(got, content.length);
  assert.deepEqual([...blobGets(upstream).values()], [1]);
});

test("a client that takes nothing slows nobody, and one that leaves stops nothing", async (t) => {
  const { upstream, url } = await start(t);
  const content = randomBytes(24_000_000);
  const digest = upstream.putBlob("app", content);
  const stuck = await open(url(`blobs/${digest}`));
  stuck.pause();
  const leaver = await open(url(`blobs/${digest}`));
  leaver.once("data", () => leaver.destroy());
  leaver.on("error", () => undefined);
  const whole = await ask(url(`blobs/${digest}`));
  assert.ok(whole.bytes.equals(content));
  await eventually("the fill is over", () => fills.active === 0);
  assert.ok((await readAll(stuck)).equals(content));
  assert.deepEqual([...blobGets(upstream).values()], [1]);

  const alone = randomBytes(3_000_000);
  const aloneDigest = upstream.putBlob("app", alone);
  const gone = await open(url(`blobs/${aloneDigest}`));
  gone.on("error", () => undefined);
  gone.destroy();
  await eventually("the fill that nobody reads is stored", async () => (await ask(url(`blobs/${aloneDigest}`))).cache === "HIT");
  assert.equal(blobGets(upstream).get(aloneDigest), 1);
});

test("ranges of a cold blob are 206 at once, from the part that is here or by a range of their own", async (t) => {
  const { upstream, url } = await start(t);
  const content = randomBytes(8_000_000);
  const digest = upstream.putBlob("app", content);
  let release: () => void = () => undefined;
  upstream.on({ method: "GET", path: /\/blobs\//, times: 1 }, (_request, response) => {
    response.writeHead(200, { "content-length": content.length });
    response.write(content.subarray(0, 2_000_000));
    release = () => response.end(content.subarray(2_000_000));
  });
  const ranged = (range: string): ReturnType<typeof ask> => ask(url(`blobs/${digest}`), { headers: { range } });
  const near = await ranged("bytes=1000-1999");
  assert.equal(near.status, 206);
  assert.equal(near.headers.get("content-range"), `bytes 1000-1999/${content.length}`);
  assert.ok(near.bytes.equals(content.subarray(1000, 2000)));
  const far = await ranged("bytes=7000000-7000999");
  assert.equal(far.status, 206);
  assert.ok(far.bytes.equals(content.subarray(7_000_000, 7_001_000)));
  assert.equal(fills.stats.aheadRequests, 1);
  assert.equal(fills.stats.aheadBytes, 1000);
  const suffix = await ranged("bytes=-10");
  assert.ok(suffix.bytes.equals(content.subarray(-10)));
  assert.equal((await ranged("bytes=9000000-")).status, 416);
  release();
  assert.ok((await ask(url(`blobs/${digest}`))).bytes.equals(content));
  assert.equal(fills.stats.upstreamBytes, content.length, "the fill itself took each byte once");
});

test("a cold HEAD is answered from the manifest's descriptor, without it by asking, and never by fetching", async (t) => {
  const { upstream, url } = await start(t, { metadata: { proxy_prefetch: "false" } });
  const image = serveImage(upstream, "app", "1");
  const other = upstream.putBlob("app", randomBytes(777));
  await ask(url("manifests/1"));
  upstream.resetCalls();
  const layer = image.layers[0]!;
  const head = await ask(url(`blobs/${layer.digest}`), { method: "HEAD" });
  assert.equal(head.status, 200);
  assert.equal(head.headers.get("content-length"), String(layer.size));
  assert.equal(head.digest, layer.digest);
  assert.equal(upstream.calls.length, 0);
  assert.equal((await ask(url(`blobs/${other}`), { method: "HEAD" })).headers.get("content-length"), "777");
  assert.equal((await ask(url(`blobs/${sha256("none")}`), { method: "HEAD" })).status, 404);
  assert.equal(upstream.count("blob-get"), 0);
});

test("a body that is cut goes on where it was cut", async (t) => {
  const upstream = await startFakeRegistry(t);
  const faults = await startFaultProxy(t, { port: upstream.port });
  const { url } = await start(t, { upstream, at: faults.url });
  const content = randomBytes(6_000_000);
  const digest = upstream.putBlob("app", content);
  faults.set({ cutAfterBytes: 2_000_000, cuts: 2 });
  const got = await ask(url(`blobs/${digest}`));
  assert.ok(got.bytes.equals(content));
  const ranges = upstream.calls.filter(({ kind }) => kind === "blob-get").map(({ headers }) => headers.range);
  assert.equal(ranges.length, 3);
  assert.equal(ranges[0], undefined);
  assert.match(ranges[1] ?? "", /^bytes=[1-9]\d+-/);
});

test("wrong bytes break the connections, are tried once more, counted, and never served", async (t) => {
  const { upstream, url } = await start(t);
  const content = randomBytes(1_000_000);
  const digest = upstream.putBlob("app", content);
  const wrong = Buffer.from(content);
  wrong[10] = (wrong[10] as number) ^ 255;
  upstream.repository("app").blobs.set(digest, wrong);
  const results = await Promise.allSettled(Array.from({ length: 3 }, () => ask(url(`blobs/${digest}`))));
  // Who comes when it has just failed hears of it in an error.
  const complete = results.filter((result) => result.status === "fulfilled" && result.value.status < 500);
  assert.deepEqual(complete, [], "no client got a complete answer");
  assert.equal(blobGets(upstream).get(digest), 2);
  assert.equal(fills.stats.mismatches, 2);
  assert.equal(await server.app.store.stat(digest), null);
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  assert.match(metrics, /^slipway_proxy\w*mismatch\w* 2$/m);
  upstream.repository("app").blobs.set(digest, content);
  await eventually("the wrong fill is over", () => fills.active === 0);
  assert.ok((await ask(url(`blobs/${digest}`))).bytes.equals(content));
});

test("a second address of the upstream heals what the first sent wrongly", async (t) => {
  const [bad, good] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const { url } = await start(t, { upstream: bad, registry: { mirrors: [good.url] } });
  const content = randomBytes(50_000);
  const digest = good.putBlob("app", content);
  bad.repository("app").blobs.set(digest, Buffer.alloc(content.length));
  assert.ok((await ask(url(`blobs/${digest}`))).bytes.equals(content));
  assert.equal(good.count("blob-get"), 1);
});

test("large blobs come in parts side by side where upstream gives parts, and once as a whole where not", async (t) => {
  for (const ranges of [true, false]) {
    const content = randomBytes(70_000_000);
    const { upstream, url } = await start(t);
    upstream.ranges = ranges;
    upstream.putImage("app", `parts-${ranges}`, [content]);
    const digest = sha256(content);
    await ask(url(`manifests/parts-${ranges}`));
    const got = await ask(url(`blobs/${digest}`));
    assert.ok(got.bytes.equals(content));
    assert.equal(blobGets(upstream).get(digest), ranges ? 5 : 1);
    await eventually("all fills are over", () => fills.active === 0);
    const config = [...upstream.repository("app").blobs.values()].reduce((sum, bytes) => sum + bytes.length, 0) - content.length;
    assert.equal(fills.stats.upstreamBytes, content.length + config);
  }
});

test("trouble before the first byte is an error answer with Retry-After, not a broken one", async (t) => {
  const { upstream, url } = await start(t, { metadata: { proxy_prefetch: "false" } });
  const image = serveImage(upstream, "app", "1");
  await ask(url("manifests/1"));
  const layer = image.layers[0]!.digest;
  upstream.on({ method: "GET", path: /\/blobs\// }, (_request, response) => {
    response.writeHead(429, { "retry-after": "30" }).end();
  });
  const limited = await ask(url(`blobs/${layer}`));
  assert.equal(limited.status, 429);
  assert.ok(Number(limited.retryAfter) > 20);
});

test("an empty blob and one of sha512 are served like others", async (t) => {
  const { upstream, url } = await start(t);
  const empty = upstream.putBlob("app", Buffer.alloc(0));
  const got = await ask(url(`blobs/${empty}`));
  assert.deepEqual([got.status, got.bytes.length], [200, 0]);
  const content = randomBytes(200_000);
  const { createHash } = await import("node:crypto");
  const digest = `sha512:${createHash("sha512").update(content).digest("hex")}`;
  upstream.repository("app").blobs.set(digest, content);
  assert.ok((await ask(url(`blobs/${digest}`))).bytes.equals(content));
});
