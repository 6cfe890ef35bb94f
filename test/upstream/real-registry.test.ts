/** Against Debian's docker-registry, which is distribution: push in every way, pull back, list. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { sha256 } from "../support/fake-answers.ts";
import { OCI_MANIFEST } from "../support/fake-registry.ts";
import { tempDir } from "../support/temp.ts";
import { findTool, missingTool } from "../support/tools.ts";
import { readAll, startClient, withCode } from "./support.ts";

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function startRegistry(t: TestContext): Promise<string> {
  const folder = await tempDir(t);
  const port = await freePort();
  const file = join(folder, "config.yml");
  const storage = `storage:\n  delete:\n    enabled: true\n  filesystem:\n    rootdirectory: ${folder}/data\n`;
  writeFileSync(file, `version: 0.1\nlog:\n  level: error\n${storage}http:\n  addr: 127.0.0.1:${port}\n`);
  const child = spawn(findTool("docker-registry") ?? "", ["serve", file], { stdio: "ignore" });
  t.after(
    () =>
      new Promise<void>((resolve) => {
        child.once("exit", () => resolve());
        if (child.exitCode !== null || !child.kill("SIGKILL")) resolve();
      }),
  );
  const url = `http://127.0.0.1:${port}`;
  const client = startClient(t, url, { pool: { breakerThreshold: 10_000 } });
  for (let tries = 0; ; tries += 1) {
    try {
      await client.ping();
      return url;
    } catch (error) {
      if (tries > 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

test("pushes and pulls with a real registry", { skip: missingTool("docker-registry") }, async (t) => {
  const client = startClient(t, await startRegistry(t));
  const bytes = randomBytes(3 * 1024 * 1024);
  const digest = sha256(bytes);

  let session = await client.startUpload("team/app");
  session = await client.uploadChunk("team/app", session, { bytes: bytes.subarray(0, 1_000_000), size: 1_000_000 });
  session = await client.uploadStatus("team/app", session);
  assert.equal(session.offset, 1_000_000);
  session = await client.uploadChunk("team/app", session, { bytes: bytes.subarray(1_000_000, 2_000_000), size: 1_000_000 });
  const rest = bytes.subarray(2_000_000);
  assert.equal((await client.finishUpload("team/app", session, digest, { lastChunk: { bytes: rest, size: rest.length } })).digest, digest);

  assert.equal((await client.uploadMonolithic("team/mono", digest, { bytes: Readable.from([bytes]), size: bytes.length })).digest, digest);
  assert.deepEqual(await client.mountBlob("team/mounted", digest, "team/app"), { mounted: true });
  const config = Buffer.from("{}");
  assert.ok((await client.uploadMonolithic("team/app", sha256(config), { bytes: config, size: 2 }, { singlePost: true })).digest);

  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: sha256(config), size: 2 },
      layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar", digest, size: bytes.length }],
    }),
  );
  for (const tag of ["v1", "v2", "v3"]) await client.putManifest("team/app", tag, { bytes: manifest, mediaType: OCI_MANIFEST });
  await assert.rejects(
    client.putManifest("team/mounted", "v1", { bytes: manifest, mediaType: OCI_MANIFEST }),
    withCode("MANIFEST_BLOB_UNKNOWN"),
  );

  assert.equal((await client.headManifest("team/app", "v1")).digest, sha256(manifest));
  const pulled = await client.getManifest("team/app", sha256(manifest));
  assert.ok(!pulled.notModified && pulled.bytes.equals(manifest) && pulled.etag !== null);
  assert.ok((await client.getManifest("team/app", "v1", { ifNoneMatch: pulled.etag })).notModified);
  assert.ok((await readAll((await client.getBlob("team/app", digest)).body)).equals(bytes));
  const part = await client.getBlob("team/mono", digest, { range: { start: 100, end: 199 } });
  assert.ok(part.rangeHonoured && (await readAll(part.body)).equals(bytes.subarray(100, 200)));
  assert.equal((await client.headBlob("team/mounted", digest)).size, bytes.length);
  await assert.rejects(client.getBlob("team/app", sha256("absent")), withCode("BLOB_UNKNOWN"));

  const tags: string[] = [];
  for await (const page of client.allTags("team/app", { n: 2 })) tags.push(...page.tags);
  assert.deepEqual(tags, ["v1", "v2", "v3"]);
  assert.deepEqual((await client.listReferrers("team/app", sha256(manifest))).manifests, []);
  await client.deleteManifest("team/app", sha256(manifest));
  await assert.rejects(client.headManifest("team/app", "v1"), withCode("MANIFEST_UNKNOWN"));
  await client.cancelUpload("team/app", await client.startUpload("team/app"));
});
