import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OciClient, bytesOf, codeOf, randomContent } from "../../support/oci-client.ts";
import { FaultProxy } from "../../support/fault-proxy.ts";
import { registryBacking, startRegistry } from "../../support/registry-server.ts";

const backing = await registryBacking({ after });
const address = new URL(backing.databaseUrl);
const proxy = new FaultProxy({ port: Number(address.port) });
await proxy.start();
after(() => proxy.stop());
address.host = `127.0.0.1:${proxy.port}`;
const registry = await startRegistry({ after }, { backing: { ...backing, databaseUrl: address.href } });
const client = new OciClient(registry.url);
const NAME = "outage/app";

test("while the database is away what is known is served, the rest is 503 with Retry-After, and it recovers by itself", async () => {
  const manifest = await client.pushImage(NAME, "v1");
  const blob = randomContent(1_000);
  await client.pushBlob(NAME, blob);
  const known = [`/v2/${NAME}/manifests/v1`, `/v2/${NAME}/manifests/${manifest.digest}`, `/v2/${NAME}/blobs/${blob.digest}`];
  for (const path of known) assert.equal((await client.request(path)).status, 200);

  proxy.faults.refuse = true;
  proxy.dropConnections();
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  for (const path of known) assert.equal((await client.request(path)).status, 200, path);
  const refused = await client.start(NAME);
  assert.equal(refused.status, 503);
  assert.match(refused.headers.get("retry-after") ?? "", /^\d+$/);
  assert.equal(await codeOf(refused), "TOOMANYREQUESTS");
  assert.equal((await client.request(`/v2/${NAME}/manifests/unknown`)).status, 503);
  assert.equal((await client.request(`/v2/${NAME}/tags/list`)).status, 503);

  proxy.faults.refuse = false;
  const deadline = Date.now() + 15_000;
  let status = 0;
  while (status !== 202 && Date.now() < deadline) {
    status = (await client.start(NAME)).status;
    if (status !== 202) await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.equal(status, 202);
  await client.pushImage(NAME, "v2");
  assert.deepEqual(await bytesOf(await client.request(`/v2/${NAME}/blobs/${blob.digest}`)), blob.bytes);
});
