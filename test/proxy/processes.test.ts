/** One fetch for several processes: on one host by the growing file, on others by the owner's internal endpoint, and past the death of an owner. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { FakeRegistry } from "../support/fake-registry.ts";
import { sha256 } from "../support/fake-answers.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { buildImage } from "../support/image.ts";
import { ask, blobGets, createProxyProject, eventually, serveImage } from "../support/proxy-server.ts";
import { registryBacking, startRegistry } from "../support/registry-server.ts";
import type { RegistryServer } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";
import { startSlipway } from "../support/slipway.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";

const files = scope({ after });
const upstream = await new FakeRegistry().start();
files.after(() => upstream.stop());
const network = await new FaultProxy({ port: upstream.port }).start();
files.after(() => network.stop());
const backing = await registryBacking(files);
const storage = { SLIPWAY_STORAGE_PATH: join(backing.dataDir, "content") };
const first = await startRegistry(files, { backing, env: storage });
const second = await startRegistry(files, { backing, env: storage });
/** Its staging folder is its own, as on another host; the storage is shared. */
const elsewhere = await startRegistry(files, { backing: { ...backing, dataDir: await tempDir(files) }, env: storage });
await createProxyProject(first.app, { name: "hub", url: network.url });

const blobUrl = ({ url }: { url: string }, digest: string): string => `${url}/v2/hub/app/blobs/${digest}`;

async function idle(...servers: RegistryServer[]): Promise<void> {
  await eventually("all fills are over", () => servers.every(({ app }) => app.proxy.fills.active === 0));
}

test("20 clients over two processes of one host take each blob once", async () => {
  upstream.resetCalls();
  const image = serveImage(upstream, "app", "many", buildImage({ layers: 4, layerBytes: 300_000 }));
  const pull = async ({ url }: { url: string }): Promise<void> => {
    assert.deepEqual((await ask(`${url}/v2/hub/app/manifests/many`)).bytes, image.manifestBytes);
    await Promise.all(
      [...image.blobs].map(async ([digest, bytes]) => {
        const got = await ask(blobUrl({ url }, digest));
        assert.ok(got.status === 200 && got.bytes.equals(bytes), `${got.status} ${got.bytes.length}`);
      }),
    );
  };
  await Promise.all(Array.from({ length: 20 }, (_, index) => pull(index % 2 === 0 ? first : second)));
  assert.deepEqual([...blobGets(upstream).values()], [1, 1, 1, 1, 1]);
  assert.equal(upstream.count("blob-head"), 0, "the owner's fetch is the proof for its own repository");
  assert.ok(upstream.count("manifest-get") <= 2);
  await idle(first, second);
});

test("a process of the same host hands on what another one fetches, while it arrives", async () => {
  const content = randomBytes(8_000_000);
  const digest = upstream.putBlob("app", content);
  network.set({ bytesPerSecond: 4_000_000 });
  const followed = second.app.proxy.fills.stats.followed;
  const owner = ask(blobUrl(first, digest));
  await eventually("the fill has begun", () => first.app.proxy.fills.active > 0);
  const response = await fetch(blobUrl(second, digest));
  let got = 0;
  for await (const chunk of response.body ?? []) {
    if (got === 0) assert.equal(first.app.proxy.fills.active, 1, "its first bytes come before the owner has all");
    assert.ok(content.subarray(got, got + chunk.length).equals(chunk));
    got += chunk.length;
  }
  network.heal();
  assert.equal(got, content.length);
  assert.ok((await owner).bytes.equals(content));
  assert.equal(second.app.proxy.fills.stats.followed, followed + 1);
  assert.equal(blobGets(upstream).get(digest), 1);
  await idle(first);
});

test("a process of another host streams from the owner, with one connection for all its clients", async () => {
  const content = randomBytes(6_000_000);
  const digest = upstream.putBlob("app", content);
  network.set({ bytesPerSecond: 4_000_000 });
  const owner = ask(blobUrl(first, digest));
  await eventually("the fill has begun", () => first.app.proxy.fills.active > 0);
  const followers = await Promise.all(Array.from({ length: 5 }, () => ask(blobUrl(elsewhere, digest))));
  network.heal();
  for (const { status, bytes } of [...followers, await owner]) assert.ok(status === 200 && bytes.equals(content));
  assert.equal(elsewhere.app.proxy.fills.stats.followed, 1);
  assert.equal(blobGets(upstream).get(digest), 1);
  await eventually("it is stored with a link of its own repository", async () => (await ask(blobUrl(elsewhere, digest))).cache === "HIT");
  await idle(first);
});

test("the internal endpoint gives nothing to whoever cannot sign", async () => {
  const content = randomBytes(2_000_000);
  const digest = upstream.putBlob("app", content);
  network.set({ bytesPerSecond: 1_000_000 });
  const owner = ask(blobUrl(first, digest));
  await eventually("the fill has begun", () => first.app.proxy.fills.active > 0);
  const path = `/internal/fills/${digest}`;
  const forged = [undefined, "", `${Date.now()}.${"0".repeat(64)}`, "x.y"];
  for (const signature of forged) {
    const answer = await ask(`${first.url}${path}`, { headers: signature === undefined ? {} : { "x-slipway-signature": signature } });
    assert.equal(answer.status, 404);
  }
  network.heal();
  assert.ok((await owner).bytes.equals(content));
  await idle(first);
});

test("what upstream refuses, both processes refuse, and neither waits for the other", async () => {
  const answers = await Promise.all([first, second, elsewhere].map((server) => ask(blobUrl(server, sha256("no such blob")))));
  assert.deepEqual(
    answers.map(({ status }) => status),
    [404, 404, 404],
  );
});

async function startOwner(dataDir: string): Promise<RunningSlipway> {
  return startSlipway(files, {
    args: ["--role", "proxy"],
    dataDir,
    env: {
      ...storage,
      SLIPWAY_DATABASE_URL: backing.databaseUrl,
      SLIPWAY_ENCRYPTION_KEY: "17".repeat(32),
      SLIPWAY_REGISTRY_AUTH: "open",
    },
  });
}

test("when the owner is killed, the clients of other hosts get the rest from whoever takes over", async () => {
  const content = randomBytes(12_000_000);
  const digest = upstream.putBlob("app", content);
  const owner = await startOwner(await tempDir(files));
  network.set({ bytesPerSecond: 3_000_000 });
  const ownClient = ask(blobUrl(owner, digest)).catch(() => null);
  await eventually("the owner fetches", () => blobGets(upstream).get(digest) === 1);
  const followers = [first, elsewhere].map((server) => ask(blobUrl(server, digest)));
  await eventually("both follow", async () => first.app.proxy.fills.stats.followed > 0 && elsewhere.app.proxy.fills.stats.followed > 1);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const killedAt = performance.now();
  await owner.stop("SIGKILL");
  await ownClient;
  network.heal();
  for (const { status, bytes } of await Promise.all(followers)) {
    assert.equal(status, 200);
    assert.ok(bytes.equals(content), `${bytes.length} bytes`);
  }
  const ms = performance.now() - killedAt;
  assert.ok(ms < 15_000, `the transfers went on after ${ms} ms`);
  const ranges = upstream.calls.filter(({ url }) => url.endsWith(digest)).map(({ headers }) => headers.range ?? "whole");
  assert.equal(ranges.length, 2);
  assert.match(ranges[1] ?? "", /^bytes=[1-9]\d{5,}-/, "what had arrived at the successor is not fetched again");
  await idle(first, elsewhere);
});

test("a killed process resumes after its restart: staged bytes are not fetched again and every byte is right", async () => {
  const content = randomBytes(12_000_000);
  const digest = upstream.putBlob("app", content);
  const dataDir = await tempDir(files);
  const killed = await startOwner(dataDir);
  network.set({ bytesPerSecond: 4_000_000 });
  const cut = ask(blobUrl(killed, digest)).catch(() => null);
  await eventually("a part is staged", async () => (await stagedBytes(dataDir, digest)) > 3_000_000);
  await killed.stop("SIGKILL");
  assert.equal(await cut, null);
  network.heal();
  const staged = await stagedBytes(dataDir, digest);
  upstream.resetCalls();
  const restarted = await startOwner(dataDir);
  const got = await ask(blobUrl(restarted, digest));
  assert.ok(got.bytes.equals(content));
  const [range] = upstream.calls.filter(({ kind }) => kind === "blob-get").map(({ headers }) => headers.range ?? "");
  const from = Number(/^bytes=(\d+)-/.exec(range ?? "")?.[1] ?? 0);
  assert.ok(from > 2_000_000 && from <= staged, `resumed at ${from} of ${staged}`);
  assert.equal(blobGets(upstream).get(digest), 1);
});

async function stagedBytes(dataDir: string, digest: string): Promise<number> {
  const { readdir } = await import("node:fs/promises");
  const folder = join(dataDir, "staging");
  const names = await readdir(folder).catch(() => []);
  const part = names.find((name) => name.startsWith(digest.replace(":", "-")) && name.endsWith(".part"));
  return part ? (await stat(join(folder, part))).size : 0;
}
