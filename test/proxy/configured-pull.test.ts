import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { FakeRegistry } from "../support/fake-registry.ts";
import { ADMIN, startRegistry } from "../support/registry-server.ts";
import type { RegistryServer } from "../support/registry-server.ts";
import { tempDir } from "../support/temp.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

async function startUpstream(t: Cleanable): Promise<FakeRegistry> {
  const upstream = await new FakeRegistry().start();
  t.after(() => upstream.stop());
  return upstream;
}

async function startWith(t: Parameters<typeof tempDir>[0], toml: string, env: Record<string, string> = {}): Promise<RegistryServer> {
  const file = join(await tempDir(t), "slipway.toml");
  await writeFile(file, toml);
  return startRegistry(t, { roles: ["proxy", "api"], env: { SLIPWAY_CONFIG: file, ...env } });
}

async function digestOf(server: RegistryServer, path: string, init: RequestInit = {}): Promise<string> {
  const answer = await fetch(`${server.url}/v2/${path}`, init);
  await answer.arrayBuffer();
  return answer.status === 200 ? (answer.headers.get("docker-content-digest") ?? "") : String(answer.status);
}

test("what the configuration file names can be pulled by project, host, namespace, route, project pattern and prefix", async (t) => {
  const [hub, corp] = [await startUpstream(t), await startUpstream(t)];
  const alpine = hub.putImage("library/alpine", "3");
  const shop = corp.putImage("web/web-shop", "1");
  const misc = corp.putImage("misc/tool", "1");
  const team = corp.putImage("team-a/app", "1");
  const server = await startWith(
    t,
    `[[upstreams]]
name = "hub"
url = "${hub.url}"
type = "docker-hub"
hosts = ["docker.io"]
routes = [{ pattern = "library/*" }]
deny = ["library/evil*"]
[[upstreams]]
name = "corp"
url = "${corp.url}"
hosts = ["corp.example"]
is_default = true
projects = [{ name = "team-a" }, { name = "web", pattern = "web-*" }, { name = "misc", is_default = true }]
[[upstreams]]
name = "prefixed"
url = "${corp.url}"
registry = "team-a"
`,
  );
  assert.equal(await digestOf(server, "hub/library/alpine/manifests/3"), alpine);
  assert.equal(await digestOf(server, "hub/alpine/manifests/3"), alpine);
  assert.equal(await digestOf(server, "docker.io/alpine/manifests/3"), alpine);
  assert.equal(await digestOf(server, "library/alpine/manifests/3?ns=docker.io"), alpine);
  assert.equal(await digestOf(server, "hub/evil/manifests/3"), "404");
  assert.equal(await digestOf(server, "unknown.example/alpine/manifests/3"), "404");
  assert.equal(await digestOf(server, "team-a/app/manifests/1"), team, "by the pattern of a project");
  assert.equal(await digestOf(server, "corp/web-shop/manifests/1"), shop);
  assert.equal(await digestOf(server, "corp.example/tool/manifests/1"), misc);
  assert.equal(await digestOf(server, "prefixed/app/manifests/1"), team);
});

test("an upstream made by REST serves from the next request on, and its denied addresses never", async (t) => {
  const upstream = await startUpstream(t);
  const image = upstream.putImage("app", "1");
  const server = await startWith(t, "", { SLIPWAY_UPSTREAM_DENY: "192.0.2.0/24" });
  const send = (method: string, path: string, body: object): Promise<Response> =>
    fetch(`${server.url}/api/v2.0${path}`, {
      method,
      headers: { authorization: ADMIN, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  assert.equal(await digestOf(server, "late/app/manifests/1"), "404");
  const created = await send("POST", "/registries", { name: "late", type: "docker-registry", url: upstream.url });
  assert.equal(created.status, 201, await created.text());
  const id = Number(created.headers.get("location")?.split("/").at(-1));
  assert.equal((await send("POST", "/projects", { project_name: "late", registry_id: id, metadata: { public: "true" } })).status, 201);
  assert.equal(await digestOf(server, "late/app/manifests/1"), image);
  assert.equal((await send("PUT", `/registries/${id}`, { enabled: false })).status, 200);
  assert.equal(await digestOf(server, "late/other/manifests/1"), "503");
  const denied = await send("POST", "/registries", { name: "denied", type: "docker-registry", url: "http://192.0.2.7" });
  assert.equal(denied.status, 400);
  assert.match(await denied.text(), /not allowed/);
});
