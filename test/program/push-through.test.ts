/** kill -9 in the middle of a push that passes through: the client was told nothing, nothing is claimed, and the next push sends only what upstream lacks. */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { buildImage } from "../support/image.ts";
import { OciClient } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { until } from "./support.ts";

test("a push that was cut off by a kill is whole upstream and here after it was made again", async (t) => {
  const s = scope(t);
  const upstream = await startFakeRegistry(s);
  const dataDir = await tempDir(s, "slipway-push-through-");
  const config = join(dataDir, "slipway.toml");
  await writeFile(
    config,
    `[[upstreams]]\nname = "hub"\nurl = "${upstream.url}"\ntype = "docker-registry"\npublic = true\npush_through = true\n`,
  );
  const env = { ...(await sharedServices(s)), SLIPWAY_CONFIG: config, SLIPWAY_REGISTRY_AUTH: "open" };
  const image = buildImage({ layers: 3, layerBytes: 200_000 });
  const first = await startSlipway(s, { dataDir, env, args: ["--role", "proxy"] });
  const pushBlobs = async (client: OciClient): Promise<void> => {
    for (const [digest, bytes] of image.blobs) await client.pushBlob("hub/app", { digest, bytes });
  };
  await pushBlobs(new OciClient(first.url));

  // Upstream is silent about one of the blobs.
  const silent = image.layers[1]?.digest ?? "";
  let isHeld = false;
  upstream.on({ method: "PUT", path: new RegExp(`uploads.*${silent.slice(-20)}`), times: 1 }, () => {
    isHeld = true;
  });
  const pushing = new OciClient(first.url).putManifest("hub/app", "1", image.manifestBytes).then(
    ({ status }) => status,
    () => "broken",
  );
  await until("upstream has the others", () => (isHeld && upstream.repository("app").blobs.size === image.blobs.size - 1) || undefined);
  await first.stop("SIGKILL");
  assert.equal(await pushing, "broken", "nothing was told");
  assert.equal(upstream.repository("app").manifests.size, 0);

  upstream.resetCalls();
  const second = await startSlipway(s, { dataDir, env, args: ["--role", "proxy"] });
  const client = new OciClient(second.url);
  assert.equal((await client.request("/v2/hub/app/manifests/1")).status, 404, "nothing was claimed");
  await pushBlobs(client);
  const created = await client.putManifest("hub/app", "1", image.manifestBytes);
  assert.equal(created.status, 201, await created.clone().text());
  const there = upstream.repository("app");
  assert.equal(there.tags.get("1"), image.manifest.digest);
  for (const [digest, bytes] of image.blobs) assert.ok(there.blobs.get(digest)?.equals(bytes));
  assert.equal(upstream.calls.filter(({ method, url }) => method === "PUT" && url.includes("/uploads/")).length, 1, "only what it lacked");
  const pulled = await client.request("/v2/hub/app/manifests/1");
  assert.equal(pulled.headers.get("docker-content-digest"), image.manifest.digest);
});
