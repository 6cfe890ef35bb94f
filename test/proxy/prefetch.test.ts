/** What begins to arrive before anybody asks for it. */
import assert from "node:assert/strict";
import { mkdir, readdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { removeLeftovers } from "../../src/proxy/fill/staging-leftovers.ts";
import { OCI_INDEX, startFakeRegistry } from "../support/fake-registry.ts";
import { buildImage, buildIndex } from "../support/image.ts";
import { ask, blobGets, createProxyProject, eventually, serveImage } from "../support/proxy-server.ts";
import { startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";
import { tempDir } from "../support/temp.ts";

const files = scope({ after });
const server = await startRegistry(files);
const { fills } = server.app.proxy;

test("a manifest that is served brings its config and layers along, once", async (t) => {
  const upstream = await startFakeRegistry(t);
  await createProxyProject(server.app, { name: "eager", url: upstream.url });
  await createProxyProject(server.app, { name: "lazy", url: upstream.url, metadata: { proxy_prefetch: "false" } });
  const image = serveImage(upstream, "app", "1", buildImage({ layers: 4 }));
  await ask(`${server.url}/v2/lazy/app/manifests/1`);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(blobGets(upstream).size, 0);
  await ask(`${server.url}/v2/eager/app/manifests/1`);
  await eventually("all blobs are here", async () => {
    const stored = await Promise.all([...image.blobs.keys()].map((digest) => server.app.store.stat(digest)));
    return stored.every((stat) => stat !== null) && fills.active === 0;
  });
  assert.deepEqual([...blobGets(upstream).values()], [1, 1, 1, 1, 1]);
  const calls = upstream.calls.length;
  for (const digest of image.blobs.keys()) assert.equal((await ask(`${server.url}/v2/eager/app/blobs/${digest}`)).cache, "HIT");
  assert.equal(upstream.calls.length, calls);
});

test("an index brings the platform along that this project's clients took before, and no other", async (t) => {
  const upstream = await startFakeRegistry(t);
  await createProxyProject(server.app, { name: "platforms", url: upstream.url });
  const serveIndex = (tag: string): ReturnType<typeof buildIndex> => {
    const built = buildIndex([buildImage({ architecture: "amd64" }), buildImage({ architecture: "arm64" })]);
    for (const image of built.images) serveImage(upstream, "app", `child-${image.manifest.digest.slice(7, 20)}`, image);
    upstream.putManifest("app", built.indexBytes, { tag, mediaType: OCI_INDEX });
    return built;
  };
  const url = (reference: string): string => `${server.url}/v2/platforms/app/manifests/${reference}`;
  const first = serveIndex("1");
  await ask(url("1"));
  assert.equal(blobGets(upstream).size, 0, "nobody asked for a platform yet");
  await ask(url(first.images[1]!.manifest.digest));
  await eventually("the platform is learnt", async () => {
    const { rows } = await server.app.database.query<{ platform: string }>("SELECT platform FROM proxy_platforms");
    return rows.some(({ platform }) => platform === "linux/arm64");
  });
  const second = serveIndex("2");
  await ask(url("2"));
  const [amd, arm] = second.images;
  await eventually("its blobs are asked for", () => [...arm!.blobs.keys()].every((digest) => blobGets(upstream).get(digest) === 1));
  await eventually("the fills are over", () => fills.active === 0);
  assert.ok([...amd!.blobs.keys()].every((digest) => !blobGets(upstream).has(digest)));
  const calls = upstream.calls.length;
  assert.equal((await ask(url(arm!.manifest.digest))).cache, "HIT");
  assert.equal(upstream.calls.length, calls);
});

test("leftovers of the staging folder go when they are old, unless somebody fetches them", async (t) => {
  const folder = await tempDir(t);
  const [old, young, running] = ["a", "b", "c"].map((letter) => letter.repeat(64));
  const longAgo = new Date(Date.now() - 48 * 3_600_000);
  for (const hex of [old, young, running]) {
    for (const suffix of ["json", `${"0".repeat(16)}.part`]) await writeFile(join(folder, `sha256-${hex}.${suffix}`), "x");
  }
  for (const hex of [old, running]) {
    for (const suffix of ["json", `${"0".repeat(16)}.part`]) await utimes(join(folder, `sha256-${hex}.${suffix}`), longAgo, longAgo);
  }
  await writeFile(join(folder, "identity"), "x");
  await mkdir(join(folder, "remote-999999999"));
  await mkdir(join(folder, `remote-${process.pid}`));
  assert.equal(await removeLeftovers(folder, (digest) => Promise.resolve(digest === `sha256:${running}`)), 3);
  const left = (await readdir(folder)).toSorted();
  assert.equal(left.length, 6);
  assert.ok(left.every((name) => !name.includes(old!)) && left.includes("identity") && left.includes(`remote-${process.pid}`));
});
