/** A stop, a kill and a new start with the embedded services: nothing that was pushed is lost, and nothing is left running. */
import assert from "node:assert/strict";
import { readFile, stat } from "node:fs/promises";
import { test } from "node:test";
import { readRunFile } from "../../src/embedded/run-file.ts";
import { randomContent } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { startSlipway } from "../support/slipway.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { adminClient, embeddedEnv, isAlive, until } from "./support.ts";

const NO_PASSWORD = { SLIPWAY_ADMIN_PASSWORD: "" };

function childPids(dataDir: string): number[] {
  return (readRunFile(dataDir)?.children ?? []).map(({ pid }) => pid);
}

async function assertHolds(slipway: RunningSlipway, password: string, expected: ReadonlyMap<string, string>): Promise<void> {
  const client = adminClient(slipway, password);
  for (const [path, digest] of expected) {
    const answer = await client.request(path);
    assert.equal(answer.status, 200, path);
    assert.equal(answer.headers.get("docker-content-digest"), digest);
    await answer.arrayBuffer();
  }
}

test("content and admin password outlive SIGTERM and kill -9 of the program with its embedded services", async (t) => {
  const s = scope(t);
  const dataDir = await tempDir(s, "slipway-restart-");
  const env = { ...embeddedEnv(), ...NO_PASSWORD };
  const first = await startSlipway(s, { dataDir, env });
  const printed = /password (\S+) \(kept in (\S+)\)/.exec(first.output());
  assert.ok(printed, "the first start prints the password that it made");
  const [, password = "", file = ""] = printed;
  assert.equal((await readFile(file, "utf8")).trim(), password);
  assert.equal((await stat(file)).mode & 0o777, 0o600);

  const blob = randomContent(300_000);
  const client = adminClient(first, password);
  await client.pushBlob("library/kept", blob);
  const manifest = await client.pushImage("library/kept", "v1");
  const expected = new Map([
    [`/v2/library/kept/blobs/${blob.digest}`, blob.digest],
    ["/v2/library/kept/manifests/v1", manifest.digest],
  ]);
  const before = childPids(first.dataDir);
  assert.ok(before.length > 0);
  assert.equal(await first.stop("SIGTERM"), 0);
  assert.deepEqual(before.filter(isAlive), [], "a stop leaves no child");

  const second = await startSlipway(s, { dataDir, env });
  assert.doesNotMatch(second.output(), new RegExp(password.replaceAll(/\W/g, "\\$&")));
  await assertHolds(second, password, expected);
  const later = await adminClient(second, password).pushImage("library/kept", "v2");
  expected.set("/v2/library/kept/manifests/v2", later.digest);
  const killed = childPids(second.dataDir);
  assert.equal(await second.stop("SIGKILL"), null);

  // At once: the children of the killed one may still be ending.
  const third = await startSlipway(s, { dataDir, env });
  await assertHolds(third, password, expected);
  await until("the children of the killed program end", () => (killed.some(isAlive) ? undefined : true));
  await adminClient(third, password).pushImage("library/kept", "v3");
  assert.equal(await third.stop("SIGINT"), 0);
});
