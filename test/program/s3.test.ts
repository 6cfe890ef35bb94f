/** The program with its blobs on a real S3 server: clients are sent there, and its death is never taken for the end of a blob. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { test } from "node:test";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { buildImage, writeLayout } from "../support/image.ts";
import { bytesOf, randomContent } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { missingTool, mustRun } from "../support/tools.ts";
import { missingVersitygw, startVersitygw } from "../support/versitygw.ts";
import type { S3Server } from "../support/versitygw.ts";
import { adminClient, basic, until } from "./support.ts";

const skip = await missingVersitygw();
const skopeoMissing = missingTool("skopeo");

function s3Env(server: S3Server, endpoint = server.endpoint): Record<string, string> {
  const { bucket, prefix, accessKeyId, secretAccessKey } = server.config;
  return {
    SLIPWAY_STORAGE: "s3",
    SLIPWAY_S3_BUCKET: bucket,
    SLIPWAY_S3_PREFIX: prefix,
    SLIPWAY_S3_ENDPOINT: endpoint,
    SLIPWAY_S3_PATH_STYLE: "true",
    SLIPWAY_S3_ACCESS_KEY_ID: String(accessKeyId),
    SLIPWAY_S3_SECRET_ACCESS_KEY: String(secretAccessKey),
  };
}

test("with redirects a client is sent to S3 for large blobs and gets the exact bytes there", { skip }, async (t) => {
  const s = scope(t);
  const server = await startVersitygw(s);
  const slipway = await startSlipway(s, {
    env: { ...(await sharedServices(s)), ...s3Env(server), SLIPWAY_S3_REDIRECT: "true" },
    args: ["--role", "proxy"],
  });
  const client = adminClient(slipway);
  const blob = randomContent(9_000_000);
  await client.pushBlob("library/far", blob);
  const answer = await client.request(`/v2/library/far/blobs/${blob.digest}`);
  assert.equal(answer.status, 307);
  const target = new URL(String(answer.headers.get("location")));
  assert.equal(target.origin, server.endpoint);
  const fetched = await fetch(target);
  assert.equal(fetched.status, 200);
  assert.deepEqual(await bytesOf(fetched), blob.bytes);
  assert.doesNotMatch(slipway.output(), /X-Amz-Signature=[0-9a-f]{10}/);

  if (skopeoMissing) return;
  const folder = await tempDir(s);
  const image = buildImage({ layers: 2, layerBytes: 3_000_000 });
  await writeLayout(`${folder}/image`, image);
  const login = `admin:${slipway.password}`;
  const name = `docker://${slipway.host}/library/skopeo:v1`;
  await mustRun("skopeo", ["copy", "--dest-tls-verify=false", "--dest-creds", login, `oci:${folder}/image:latest`, name]);
  await mustRun("skopeo", ["copy", "--src-tls-verify=false", name, `oci:${folder}/back:latest`]);
  for (const layer of image.layers) {
    assert.deepEqual(await readFile(`${folder}/back/blobs/sha256/${layer.digest.slice(7)}`), image.blobs.get(layer.digest));
  }
});

/** How a download ended, and what had come by then. */
function download(
  url: string,
  login: string,
  onBytes: (count: number) => void,
): Promise<{ complete: boolean; bytes: number; digest: string }> {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { agent: false, headers: { authorization: login } });
    request.on("error", reject);
    request.on("response", (response) => {
      const hash = createHash("sha256");
      let bytes = 0;
      response.on("data", (chunk: Buffer) => {
        hash.update(chunk);
        bytes += chunk.length;
        onBytes(bytes);
      });
      response.on("error", () => undefined);
      response.on("close", () => resolve({ complete: response.complete, bytes, digest: `sha256:${hash.digest("hex")}` }));
    });
  });
}

test("S3 killed in the middle of a download breaks the transfer, is 503 while away, and all is served again after", { skip }, async (t) => {
  const s = scope(t);
  const server = await startVersitygw(s);
  const way = await startFaultProxy(s, { port: Number(new URL(server.endpoint).port) });
  const slipway = await startSlipway(s, {
    env: { ...(await sharedServices(s)), ...s3Env(server, way.url) },
    args: ["--role", "proxy"],
  });
  const client = adminClient(slipway);
  const blob = randomContent(24 * 1024 * 1024);
  await client.pushBlob("library/cut", blob);
  const manifest = await client.pushImage("library/cut", "v1");
  await bytesOf(await client.request("/v2/library/cut/manifests/v1"));
  const path = `${slipway.url}/v2/library/cut/blobs/${blob.digest}`;
  const login = basic("admin", slipway.password);

  way.set({ bytesPerSecond: 8 * 1024 * 1024 });
  const arrived = Promise.withResolvers<void>();
  const broken = download(path, login, (count) => {
    if (count > 2 * 1024 * 1024) arrived.resolve();
  });
  await arrived.promise;
  await server.kill();
  way.dropConnections();
  const outcome = await broken;
  assert.equal(outcome.complete, false, "a part must not look like the whole");
  assert.ok(outcome.bytes < blob.bytes.length);

  way.heal();
  const away = await client.request(`/v2/library/cut/blobs/${blob.digest}`);
  assert.ok([502, 503].includes(away.status), `answered ${away.status}`);
  const push = await client.request(`/v2/library/cut/blobs/uploads/?digest=${blob.digest}`, {
    method: "POST",
    body: new Uint8Array(randomContent(100_000).bytes),
  });
  assert.ok([502, 503].includes(push.status), `answered ${push.status}`);
  const warm = await client.request("/v2/library/cut/manifests/v1");
  assert.equal(warm.headers.get("docker-content-digest"), manifest.digest, "what is in memory is served");
  const ready = await until("readiness names storage", async () => {
    const answer = await fetch(`${slipway.url}/health/ready`);
    return answer.status === 503 ? ((await answer.json()) as { missing: string[] }) : undefined;
  });
  assert.deepEqual(ready.missing, ["storage"]);

  await server.restart();
  await until("ready again", async () => ((await fetch(`${slipway.url}/health/ready`)).ok ? true : undefined));
  const whole = await download(path, login, () => undefined);
  assert.deepEqual([whole.complete, whole.digest], [true, blob.digest]);
  await client.pushBlob("library/cut", randomContent(200_000));
});
