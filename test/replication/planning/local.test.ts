/** Planning with the local registry on either side, and with Debian's docker-registry, which is distribution. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startDockerRegistry } from "../../support/docker-registry.ts";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import { missingTool } from "../../support/tools.ts";
import { endpointFor } from "../../upstream/support.ts";
import { beginRun, destination, policyOf, replicationSetting } from "../support.ts";
import { pushLocal } from "./local-content.ts";
import { fill, itemsOf, linesOf, planAll, plannerFor, tasksOf, unchangedOf } from "./support.ts";

const LOCAL = 0;

test("local content goes out by tag and by digest, without parts and signatures, and its listing costs no request", async (t) => {
  const setting = await replicationSetting(t);
  const target = await startFakeRegistry(t);
  const project = await setting.catalog.projects.ensure({ name: "team", public: true, ownerId: null });
  const tagged = await pushLocal(setting, project, "team/app", { tags: ["v1", "latest"] });
  const untagged = await pushLocal(setting, project, "team/app");
  await pushLocal(setting, project, "team/app", { subject: { digest: tagged.digest } });
  const policy = policyOf(LOCAL, [destination(await setting.addRegistry({ url: target.url }), { namespace: "copies", replaceCount: 1 })]);
  const executionId = await beginRun(setting.database);
  await planAll(plannerFor(setting, policy), executionId);
  assert.deepEqual(
    (await itemsOf(setting, executionId)).map((item) => [item.target, item.tag, item.digest]),
    [
      ["copies/app", null, untagged.digest],
      ["copies/app", "latest", tagged.digest],
      ["copies/app", "v1", tagged.digest],
    ],
  );
});

test("a project is made for what comes in, as public as it is there; a proxy project takes nothing, which is no failure", async (t) => {
  const setting = await replicationSetting(t);
  const source = await startFakeRegistry(t);
  fill([source], { "team/app": ["v1"], "cached/app": ["v1"] });
  const from = await setting.addRegistry({ url: source.url });
  await setting.catalog.projects.create({ name: "cached", public: true, ownerId: null, registryId: from });
  const executionId = await beginRun(setting.database);
  await planAll(plannerFor(setting, policyOf(from, [destination(LOCAL)])), executionId);
  assert.deepEqual(
    (await itemsOf(setting, executionId)).map(({ target }) => target),
    ["team/app"],
  );
  assert.equal((await setting.catalog.projects.find("team"))?.public, false);
  assert.match((await linesOf(setting, executionId)).join("\n"), /WARNING project cached of the destination is a proxy cache/);
  const short = await startFakeRegistry(t);
  fill([short], { alone: ["v1"] });
  const other = policyOf(await setting.addRegistry({ url: short.url }), [destination(LOCAL)]);
  await assert.rejects(planAll(plannerFor(setting, other), await beginRun(setting.database)), /requires at least 2/);
});

test("between distribution and here, what is equal is found equal", { skip: missingTool("docker-registry") }, async (t) => {
  const setting = await replicationSetting(t);
  const registry = await startDockerRegistry(t);
  const client = setting.pool.client(endpointFor(registry.url));
  const project = await setting.catalog.projects.ensure({ name: "team", public: true, ownerId: null });
  const here = await pushLocal(setting, project, "team/app", { tags: ["v1", "v2"] });
  for (const { digest, bytes } of here.blobs) await client.uploadMonolithic("team/app", digest, { bytes, size: bytes.length });
  const manifest = { bytes: here.bytes, mediaType: "application/vnd.oci.image.manifest.v1+json" };
  for (const tag of ["v1", "v3"]) await client.putManifest("team/app", tag, manifest);
  const there = await setting.addRegistry({ url: registry.url });

  const out = await beginRun(setting.database);
  await planAll(plannerFor(setting, policyOf(LOCAL, [destination(there)])), out);
  assert.deepEqual(
    (await itemsOf(setting, out)).map(({ tag }) => tag),
    ["v2"],
  );
  assert.equal(await unchangedOf(setting, out), 1);

  const back = await beginRun(setting.database);
  await planAll(plannerFor(setting, policyOf(there, [destination(LOCAL)])), back);
  assert.deepEqual(
    (await itemsOf(setting, back)).map(({ tag }) => tag),
    ["v3"],
  );
  assert.equal((await tasksOf(setting, back))[0]?.attrs["target_empty"], false);
});
