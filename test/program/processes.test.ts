/** Several processes on one port: they agree on every change, and a dead one comes back. */
import assert from "node:assert/strict";
import http from "node:http";
import { test } from "node:test";
import { OCI_IMAGE } from "../support/oci-client.ts";
import { readRunFile } from "../../src/embedded/run-file.ts";
import { scope } from "../support/scope.ts";
import { freePort, sharedServices, startSlipway } from "../support/slipway.ts";
import type { RunningSlipway } from "../support/slipway.ts";
import { adminClient, apiOf, basic, isAlive, tokenFor, until } from "./support.ts";

interface Answer {
  readonly status: number;
  readonly digest: string | undefined;
  /** The part of the request id that names the process. */
  readonly process: string;
}

/** One request on a connection of its own, or of the agent. */
function ask(slipway: RunningSlipway, path: string, options: { login: string; agent?: http.Agent; method?: string }): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { login, agent, method } = options;
    const request = http.request(`${slipway.url}${path}`, {
      agent: agent ?? false,
      method: method ?? "GET",
      headers: { authorization: login, accept: OCI_IMAGE },
    });
    request.on("error", reject);
    request.on("response", (response) => {
      response.resume();
      response.on("error", reject);
      response.on("end", () => {
        resolve({
          status: response.statusCode ?? 0,
          digest: response.headers["docker-content-digest"] as string | undefined,
          process: String(response.headers["x-request-id"]).split("-")[0] ?? "",
        });
      });
    });
    request.end();
  });
}

/** One warm connection to each process. */
async function connections(slipway: RunningSlipway, count: number): Promise<Map<string, http.Agent>> {
  const found = new Map<string, http.Agent>();
  return until(`connections reach ${count} processes`, async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const { process } = await ask(slipway, "/v2/", { login: basic("admin", slipway.password), agent });
    if (found.has(process)) agent.destroy();
    else found.set(process, agent);
    return found.size === count ? found : undefined;
  }).catch((error: Error) => {
    throw new Error(`${error.message}\n${slipway.output().slice(-4_000)}`);
  });
}

test("two processes on one port: what one changes holds for the next request to the other", async (t) => {
  const s = scope(t);
  const slipway = await startSlipway(s, {
    env: { ...(await sharedServices(s)), SLIPWAY_PROXY_PROCESSES: "2" },
    args: ["--role", "proxy", "--role", "api"],
  });
  const agents = [...(await connections(slipway, 2)).values()];
  s.after(() => agents.forEach((agent) => agent.destroy()));
  const [a, b] = agents;
  assert.ok(a && b);
  const admin = basic("admin", slipway.password);
  const client = adminClient(slipway);
  const api = apiOf(slipway, admin);
  const path = "/v2/library/moving/manifests/latest";

  const images = [await client.pushImage("library/moving", "one"), await client.pushImage("library/moving", "two")];
  for (let round = 0; round < 20; round += 1) {
    const image = images[round % 2];
    assert.ok(image);
    const moved = await client.putManifest("library/moving", "latest", image.bytes);
    assert.equal(moved.status, 201);
    await moved.arrayBuffer();
    const answers = await Promise.all(agents.flatMap((agent) => [1, 2, 3].map(() => ask(slipway, path, { login: admin, agent }))));
    for (const answer of answers) assert.equal(answer.digest, image.digest, `round ${round}`);
    const fresh = await Promise.all(Array.from({ length: 8 }, () => ask(slipway, path, { login: admin })));
    for (const answer of fresh) assert.equal(answer.digest, image.digest, `round ${round}, new connections`);
  }

  for (let round = 0; round < 6; round += 1) {
    const remover: http.Agent = round % 2 === 0 ? a : b;
    const image = await client.pushImage("library/gone", "latest");
    const where = `/v2/library/gone/manifests/${image.digest}`;
    for (const agent of agents) assert.equal((await ask(slipway, where, { login: admin, agent })).status, 200);
    assert.equal((await ask(slipway, where, { login: admin, agent: remover, method: "DELETE" })).status, 202);
    for (const agent of agents) {
      assert.equal((await ask(slipway, where, { login: admin, agent })).status, 404);
      assert.equal((await ask(slipway, "/v2/library/gone/manifests/latest", { login: admin, agent })).status, 404);
    }
  }

  const project = await api("POST", "/projects", { project_name: "team", metadata: { public: "false" } });
  assert.equal(project.status, 201);
  const secret = await client.pushImage("team/app", "v1");
  const where = `/v2/team/app/manifests/${secret.digest}`;
  const user = await api("POST", "/users", { username: "dev", password: "Dev-password-1", email: "dev@example.com", realname: "dev" });
  assert.equal(user.status, 201);
  const userId = Number(user.headers.get("location")?.split("/").at(-1));
  const dev = basic("dev", "Dev-password-1");
  for (let round = 0; round < 4; round += 1) {
    const added = await api("POST", "/projects/team/members", { role_id: 2, member_user: { username: "dev" } });
    assert.equal(added.status, 201, await added.text());
    const token = `Bearer ${await tokenFor(slipway, "repository:team/app:pull", dev)}`;
    for (const agent of agents) {
      for (const login of [dev, token]) assert.equal((await ask(slipway, where, { login, agent })).status, 200);
    }
    const removed = await api("DELETE", String(added.headers.get("location")).replace("/api/v2.0", ""));
    assert.equal(removed.status, 200);
    for (const agent of agents) {
      for (const login of [dev, token]) assert.equal((await ask(slipway, where, { login, agent })).status, 403);
    }
  }
  const token = `Bearer ${await tokenFor(slipway, "repository:library/moving:pull", dev)}`;
  for (const agent of agents) for (const login of [dev, token]) assert.equal((await ask(slipway, path, { login, agent })).status, 200);
  assert.equal((await api("DELETE", `/users/${userId}`)).status, 200);
  for (const agent of agents) for (const login of [dev, token]) assert.equal((await ask(slipway, path, { login, agent })).status, 401);
});

test("a member that was killed comes back, and the other serves meanwhile", async (t) => {
  const s = scope(t);
  // No roles: the leader owns the folder, whose run.json names the members.
  const env = {
    ...(await sharedServices(s)),
    // Nobody answers there: workers are not the point, and their start costs seconds.
    TEMPORAL_ADDRESS: "127.0.0.1:9",
    SLIPWAY_PROXY_PROCESSES: "2",
    SLIPWAY_PORT: String(await freePort()),
  };
  const slipway = await startSlipway(s, { env });
  const login = basic("admin", slipway.password);
  const before = await connections(slipway, 2);
  for (const agent of before.values()) agent.destroy();
  const pids = memberPids(slipway);
  assert.equal(pids.length, 1);
  const [pid = 0] = pids;
  process.kill(pid, "SIGKILL");
  // A connection that was waiting in the dead one's queue breaks; clients try again.
  await until("the other serves", async () => {
    const answer = await ask(slipway, "/v2/", { login }).catch(() => null);
    return answer?.status === 200 ? true : undefined;
  });
  await until("it is started again", () => {
    const now = memberPids(slipway);
    return now.length === 1 && now[0] !== pid && isAlive(now[0] ?? 0) ? true : undefined;
  });
  const after = await connections(slipway, 2);
  for (const agent of after.values()) agent.destroy();
  assert.equal([...after.keys()].filter((name) => before.has(name)).length, 1, "one process is new");

  // The leader's death must leave nobody on the port who blocks the next start.
  const orphans = memberPids(slipway);
  await slipway.stop("SIGKILL");
  const again = await startSlipway(s, { dataDir: slipway.dataDir, env });
  await until("the members of the killed leader end", () => (orphans.some(isAlive) ? undefined : true));
  assert.equal((await connections(again, 2)).size, 2);
  assert.equal(await again.stop(), 0);
});

function memberPids(slipway: RunningSlipway): number[] {
  const children = readRunFile(slipway.dataDir)?.children ?? [];
  return children.flatMap(({ name, pid }) => (name.startsWith("proxy-") ? [pid] : []));
}
