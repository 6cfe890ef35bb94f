/** Plain names with a mirror, as dockerd's registry-mirrors send them, and namespaces that name ourselves. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { OciClient } from "../support/oci-client.ts";
import { ask, createProxyProject } from "../support/proxy-server.ts";
import { startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";

test("names that no local project has go to the mirror, also beside local repositories, and pushes never do", async (context) => {
  const t = scope(context);
  const upstream = await startFakeRegistry(t);
  const server = await startRegistry(t, { env: { SLIPWAY_MIRROR: "docker.io" } });
  const hub = await server.app.proxy.registries.findByName("docker.io");
  assert.ok(hub, "the mirror's upstream is there from the start");
  await server.app.proxy.registries.update(hub.id, { ...hub, url: upstream.url }, hub.version);
  const alpine = upstream.putImage("library/alpine", "3");
  const tool = upstream.putImage("team/tool", "1");
  const digest = async (path: string): Promise<string | number> => {
    const answer = await ask(`${server.url}/v2/${path}`);
    return answer.digest ?? answer.status;
  };
  const client = new OciClient(server.url);
  const own = await client.pushImage("library/own", "1");
  const shadow = await client.pushImage("team/local", "1");
  for (let round = 0; round < 2; round += 1) {
    assert.equal(await digest("library/alpine/manifests/3"), alpine);
    assert.equal(await digest("alpine/manifests/3"), alpine);
    assert.equal(await digest("team/tool/manifests/1"), tool);
    assert.equal(await digest("library/own/manifests/1"), own.digest);
    assert.equal(await digest("team/local/manifests/1"), shadow.digest);
  }
  const later = await client.pushImage("library/alpine", "mine");
  assert.equal(await digest("library/alpine/manifests/mine"), later.digest, "what is pushed here is ours from then on");
});

test("a namespace that is our own name is none", async (context) => {
  const t = scope(context);
  const upstream = await startFakeRegistry(t);
  const server = await startRegistry(t, { env: { SLIPWAY_EXTERNAL_URL: "https://registry.example" } });
  await createProxyProject(server.app, { name: "hub", url: upstream.url });
  const digest = upstream.putImage("app", "1");
  for (const own of ["registry.example", server.host]) {
    const answer = await ask(`${server.url}/v2/hub/app/manifests/1?ns=${own}`);
    assert.deepEqual([answer.digest, answer.headers.get("oci-namespace")], [digest, null]);
  }
  assert.equal((await ask(`${server.url}/v2/hub/app/manifests/1?ns=other.example`)).status, 404);
});
