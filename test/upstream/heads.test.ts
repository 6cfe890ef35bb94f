/** HEAD requests and the connections that they use. */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { startClient } from "./support.ts";

test("looking at many tags takes few connections, not one each", async (t) => {
  const registry = await startFakeRegistry(t);
  const tags = Array.from({ length: 20 }, (_, index) => `v${index}`);
  for (const tag of tags) registry.putImage("team/app", tag);
  const client = startClient(t, registry.url);
  for (const tag of tags) await client.headManifest("team/app", tag);
  // The pool may open another before the first is free again.
  assert.ok(registry.connections <= 3, `${registry.connections} connections`);
});

test("a registry that sends a body with a HEAD spoils nobody's answer", async (t) => {
  const digest = (tag: string): string => `sha256:${tag.slice(1).padStart(64, "0")}`;
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (data) => {
      for (const [, tag = ""] of data.toString("latin1").matchAll(/^HEAD \/v2\/team\/app\/manifests\/(\S+) /gm)) {
        const head = ["HTTP/1.1 200 OK", "content-type: application/vnd.oci.image.manifest.v1+json", "content-length: 20"];
        socket.write([...head, `docker-content-digest: ${digest(tag)}`, "", "a body that is wrong"].join("\r\n"));
      }
    });
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  t.after(() => new Promise((resolve) => server.close(resolve)));
  const client = startClient(t, `http://127.0.0.1:${(server.address() as AddressInfo).port}`, { pool: { breakerThreshold: 1000 } });
  for (let index = 0; index < 10; index += 1)
    assert.equal((await client.headManifest("team/app", `v${index}`)).digest, digest(`v${index}`));
});
