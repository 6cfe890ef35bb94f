/** Removing cached content by hand, through a real server over a fake upstream. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY_REGISTRY } from "../../../src/proxy/registry-store.ts";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import { loadOpenApi } from "../../support/openapi.ts";
import { ADMIN, basic, startRegistry } from "../../support/registry-server.ts";
import { scope } from "../../support/scope.ts";
import { until } from "../../upstream/support.ts";

const document = await loadOpenApi();

test("cached content is purged by digest, by selection and as a whole; pinned content stays; only administrators may", async (t) => {
  const end = scope(t);
  const upstream = await startFakeRegistry(end);
  for (const name of ["team/one", "team/two"]) upstream.putImage(name, "v1");
  const server = await startRegistry(end, { auth: "anonymous-pull", roles: ["proxy", "api"] });
  const { app } = server;
  const registry = await app.proxy.registries.save({ ...EMPTY_REGISTRY, name: "up", url: upstream.url });
  await app.catalog.projects.create({ name: "hub", public: true, ownerId: null, registryId: registry.id });

  const pull = async (name: string): Promise<string> => {
    const answer = await fetch(`${server.url}/v2/hub/${name}/manifests/v1`);
    assert.equal(answer.status, 200);
    const manifest = (await answer.json()) as { layers: { digest: string }[] };
    for (const layer of manifest.layers) await (await fetch(`${server.url}/v2/hub/${name}/blobs/${layer.digest}`)).arrayBuffer();
    await app.proxy.manifests.settled();
    await until(() => app.proxy.fills.active === 0, "all fills are done");
    return answer.headers.get("docker-content-digest") ?? "";
  };
  const ask = async (method: string, path: string, body?: object, authorization = ADMIN): Promise<{ status: number; json: unknown }> => {
    const answer = await fetch(`${server.url}/api/v1${path}`, {
      method,
      headers: { authorization, ...(body ? { "content-type": "application/json" } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    const json: unknown = answer.status === 204 ? undefined : await answer.json();
    const operation = document.operationOf(method, `/api/v1${path}`);
    assert.ok(operation, path);
    if (json !== undefined) assert.deepEqual(document.checkResponse(operation, answer.status, json), [], path);
    return { status: answer.status, json };
  };

  const one = await pull("team/one");
  const two = await pull("team/two");
  await app.proxy.usage.flush();
  assert.deepEqual((await ask("POST", "/cache/purge", { repository: "hub/team/one", dry_run: true })).json, {
    manifests: 1,
    bytes: ((await ask("POST", "/cache/purge", { digest: one, dry_run: true })).json as { bytes: number }).bytes,
    dry_run: true,
  });
  assert.equal((await ask("POST", "/cache/purge", {})).status, 400);
  assert.equal((await ask("DELETE", "/cache", undefined, basic("nobody", "wrong"))).status, 401);

  upstream.resetCalls();
  assert.equal((await ask("DELETE", `/cache/entries/${one}`)).status, 204);
  assert.equal((await ask("DELETE", `/cache/entries/sha256:${"0".repeat(64)}`)).status, 404);
  assert.equal((await ask("DELETE", "/cache/entries/latest")).status, 400);
  await pull("team/one");
  assert.ok(upstream.count("manifest-get") > 0, "what was purged is fetched again");

  assert.deepEqual((await ask("PUT", `/cache/entries/${two}/pin`, { pinned: true })).json, { pinned: true });
  assert.deepEqual((await ask("DELETE", "/cache")).json, { cleared: 1 });
  assert.equal((await fetch(`${server.url}/v2/hub/team/two/manifests/${two}`)).headers.get("x-cache"), "HIT");
  assert.equal((await ask("POST", "/cache/cleanup")).status, 200);
});
