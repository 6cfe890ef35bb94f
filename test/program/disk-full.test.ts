/** A full disk in the middle of an upload: an error that says so, nothing earlier lost, and all well once there is room. */
import assert from "node:assert/strict";
import { mkdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { bytesOf, codeOf, randomContent } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { mustRun, runTool } from "../support/tools.ts";
import { adminClient } from "./support.ts";

const DISK_MB = 8;

test("a full disk answers 507 or 503 in the registry's envelope, earlier content is served, and room makes pushes work again", async (t) => {
  const s = scope(t);
  const folder = join(await tempDir(s, "slipway-disk-"), "storage");
  await mkdir(folder);
  const mounted = await runTool("mount", ["-t", "tmpfs", "-o", `size=${DISK_MB}m`, "tmpfs", folder]);
  if (mounted.code !== 0) {
    console.error(`NOT RUN: no small disk can be mounted here (${mounted.stderr.trim()}); the test of a full disk did not run`);
    t.skip("mount is not allowed");
    return;
  }
  s.after(async () => void (await mustRun("umount", ["-l", folder])));
  const slipway = await startSlipway(s, {
    env: { ...(await sharedServices(s)), SLIPWAY_STORAGE_PATH: folder },
    args: ["--role", "proxy"],
  });
  const client = adminClient(slipway);
  const earlier = randomContent(1_000_000);
  await client.pushBlob("library/disk", earlier);
  const manifest = await client.pushImage("library/disk", "v1");

  const tooLarge = randomContent((DISK_MB + 4) * 1024 * 1024);
  const inOne = await client.request(`/v2/library/disk/blobs/uploads/?digest=${tooLarge.digest}`, {
    method: "POST",
    body: new Uint8Array(tooLarge.bytes),
  });
  assert.ok([503, 507].includes(inOne.status), `answered ${inOne.status}`);
  await codeOf(inOne);
  const location = await client.location("library/disk");
  const chunk = await client.patch(location, tooLarge.bytes);
  assert.ok([503, 507].includes(chunk.status), `answered ${chunk.status}`);
  await codeOf(chunk);
  await client.request(location, { method: "DELETE" });

  const ballast = join(folder, "ballast");
  await writeFile(ballast, Buffer.alloc(DISK_MB * 1024 * 1024)).catch((error: NodeJS.ErrnoException) => assert.equal(error.code, "ENOSPC"));
  assert.ok((await stat(ballast)).size > 1024 * 1024, "what the failed uploads wrote is gone");
  for (let round = 0; round < 2; round += 1) {
    const answer = await client.request(`/v2/library/disk/blobs/${earlier.digest}`);
    assert.equal(answer.status, 200);
    assert.deepEqual(await bytesOf(answer), earlier.bytes);
    const tagged = await client.request("/v2/library/disk/manifests/v1");
    assert.equal(tagged.headers.get("docker-content-digest"), manifest.digest);
    const small = randomContent(100_000);
    const push = await client.request(`/v2/library/disk/blobs/uploads/?digest=${small.digest}`, {
      method: "POST",
      body: new Uint8Array(small.bytes),
    });
    assert.ok([503, 507].includes(push.status), `answered ${push.status}`);
    assert.equal((await client.request(`/v2/library/disk/blobs/${small.digest}`)).status, 404);
  }
  const live = await fetch(`${slipway.url}/health/live`);
  assert.equal(live.status, 200);

  await rm(ballast);
  const fits = randomContent(3_000_000);
  await client.pushBlob("library/disk", fits);
  await client.pushImage("library/disk", "v2");
  assert.deepEqual(await bytesOf(await client.request(`/v2/library/disk/blobs/${fits.digest}`)), fits.bytes);
  assert.equal(await slipway.stop(), 0);
});
