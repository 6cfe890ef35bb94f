/** Who may read what came from upstream: the project's own right and its own upstream decide, never a digest. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { buildImage } from "../support/image.ts";
import { OciClient, contentOf, imageDocument } from "../support/oci-client.ts";
import { ask, createProxyProject, eventually, serveImage } from "../support/proxy-server.ts";
import { ADMIN, startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";

const files = scope({ after });
const server = await startRegistry(files, { auth: "anonymous-pull" });
const { app } = server;
let projects = 0;
const unique = (prefix: string): string => `${prefix}${(projects += 1)}`;
const authorized = { headers: { authorization: ADMIN } };

test("what a private project has is not readable through another, not by digest and not by naming it in a manifest", async (t) => {
  const secret = await startFakeRegistry(t);
  const open = await startFakeRegistry(t);
  const [closed, visible] = [unique("secret"), unique("open")];
  await createProxyProject(app, { name: closed, url: secret.url, public: false });
  await createProxyProject(app, { name: visible, url: open.url });
  const image = serveImage(secret, "app", "1");
  await ask(`${server.url}/v2/${closed}/app/manifests/1`, authorized);
  const layer = image.layers[0]!.digest;
  assert.equal((await ask(`${server.url}/v2/${closed}/app/blobs/${layer}`, authorized)).status, 200);
  await eventually("it is stored", async () => (await app.store.stat(layer)) !== null);

  assert.equal((await ask(`${server.url}/v2/${closed}/app/manifests/1`)).status, 401);
  assert.equal((await ask(`${server.url}/v2/${closed}/app/blobs/${layer}`)).status, 401);
  assert.equal((await ask(`${server.url}/v2/${visible}/app/blobs/${layer}`)).status, 404);
  assert.equal((await ask(`${server.url}/v2/${visible}/app/manifests/${image.manifest.digest}`)).status, 404);
  // An upstream that names the digest without having it grants nothing either.
  open.putManifest("app", image.manifestBytes, { tag: "stolen" });
  assert.equal((await ask(`${server.url}/v2/${visible}/app/manifests/stolen`)).status, 200);
  assert.equal((await ask(`${server.url}/v2/${visible}/app/blobs/${layer}`)).status, 404);

  const pusher = new OciClient(server.url, { authorization: ADMIN });
  const local = `library/${unique("thief")}`;
  const config = contentOf("{}");
  await pusher.pushBlob(local, config);
  const named = contentOf(JSON.stringify(imageDocument(config, { digest: layer, bytes: image.blobs.get(layer)! })));
  await pusher.putManifest(local, "1", named.bytes);
  assert.equal((await ask(`${server.url}/v2/${local}/blobs/${layer}`, authorized)).status, 404);
});

test("a digest that another project has is not fetched again, but only for whom the own upstream has it", async (t) => {
  const [one, two] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const names = [unique("one"), unique("two")] as const;
  await createProxyProject(app, { name: names[0], url: one.url });
  await createProxyProject(app, { name: names[1], url: two.url });
  const content = randomBytes(100_000);
  const digest = one.putBlob("app", content);
  two.putBlob("app", content);
  assert.ok((await ask(`${server.url}/v2/${names[0]}/app/blobs/${digest}`)).bytes.equals(content));
  await eventually("it is stored", async () => (await app.store.stat(digest)) !== null);
  assert.ok((await ask(`${server.url}/v2/${names[1]}/app/blobs/${digest}`)).bytes.equals(content));
  assert.deepEqual([two.count("blob-get"), two.count("blob-head")], [0, 1]);
  await ask(`${server.url}/v2/${names[1]}/app/blobs/${digest}`);
  assert.equal(two.calls.length, 1, "the link is kept");
});

test("a fill on its way is joined by another project only after its own upstream has shown the blob", async (t) => {
  const [one, two, three] = [await startFakeRegistry(t), await startFakeRegistry(t), await startFakeRegistry(t)];
  const [first, second, third] = [unique("join"), unique("join"), unique("join")];
  await createProxyProject(app, { name: first, url: one.url });
  await createProxyProject(app, { name: second, url: two.url });
  await createProxyProject(app, { name: third, url: three.url });
  const content = randomBytes(1_000_000);
  const digest = one.putBlob("app", content);
  two.putBlob("app", content);
  let release: () => void = () => undefined;
  one.on({ method: "GET", path: /\/blobs\// }, (_request, response) => {
    response.writeHead(200, { "content-length": content.length });
    response.write(content.subarray(0, 500_000));
    release = () => response.end(content.subarray(500_000));
  });
  const owner = ask(`${server.url}/v2/${first}/app/blobs/${digest}`);
  await eventually("the fill has begun", () => app.proxy.fills.active === 1);
  assert.equal((await ask(`${server.url}/v2/${third}/app/blobs/${digest}`)).status, 404);
  const joiner = ask(`${server.url}/v2/${second}/app/blobs/${digest}`);
  await eventually("the right is asked for", () => two.count("blob-head") === 1);
  release();
  for (const answer of [await owner, await joiner]) assert.ok(answer.bytes.equals(content));
  assert.equal(two.count("blob-get"), 0);
  await eventually("both are linked", async () => (await ask(`${server.url}/v2/${second}/app/blobs/${digest}`)).cache === "HIT");
  assert.equal(two.calls.length, 1);
});

test("a private upstream's refusal never leads to another upstream", async (t) => {
  const [closed, fallback] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const name = unique("refused");
  await createProxyProject(app, { name, url: closed.url, registry: { credentialType: "basic", accessKey: "a", accessSecret: "wrong" } });
  await createProxyProject(app, { name: unique("fallback"), url: fallback.url, registry: { isDefault: true } });
  closed.auth = { type: "basic", username: "a", password: "right" };
  closed.putImage("app", "1");
  fallback.putImage("app", "1");
  fallback.putImage(`${name}/app`, "1");
  const answer = await ask(`${server.url}/v2/${name}/app/manifests/1`);
  assert.equal(answer.status, 502);
  assert.equal(answer.headers.get("www-authenticate"), null, "its challenge is not the client's business");
  assert.equal(fallback.calls.length, 0);
});

test("several addresses are tried in order; a switched off upstream still serves what is here", async (t) => {
  const [dead, alive] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const name = unique("several");
  const project = await createProxyProject(app, { name, url: dead.url, registry: { mirrors: [alive.url], hosts: [`${name}.example`] } });
  await dead.stop();
  const digest = alive.putImage("app", "1");
  const named = await ask(`${server.url}/v2/app/manifests/1?ns=${name}.example`);
  assert.deepEqual([named.digest, named.headers.get("oci-namespace")], [digest, `${name}.example`]);
  const registry = await app.proxy.registries.find(project.registryId!);
  await app.proxy.registries.update(registry!.id, { ...registry!, enabled: false }, registry!.version);
  assert.equal((await ask(`${server.url}/v2/${name}/app/manifests/1`)).digest, digest);
  assert.equal((await ask(`${server.url}/v2/app/manifests/1?ns=${name}.example`)).status, 404);
  const other = await ask(`${server.url}/v2/${name}/app/manifests/2`);
  assert.deepEqual([other.status, Number(other.retryAfter) > 0], [503, true]);
});

test("unknown hosts and namespaces are refused and never asked", async (t) => {
  const upstream = await startFakeRegistry(t);
  await createProxyProject(app, { name: unique("default"), url: upstream.url, registry: { isDefault: true, priority: 1 } });
  for (const path of ["no-such.example/app/manifests/1", "app/manifests/1?ns=evil.example", "169.254.169.254/latest/manifests/1"]) {
    assert.equal((await ask(`${server.url}/v2/${path}`, authorized)).status, 404, path);
  }
  assert.equal(upstream.calls.filter(({ url }) => url.includes("evil") || url.includes("latest")).length, 0);
});

test("a push to a proxy is refused as unsupported, whatever the request", async (t) => {
  const upstream = await startFakeRegistry(t);
  const name = unique("readonly");
  await createProxyProject(app, { name, url: upstream.url });
  const image = buildImage();
  const requests = [
    ["POST", "blobs/uploads/"],
    ["PUT", "manifests/1"],
    ["DELETE", `manifests/${image.manifest.digest}`],
    ["DELETE", `blobs/${image.config.digest}`],
  ] as const;
  for (const [method, path] of requests) {
    const answer = await ask(`${server.url}/v2/${name}/app/${path}`, { method, ...authorized });
    assert.equal(answer.status, 405, `${method} ${path}`);
    assert.match(answer.bytes.toString(), /"UNSUPPORTED"/);
  }
  assert.equal(upstream.calls.length, 0);
});
