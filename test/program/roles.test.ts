/** Processes by roles, uploads over several of them, and who may start beside whom. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesOf, contentOf, OciClient } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { freePort, sharedServices, startSlipway, waitReady } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { adminClient, apiOf, basic, embeddedEnv, until } from "./support.ts";

test("roles split over processes: api and proxy with one database share users, projects and content", async (t) => {
  const s = scope(t);
  const storage = await tempDir(s, "slipway-blobs-");
  const env = { ...(await sharedServices(s)), SLIPWAY_STORAGE_PATH: storage };
  const [api, proxy] = await Promise.all([
    startSlipway(s, { env, args: ["--role", "api"] }),
    startSlipway(s, { env, args: ["--role", "proxy"] }),
  ]);
  assert.equal((await fetch(`${api.url}/v2/`)).status, 404);
  assert.equal((await fetch(`${proxy.url}/api/v2.0/users/current`)).status, 404);
  const rest = apiOf(api, basic("admin", api.password));
  assert.equal((await rest("POST", "/projects", { project_name: "split", metadata: { public: "true" } })).status, 201);
  await adminClient(proxy).pushImage("split/app", "v1");
  const anonymous = new OciClient(proxy.url);
  assert.equal((await anonymous.request("/v2/split/app/manifests/v1")).status, 200);
  const project = (await (await rest("GET", "/projects/split")).json()) as { repo_count: number };
  assert.equal(project.repo_count, 1);
  assert.equal((await rest("PUT", "/projects/split", { metadata: { public: "false" } })).status, 200);
  assert.equal((await anonymous.request("/v2/split/app/manifests/v1")).status, 401);
});

async function relayUpload(clients: readonly [OciClient, OciClient, OciClient], size: number): Promise<void> {
  const [first, second, third] = clients;
  const blob = contentOf(Buffer.alloc(size, `${size} `));
  const [one, two] = [Math.floor(size / 3), Math.floor((size * 2) / 3)];
  const location = await first.location("library/relay");
  const begun = await first.patch(location, blob.bytes.subarray(0, one), { "content-range": `0-${one - 1}` });
  assert.equal(begun.status, 202);
  const wrong = await second.patch(String(begun.headers.get("location")), blob.bytes.subarray(two), {
    "content-range": `${two}-${size - 1}`,
  });
  assert.equal(wrong.status, 416, "a hole is refused");
  const continued = await second.patch(String(begun.headers.get("location")), blob.bytes.subarray(one, two), {
    "content-range": `${one}-${two - 1}`,
  });
  assert.equal(continued.status, 202);
  assert.equal(continued.headers.get("range"), `0-${two - 1}`);
  const where = String(continued.headers.get("location"));
  const status = await third.request(where);
  assert.equal(status.status, 204);
  assert.equal(status.headers.get("range"), `0-${two - 1}`);
  const finished = await third.finish(where, blob.digest, blob.bytes.subarray(two));
  assert.equal(finished.status, 201, await finished.text());
  for (const client of clients) {
    const answer = await client.request(`/v2/library/relay/blobs/${blob.digest}`);
    assert.equal(answer.status, 200);
    assert.deepEqual(await bytesOf(answer), blob.bytes);
  }
}

test("an upload begun on one process goes on on another and is finished on a third", async (t) => {
  const s = scope(t);
  const storage = await tempDir(s, "slipway-blobs-");
  const env = { ...(await sharedServices(s)), SLIPWAY_STORAGE_PATH: storage };
  const started = await Promise.all([1, 2, 3].map(() => startSlipway(s, { env, args: ["--role", "proxy"] })));
  const [first, second, third] = started.map((slipway) => adminClient(slipway));
  assert.ok(first && second && third);
  for (const size of [3_000, 9_000_000]) await relayUpload([first, second, third], size);
});

test("a second start with the same data names the owner; a taken port is one line; a role joins", async (t) => {
  const s = scope(t);
  const dataDir = await tempDir(s, "slipway-owner-");
  const owner = await startSlipway(s, { dataDir, env: embeddedEnv() });
  const second = await startSlipway(s, { dataDir, env: embeddedEnv(), waitReady: false });
  await until("the second start ends", () => second.child.exitCode ?? undefined);
  assert.equal(second.child.exitCode, 1);
  assert.match(second.output(), new RegExp(`^slipway: the data folder \\S+ is in use by process ${owner.child.pid}, `, "m"));

  const other = await startSlipway(s, {
    env: { ...(await sharedServices(s)), SLIPWAY_PORT: new URL(owner.url).port },
    args: ["--role", "proxy"],
    waitReady: false,
  });
  await until("the start on a taken port ends", () => other.child.exitCode ?? undefined);
  assert.equal(other.child.exitCode, 1);
  assert.equal(other.output().trim(), `slipway: port ${new URL(owner.url).port} on 127.0.0.1 is taken by another program`);

  const joined = await startSlipway(s, {
    dataDir,
    env: { SLIPWAY_PORT: String(await freePort()) },
    args: ["--role", "proxy"],
    waitReady: false,
  });
  await waitReady(joined);
  const image = await adminClient(owner).pushImage("library/joined", "v1");
  const answer = await adminClient(joined).request(`/v2/library/joined/manifests/v1`);
  assert.equal(answer.headers.get("docker-content-digest"), image.digest);
  assert.equal(await joined.stop(), 0);
  assert.equal((await fetch(`${owner.url}/health/ready`)).status, 200, "the owner goes on");
});
