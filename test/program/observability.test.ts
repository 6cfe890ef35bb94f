/** What an operator sees: log lines that tools can read and that name no secret, metrics, and readiness that names what is missing. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { OciClient, randomContent } from "../support/oci-client.ts";
import { scope } from "../support/scope.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { testNamespace } from "../support/temporal.ts";
import { findTool, runTool } from "../support/tools.ts";
import { adminClient, apiOf, basic, tokenFor, until } from "./support.ts";

interface Line extends Readonly<Record<string, unknown>> {
  readonly msg: string;
  readonly requestId?: string;
}

function linesOf(slipway: RunningSlipway): Line[] {
  return slipway
    .output()
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Line);
}

test("each request is one JSON line with its facts, and no line or metric shows a secret", async (t) => {
  const s = scope(t);
  const password = "Sup3r-secret-admin";
  const databasePassword = "Sup3r-secret-database";
  const shared = await sharedServices(s);
  const database = new URL(String(shared["SLIPWAY_DATABASE_URL"]));
  // The server of the tests trusts everybody; a password is there to be leaked.
  if (database.password === "") database.password = databasePassword;
  const slipway = await startSlipway(s, {
    env: { ...shared, SLIPWAY_DATABASE_URL: database.href, SLIPWAY_ADMIN_PASSWORD: password, SLIPWAY_LOG_LEVEL: "debug" },
    args: ["--role", "proxy", "--role", "api"],
  });
  const login = basic("admin", password);
  const client = adminClient(slipway);
  const blob = randomContent(100_000);
  await client.pushBlob("library/logged", blob);
  const manifest = await client.pushImage("library/logged", "v1");
  const token = await tokenFor(slipway, "repository:library/logged:pull,push", login);
  const pulled = await new OciClient(slipway.url, { authorization: `Bearer ${token}` }).request("/v2/library/logged/manifests/v1");
  await pulled.arrayBuffer();
  await (await client.request(`/v2/library/logged/blobs/${blob.digest}`)).arrayBuffer();

  const api = apiOf(slipway, login);
  const userPassword = "Sup3r-secret-user1";
  const added = await api("POST", "/users", { username: "dev", password: userPassword, email: "d@example.com", realname: "d" });
  assert.equal(added.status, 201);
  const robot = await api("POST", "/robots", {
    name: "ci",
    level: "system",
    duration: -1,
    permissions: [{ kind: "project", namespace: "library", access: [{ resource: "repository", action: "pull" }] }],
  });
  assert.equal(robot.status, 201, await robot.clone().text());
  const robotSecret = String(((await robot.json()) as { secret: string }).secret);
  const wrong = "Wr0ng-secret-typed";
  assert.equal((await client.request("/v2/", { headers: { authorization: basic("dev", wrong) } })).status, 401);
  const form = new URLSearchParams({ grant_type: "password", username: "dev", password: userPassword, service: "slipway", client_id: "t" });
  assert.equal((await fetch(`${slipway.url}/service/token`, { method: "POST", body: form })).status, 200);
  await fetch(`${slipway.url}/service/token?service=slipway&password=${userPassword}&refresh_token=${token}`);
  const oddName = `/v2/library/logged/manifests/${encodeURIComponent('v1"\n{')}`;
  const odd = await client.request(oddName);
  assert.ok(odd.status >= 400 && odd.status < 500);

  const metrics = await (await fetch(`${slipway.url}/metrics`)).text();
  const requestId = String(pulled.headers.get("x-request-id"));
  const line = await until("the line of the pull", () => linesOf(slipway).find((candidate) => candidate.requestId === requestId));
  assert.equal(line.msg, "request");
  assert.deepEqual(
    [line["method"], line["repository"], line["reference"], line["status"], line["bytes"]],
    ["GET", "library/logged", "v1", 200, manifest.bytes.length],
  );
  assert.equal(typeof line["durationMs"], "number");
  assert.ok(Number.isFinite(Date.parse(String(line["time"]))));
  const blobLine = await until("the line of the blob", () =>
    linesOf(slipway).find((candidate) => candidate["reference"] === blob.digest && candidate["method"] === "GET"),
  );
  assert.equal(blobLine["bytes"], blob.bytes.length);
  assert.ok(linesOf(slipway).some((candidate) => candidate["received"] === blob.bytes.length));

  assert.equal(await slipway.stop(), 0);
  for (const one of linesOf(slipway)) assert.ok(one["level"] && one["time"], JSON.stringify(one));
  const printed = slipway.output() + metrics;
  const secrets = { password, userPassword, wrong, robotSecret, token, databasePassword, key: String(shared["SLIPWAY_ENCRYPTION_KEY"]) };
  for (const [name, secret] of Object.entries(secrets)) assert.ok(!printed.includes(secret), `the ${name} was printed`);
  for (const encoded of [basic("admin", password), basic("dev", wrong)]) assert.ok(!printed.includes(encoded.slice(6)));
});

test("/metrics is valid and has series of requests, bytes, storage, database, cache and Temporal workers", async (t) => {
  const s = scope(t);
  // Workers of another program must not take this one's tasks.
  const { address, namespace } = await testNamespace(s);
  const env = { ...(await sharedServices(s)), TEMPORAL_ADDRESS: address, TEMPORAL_NAMESPACE: namespace };
  const slipway = await startSlipway(s, { env });
  await adminClient(slipway).pushImage("library/measured", "v1");
  await (await adminClient(slipway).request("/v2/library/measured/manifests/v1")).arrayBuffer();
  const text = await until(
    "the workers have series",
    async () => {
      const answer = await (await fetch(`${slipway.url}/metrics`)).text();
      return /^temporal_worker_task_slots_available\{/m.test(answer) ? answer : undefined;
    },
    60_000,
  );
  assertExposition(text);
  for (const series of [
    /^slipway_http_requests_total\{method="GET",route="manifest",status="200"\} [1-9]/m,
    /^slipway_http_sent_bytes_total\{method="GET",route="manifest"\} [1-9]/m,
    /^slipway_http_received_bytes_total\{method="POST",route="\w+"\} [1-9]/m,
    /^slipway_http_request_seconds_bucket\{/m,
    /^slipway_storage_operations_total\{operation="\w+",outcome="done"\} [1-9]/m,
    /^slipway_storage_written_bytes_total [1-9]/m,
    /^slipway_database_connections\{state="idle"\} /m,
    /^slipway_database_statements_total [1-9]/m,
    /^slipway_catalog_cache_hits_total\{cache="manifests"\} /m,
    /^slipway_auth_passwords_verifications_total [1-9]/m,
    /^temporal_worker_task_slots_available\{/m,
    /^slipway_refresh_queue_depth \d/m,
    /^slipway_refresh_lag_seconds_count \d/m,
    /^slipway_process_resident_memory_bytes [1-9]/m,
  ]) {
    assert.ok(series.test(text), `no series ${String(series)}`);
  }
  if (findTool("promtool")) {
    const checked = await runTool("promtool", ["check", "metrics"], { input: text });
    assert.notEqual(checked.code, 1, checked.stderr);
  } else {
    console.error("MISSING TOOL: promtool is not installed; only our own check of the format ran");
  }
});

const SAMPLE = /^([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*\})? (?:[+-]?Inf|NaN|[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)$/i;

/** The text format: each sample well formed, once, below its one TYPE, the families unbroken. */
function assertExposition(text: string): void {
  const types = new Map<string, string>();
  const seen = new Set<string>();
  let family = "";
  for (const line of text.split("\n")) {
    const [, kind, name = "", rest = ""] = /^# (HELP|TYPE) (\S+) ?(.*)$/.exec(line) ?? [];
    if (kind === "TYPE") {
      assert.ok(!types.has(name), `two TYPE lines for ${name}`);
      types.set(name, rest);
      family = name;
    } else if (line !== "" && kind === undefined) {
      const [, sample = ""] = SAMPLE.exec(line) ?? assert.fail(`no sample: ${line}`);
      const base = types.get(family) === "histogram" ? sample.replace(/_(bucket|sum|count)$/, "") : sample;
      assert.equal(base, family, `${line} stands below ${family}`);
      const key = line.slice(0, line.lastIndexOf(" "));
      assert.ok(!seen.has(key), `twice: ${key}`);
      seen.add(key);
    }
  }
}

test("readiness names what a process needs and does not have; a process that serves requests does without Temporal", async (t) => {
  const s = scope(t);
  const shared = await sharedServices(s);
  const nowhere = await startFaultProxy(s, { port: 9 });
  nowhere.set({ refuse: true });
  const env = { ...shared, TEMPORAL_ADDRESS: `127.0.0.1:${nowhere.port}` };
  const serving = await startSlipway(s, { env, args: ["--role", "proxy", "--role", "api"] });
  const health = (await (await fetch(`${serving.url}/health`)).json()) as { components: { name: string; status: string }[] };
  assert.equal(health.components.find(({ name }) => name === "temporal")?.status, "unhealthy");
  // What was just asked would be answered from memory.
  await delay(1_100);
  assert.equal((await fetch(`${serving.url}/health/ready`, { signal: AbortSignal.timeout(1_500) })).status, 200, "in time for a probe");
  await adminClient(serving).pushImage("library/plain", "v1");

  const worker = await startSlipway(s, { env, args: ["--role", "maintenance"], waitReady: false });
  const report = await until("the worker answers", async () => {
    const answer = await fetch(`${worker.url}/health/ready`).catch(() => null);
    return answer?.status === 503 ? ((await answer.json()) as { missing: string[] }) : undefined;
  });
  assert.ok(report.missing.includes("temporal") && report.missing.includes("workers"), JSON.stringify(report));
  assert.equal((await fetch(`${worker.url}/health/live`)).status, 200);
  assert.equal(await worker.stop(), 0, worker.output());
});
