/** Replication over the real program: a client made for Harbor drives it unchanged, and REST alone in both directions, checked by crane. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startDockerRegistry } from "../support/docker-registry.ts";
import type { DockerRegistry } from "../support/docker-registry.ts";
import { FakeRegistry } from "../support/fake-registry.ts";
import { buildImage, buildIndex, sha256, writeLayout } from "../support/image.ts";
import { scope } from "../support/scope.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { missingTool, mustRun } from "../support/tools.ts";

/** Python with harborapi on its path; .ci/run installs it. */
const PYTHON = "harborapi-python";
const SCRIPT = fileURLToPath(new URL("./harborapi-replication.py", import.meta.url));
const files = scope({ after });
const missing = missingTool("docker-registry") || missingTool("crane");
const image = buildImage({ layers: 2, layerBytes: 50_000 });
const index = buildIndex([image, buildImage({ architecture: "arm64", layerBytes: 30_000 })]);
let source: DockerRegistry;
let target: DockerRegistry;
let multi: string;
let slipway: RunningSlipway;

before(async () => {
  if (missing) return;
  const folder = await tempDir(files);
  [source, target] = await Promise.all([startDockerRegistry(files), startDockerRegistry(files)]);
  await writeLayout(join(folder, "image"), image);
  process.env["DOCKER_CONFIG"] = join(folder, "crane");
  for (const name of ["team/app:v1", "team/app:v2", "team/app:latest", "other/app:v1"]) {
    await mustRun("crane", ["push", "--insecure", join(folder, "image"), `${source.host}/${name}`]);
  }
  await writeLayout(join(folder, "index"), index);
  await mustRun("crane", ["push", "--insecure", "--index", join(folder, "index"), `${source.host}/base/multi:1.0`]);
  multi = await digest(`${source.host}/base/multi:1.0`);
  slipway = await startSlipway(files, {
    env: await sharedServices(files),
    args: ["--role", "proxy", "--role", "api", "--role", "replication"],
  });
  // What replication creates is private where the source does not say otherwise.
  await mustRun("crane", ["auth", "login", slipway.host, "-u", "admin", "-p", slipway.password]);
});

test("harborapi makes a policy, starts it, waits for it, and reads tasks and logs", { skip: missing || missingTool(PYTHON) }, async () => {
  const output = await mustRun(PYTHON, [SCRIPT, source.url], {
    env: { HARBOR_URL: `${slipway.url}/api/v2.0`, HARBOR_USERNAME: "admin", HARBOR_PASSWORD: slipway.password },
  });
  const seen = JSON.parse(output) as Record<string, unknown>;
  const { logs, ...answers } = seen;
  assert.deepEqual(answers, {
    ping: "Pong",
    auth_mode: "db_auth",
    user: "admin",
    registry: "healthy",
    policy: ["harborapi-pull", "mirror", true, ["name", "tag"]],
    execution: ["Succeed", "manual", 1, 1, 0],
    listed: [true],
    tasks: [["Succeed", "copy", "image", "team/app [2 item(s) in total]", "mirror/app [2 item(s) in total]"]],
    disabled: [412, ["the policy 1 is disabled"]],
    left: [],
  });
  assert.match((logs as string[])[0] ?? "", /\[INFO\]/);
  for (const tag of ["v1", "v2"]) {
    const digest = await mustRun("crane", ["digest", "--insecure", `${slipway.host}/mirror/app:${tag}`]);
    assert.equal(digest.trim(), image.manifest.digest);
  }
});

interface Answer {
  readonly status: number;
  readonly location: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- a test looks into whatever was answered
  readonly json: any;
}

async function ask(method: string, path: string, body?: object): Promise<Answer> {
  const response = await fetch(`${slipway.url}${path.startsWith("/") ? path : `/api/v2.0/${path}`}`, {
    method,
    headers: {
      authorization: `Basic ${Buffer.from(`admin:${slipway.password}`).toString("base64")}`,
      ...(body ? { "content-type": "application/json" } : {}),
    },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.startsWith("application/json") === true;
  return { status: response.status, location: response.headers.get("location") ?? "", json: isJson ? JSON.parse(text) : text };
}

async function make(path: string, body: object): Promise<number> {
  const { status, location, json } = await ask("POST", path, body);
  assert.equal(status, 201, JSON.stringify(json));
  return Number(location.split("/").at(-1));
}

/** Starts and waits by the stream of events; the execution as it ended. */
async function run(policyId: number, extra: object = {}): Promise<Answer["json"]> {
  const id = await make("replication/executions", { policy_id: policyId, ...extra });
  const { json: events } = await ask("GET", `replication/executions/${id}/events`);
  assert.match(events, /event: end/);
  const { json } = await ask("GET", `replication/executions/${id}`);
  assert.ok(["Succeed", "Failed", "Stopped"].includes(json.status), json.status);
  return json;
}

async function digest(name: string): Promise<string> {
  return (await mustRun("crane", ["digest", "--insecure", name])).trim();
}

test("REST alone copies from a registry to ours and on to another one, byte for byte", { skip: missing }, async () => {
  const from = await make("registries", { name: "source", type: "docker-registry", url: source.url });
  const to = await make("registries", { name: "target", type: "docker-registry", url: target.url });
  const pull = await make("replication/policies", {
    name: "pull",
    src_registry: { id: from },
    dest_namespace: "pulled",
    dest_namespace_replace_count: 0,
    filters: [{ type: "name", value: "{base,team}/**" }],
    enabled: true,
    override: true,
  });

  const dry = await run(pull, { dry_run: true });
  assert.deepEqual([dry.status, dry.kind, dry.plan.copy, dry.plan.delete], ["Succeed", "dry-run", 4, 0]);
  assert.ok(dry.plan.bytes > 2 * 50_000);
  assert.deepEqual(dry.plan.repositories.map((one: { repository: string; copy: number }) => [one.repository, one.copy]).toSorted(), [
    ["pulled/base/multi", 1],
    ["pulled/team/app", 3],
  ]);
  assert.notEqual((await ask("GET", "/v2/pulled/team/app/tags/list")).status, 200, "a dry run copies nothing");

  const pulled = await run(pull);
  assert.deepEqual([pulled.status, pulled.status_text, pulled.progress.items.succeeded], ["Succeed", "", 4]);
  assert.deepEqual(
    pulled.destinations.map((one: { status: string; registry_name: string }) => [one.status, one.registry_name]),
    [["Succeed", "Local"]],
  );
  assert.equal(await digest(`${slipway.host}/pulled/team/app:v1`), image.manifest.digest);
  assert.equal(await digest(`${slipway.host}/pulled/base/multi:1.0`), multi);
  await mustRun("crane", ["validate", "--insecure", "--remote", `${slipway.host}/pulled/base/multi:1.0`]);

  const again = await run(pull);
  assert.deepEqual([again.status, again.total, again.progress.items.unchanged], ["Succeed", 0, 4], "what is there is only counted");

  const push = await make("replication/policies", {
    name: "push",
    dest_registry: { id: to },
    dest_namespace: "copies",
    dest_namespace_replace_count: 1,
    filters: [{ type: "name", value: "pulled/**" }],
    enabled: true,
  });
  const pushed = await run(push);
  assert.deepEqual([pushed.status, pushed.status_text], ["Succeed", ""]);
  const items = await ask("GET", `replication/executions/${pushed.id}/items?page_size=100`);
  assert.deepEqual(
    items.json.map((item: Record<string, string>) => `${item["dst_repository"]}:${item["tag"]} ${item["reason"]}`).toSorted(),
    ["copies/base/multi:1.0 copied", "copies/team/app:latest copied", "copies/team/app:v1 copied", "copies/team/app:v2 copied"],
  );
  assert.equal(await digest(`${target.host}/copies/base/multi:1.0`), multi);
  for (const name of ["copies/base/multi:1.0", "copies/team/app:v2"]) {
    await mustRun("crane", ["validate", "--insecure", "--remote", `${target.host}/${name}`]);
  }

  const metrics = (await ask("GET", "/metrics")).json as string;
  assert.match(metrics, /slipway_replication_runs_total\{policy="pull",outcome="succeeded"\} 2\n/);
  assert.match(metrics, /slipway_replication_bytes_total\{target="target"\} [1-9]/);
  const guide = await readFile(new URL("../../docs/operations.md", import.meta.url), "utf8");
  const named = new Set(guide.match(/slipway_replication_\w+/g));
  for (const name of named) assert.ok(metrics.includes(`# TYPE ${name} `), `the operator's guide names ${name}, which is not there`);
});

test("a retry does only what failed; a run that waits for its target is stopped at once", { skip: missing }, async () => {
  const flawed = await new FakeRegistry().start();
  files.after(() => flawed.stop());
  flawed.putImage("team/flawed", "good");
  const lost = Buffer.from("a layer that is not there yet");
  flawed.putImage("team/flawed", "bad", [lost]);
  const { blobs } = flawed.repository("team/flawed");
  blobs.delete(sha256(lost));
  const from = await make("registries", { name: "flawed", type: "docker-registry", url: flawed.url });
  const policy = await make("replication/policies", {
    name: "flawed",
    src_registry: { id: from },
    dest_namespace: "flawed",
    enabled: true,
  });
  const failed = await run(policy);
  assert.deepEqual([failed.status, failed.state], ["Failed", "Error"]);
  const items = await ask("GET", `replication/executions/${failed.id}/items?status=Failed`);
  assert.deepEqual(
    items.json.map((item: { tag: string }) => item.tag),
    ["bad"],
  );
  assert.equal(await digest(`${slipway.host}/flawed/flawed:good`), flawed.repository("team/flawed").tags.get("good"), "the rest went on");
  blobs.set(sha256(lost), lost);
  const retried = await ask("POST", `replication/executions/${failed.id}/retry`);
  assert.equal(retried.status, 201);
  const id = Number(retried.location.split("/").at(-1));
  assert.match((await ask("GET", `replication/executions/${id}/events`)).json, /event: end/);
  const { json } = await ask("GET", `replication/executions/${id}`);
  assert.deepEqual([json.status, json.retry_of, json.progress.items.total, json.progress.items.succeeded], ["Succeed", failed.id, 1, 1]);
  assert.equal(await digest(`${slipway.host}/flawed/flawed:bad`), flawed.repository("team/flawed").tags.get("bad"));

  await flawed.stop();
  const waiting = await make("replication/executions", { policy_id: policy });
  assert.equal((await ask("PUT", `replication/executions/${waiting}`)).status, 200);
  const stopped = await ask("GET", `replication/executions/${waiting}`);
  assert.deepEqual([stopped.json.status, stopped.json.in_progress], ["Stopped", 0]);
});

test("a run is slowed, paused and let go while it goes on", { skip: missing }, async () => {
  const large = buildImage({ layers: 1, layerBytes: 4_000_000 });
  const layout = await tempDir(files);
  await writeLayout(layout, large);
  await mustRun("crane", ["push", "--insecure", layout, `${source.host}/large/app:v1`]);
  const from = await make("registries", { name: "large", type: "docker-registry", url: source.url });
  const policy = await make("replication/policies", {
    name: "large",
    src_registry: { id: from },
    filters: [{ type: "name", value: "large/**" }],
    // 100 kB a second: it would take most of a minute.
    speed: 800,
    enabled: true,
  });
  const id = await make("replication/executions", { policy_id: policy });
  const until = async (found: (execution: Answer["json"]) => boolean): Promise<Answer["json"]> => {
    for (let look = 0; look < 300; look += 1) {
      const { json } = await ask("GET", `replication/executions/${id}`);
      if (found(json)) return json;
      await delay(100);
    }
    throw new Error("it did not come so far");
  };
  await until(({ state, progress }) => state === "Running" && progress.bytes_total > 0);
  assert.equal((await ask("POST", `replication/executions/${id}/pause`)).status, 200);
  const paused = await until(({ state }) => state === "Paused");
  assert.deepEqual([paused.status, paused.progress.seconds_left], ["InProgress", null]);
  assert.equal((await ask("PATCH", `replication/executions/${id}`, { speed: 0 })).status, 200);
  assert.equal((await ask("POST", `replication/executions/${id}/resume`)).status, 200);
  const ended = await until(({ status }) => status !== "InProgress");
  assert.deepEqual([ended.status, ended.speed, ended.progress.seconds_left], ["Succeed", 0, 0]);
  const took = Date.parse(ended.end_time) - Date.parse(ended.start_time);
  assert.ok(took < (large.layers[0]?.size ?? 0) / 100, `the new speed counted: ${took} ms`);
  assert.equal(await digest(`${slipway.host}/large/app:v1`), large.manifest.digest);
});
