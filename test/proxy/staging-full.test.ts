/** No room to stage: pulls go on, past the cache, and what is wrong is still never served as right. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { ask, createProxyProject, eventually } from "../support/proxy-server.ts";
import { registryBacking, startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";
import { runTool } from "../support/tools.ts";

test("clients get every byte while the staging disk is full, and the cache when there is room again", async (context) => {
  const t = scope(context);
  const backing = await registryBacking(t);
  const staging = join(backing.dataDir, "staging");
  await mkdir(staging);
  const mounted = await runTool("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", staging]);
  if (mounted.code !== 0) {
    context.skip(`MISSING RIGHT: cannot mount a small disk (${mounted.stderr.trim()})`);
    return;
  }
  t.after(async () => void (await runTool("umount", ["-l", staging])));
  const upstream = await startFakeRegistry(t);
  const server = await startRegistry(t, { backing });
  await createProxyProject(server.app, { name: "hub", url: upstream.url });
  const content = randomBytes(9_000_000);
  const digest = upstream.putBlob("app", content);
  const url = `${server.url}/v2/hub/app/blobs/${digest}`;
  const answers = await Promise.all([1, 2, 3].map(() => ask(url)));
  for (const { status, bytes } of answers) assert.ok(status === 200 && bytes.equals(content), `${status} ${bytes.length}`);
  const part = await ask(url, { headers: { range: "bytes=8000000-8000999" } });
  assert.deepEqual([part.status, part.bytes], [206, content.subarray(8_000_000, 8_001_000)]);
  assert.ok(server.app.proxy.fills.stats.unstaged > 0);
  await eventually("all fills are over", () => server.app.proxy.fills.active === 0);
  assert.deepEqual(await readdir(staging), ["identity"]);

  const wrong = randomBytes(9_000_000);
  upstream.repository("app").blobs.set(digest, wrong);
  await assert.rejects(ask(url), "wrong bytes are no answer");
  upstream.repository("app").blobs.set(digest, content);

  const small = randomBytes(1_000_000);
  const smallDigest = upstream.putBlob("app", small);
  const smallUrl = `${server.url}/v2/hub/app/blobs/${smallDigest}`;
  assert.ok((await ask(smallUrl)).bytes.equals(small));
  await eventually("what fits is kept", async () => (await ask(smallUrl)).cache === "HIT");
});
