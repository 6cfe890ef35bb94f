/** SIGTERM in the middle of transfers: not ready at once, deaf soon, and what runs is finished. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { contentOf } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { accepts, adminClient, basic, portOf, until } from "./support.ts";

const SIZE = 20 * 1024 * 1024;
const STEP = 512 * 1024;
const PAUSE_MS = 80;

/** Reads as slowly as the pauses make it; the digest of what came, once the answer is complete. */
function slowDownload(slipway: RunningSlipway, path: string): { started: Promise<void>; digest: Promise<string> } {
  const started = Promise.withResolvers<void>();
  const finished = Promise.withResolvers<string>();
  const request = http.get(`${slipway.url}${path}`, { agent: false, headers: { authorization: basic("admin", slipway.password) } });
  request.on("error", finished.reject);
  request.on("response", (response) => {
    const hash = createHash("sha256");
    let read = 0;
    response.on("data", (chunk: Buffer) => {
      hash.update(chunk);
      const before = Math.floor(read / STEP);
      read += chunk.length;
      started.resolve();
      if (Math.floor(read / STEP) === before) return;
      response.pause();
      setTimeout(() => response.resume(), PAUSE_MS);
    });
    response.on("error", finished.reject);
    response.on("end", () => (response.complete ? finished.resolve(`sha256:${hash.digest("hex")}`) : finished.reject(new Error("cut"))));
  });
  return { started: started.promise, digest: finished.promise };
}

/** A body that takes seconds. */
async function* slowly(bytes: Buffer, onFirst: () => void): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += STEP) {
    yield new Uint8Array(bytes.subarray(offset, offset + STEP));
    onFirst();
    await delay(PAUSE_MS);
  }
}

test("running transfers end whole after SIGTERM; readiness fails first, then nobody new is let in; exit 0", async (t) => {
  const s = scope(t);
  const slipway = await startSlipway(s, {
    env: { ...(await sharedServices(s)), SLIPWAY_DRAIN_NOTICE_SECONDS: "1" },
    args: ["--role", "proxy", "--role", "api"],
  });
  const client = adminClient(slipway);
  const down = contentOf(randomBytes(SIZE));
  const up = contentOf(randomBytes(SIZE));
  await client.pushBlob("library/drain", down);
  const location = await client.location("library/drain");

  const download = slowDownload(slipway, `/v2/library/drain/blobs/${down.digest}`);
  const sending = Promise.withResolvers<void>();
  const upload = client.request(`${location}${location.includes("?") ? "&" : "?"}digest=${up.digest}`, {
    method: "PUT",
    body: ReadableStream.from(slowly(up.bytes, sending.resolve)),
    duplex: "half",
  });
  await Promise.all([download.started, sending.promise]);

  const stopped = slipway.stop("SIGTERM");
  const state = { transfersEnded: false };
  const transfers = Promise.all([download.digest, upload]).finally(() => {
    state.transfersEnded = true;
  });
  const notReady = await until("readiness fails while requests are still taken", async () => {
    const answer = await fetch(`${slipway.url}/health/ready`, { headers: { connection: "close" } });
    return answer.status === 503 ? ((await answer.json()) as { missing: string[] }) : undefined;
  });
  assert.deepEqual(notReady.missing, ["shutdown"]);
  await until("new connections are refused", async () => ((await accepts(portOf(slipway))) ? undefined : true));
  assert.equal(state.transfersEnded, false, "the transfers outlast the listener");

  const [digest, answer] = await transfers;
  assert.equal(digest, down.digest);
  assert.equal(answer.status, 201);
  assert.equal(answer.headers.get("docker-content-digest"), up.digest);
  assert.equal(await stopped, 0);
  assert.doesNotMatch(slipway.output(), /transfers were cut/);
});

test("what is not done when the time to drain is over is cut, said, and the exit is 0 all the same", async (t) => {
  const s = scope(t);
  const slipway = await startSlipway(s, {
    env: { ...(await sharedServices(s)), SLIPWAY_DRAIN_SECONDS: "1" },
    args: ["--role", "proxy"],
  });
  const client = adminClient(slipway);
  const blob = contentOf(randomBytes(SIZE));
  await client.pushBlob("library/cut", blob);
  const download = slowDownload(slipway, `/v2/library/cut/blobs/${blob.digest}`);
  const outcome = download.digest.then(
    () => "whole",
    () => "broken",
  );
  await download.started;
  assert.equal(await slipway.stop("SIGTERM"), 0);
  assert.equal(await outcome, "broken");
  assert.match(slipway.output(), /transfers were cut/);
});
