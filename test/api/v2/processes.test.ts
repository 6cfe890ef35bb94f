import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OciClient, bytesOf, codeOf, locationOf, randomContent } from "../../support/oci-client.ts";
import { registryBacking, startRegistry } from "../../support/registry-server.ts";

const backing = await registryBacking({ after });
const clients: OciClient[] = [];
for (let index = 0; index < 3; index += 1) clients.push(new OciClient((await startRegistry({ after }, { backing })).url));
const [first, second, third] = clients as [OciClient, OciClient, OciClient];

test("an upload begun on one process is continued on another and finished on a third", async () => {
  for (const algorithm of ["sha256", "sha512"] as const) {
    const content = randomContent(300_000, algorithm);
    const location = await first.location("shared/upload", `?digest-algorithm=${algorithm}`);
    const chunk = (client: OciClient, start: number, end: number): Promise<Response> =>
      client.patch(location, content.bytes.subarray(start, end), { "content-range": `${start}-${end - 1}` });
    assert.equal((await chunk(first, 0, 100_000)).status, 202);
    assert.equal((await chunk(second, 100_000, 200_000)).status, 202);
    const status = await third.request(location);
    assert.equal(status.headers.get("range"), "0-199999");
    assert.equal((await chunk(first, 100_000, 200_000)).status, 416);
    const created = await third.finish(location, content.digest, content.bytes.subarray(200_000));
    assert.equal(created.status, 201, await created.clone().text());
    for (const client of clients) assert.deepEqual(await bytesOf(await client.request(locationOf(created))), content.bytes);
    assert.equal((await first.request(location)).status, 404);
  }
});

test("wrong content is found out by whichever process finishes", async () => {
  const location = await first.location("shared/upload");
  await first.patch(location, Buffer.from("some"));
  await second.patch(location, Buffer.from("thing"));
  const answer = await third.finish(location, randomContent(9).digest);
  assert.equal(answer.status, 400);
  assert.equal(await codeOf(answer), "DIGEST_INVALID");
});

async function digestOf(client: OciClient, reference: string): Promise<string | null> {
  const answer = await client.request(`/v2/shared/app/manifests/${reference}`);
  await answer.arrayBuffer();
  return answer.headers.get("docker-content-digest");
}

test("a tag moved through one process is moved for the next request to another", async () => {
  for (let round = 0; round < 5; round += 1) {
    const manifest = await first.pushImage("shared/app", "moving");
    for (const client of clients) assert.equal(await digestOf(client, "moving"), manifest.digest, `round ${round}`);
  }
});

test("what one process deleted is gone for the next request to another", async () => {
  const manifest = await second.pushImage("shared/app", "gone");
  for (const client of clients) assert.equal(await digestOf(client, "gone"), manifest.digest);
  await first.request("/v2/shared/app/manifests/gone", { method: "DELETE" });
  for (const client of clients) assert.equal(await digestOf(client, "gone"), null);
  for (const client of clients) assert.equal(await digestOf(client, manifest.digest), manifest.digest);
  await third.request(`/v2/shared/app/manifests/${manifest.digest}`, { method: "DELETE" });
  for (const client of clients) assert.equal(await digestOf(client, manifest.digest), null);
});

test("a blob that was unknown is known to all once it is pushed", async () => {
  const content = randomContent(100);
  const path = `/v2/shared/app/blobs/${content.digest}`;
  for (const client of clients) assert.equal((await client.request(path)).status, 404);
  await second.pushBlob("shared/app", content);
  for (const client of clients) assert.deepEqual(await bytesOf(await client.request(path)), content.bytes);
  await third.request(path, { method: "DELETE" });
  for (const client of clients) assert.equal((await client.request(path)).status, 404);
});
