/** A target that limits, and one that is down for a while: what people see of a run meanwhile, in the whole program. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { fail } from "../support/fake-answers.ts";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import { eventually } from "../support/maintenance.ts";
import { basic } from "./support.ts";

interface Seen {
  readonly status: string;
  readonly failed: number;
  readonly tasks: readonly string[];
}

const DEFINITE = new Set(["Succeed", "Failed", "Stopped"]);

test("while a target limits or is away a run is in progress, and nothing of it is shown as failed", async (t) => {
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const line = await startFaultProxy(t, target);
  for (const tag of ["v1", "v2"]) source.putImage("team/app", tag);
  const slipway = await startSlipway(t, { env: await sharedServices(t), args: ["--role", "api", "--role", "replication"] });
  const call = async (method: string, path: string, body?: unknown): Promise<Response> => {
    const headers = { authorization: basic("admin", slipway.password), "content-type": "application/json" };
    const answer = await fetch(`${slipway.url}/api/v2.0${path}`, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
    return answer;
  };
  const made = async (path: string, body: unknown): Promise<number> =>
    Number(((await call("POST", path, body)).headers.get("location") ?? "").split("/").at(-1));
  const from = await made("/registries", { name: "from", type: "docker-registry", url: source.url });
  const to = await made("/registries", { name: "to", type: "docker-registry", url: line.url });
  const ends = { src_registry: { id: from }, dest_registry: { id: to } };
  const policy = await made("/replication/policies", {
    name: "app",
    ...ends,
    filters: [{ type: "name", value: "team/app" }],
    enabled: true,
  });
  const seen: Seen[] = [];
  const run = async (): Promise<Seen> => {
    const path = `/replication/executions/${await made("/replication/executions", { policy_id: policy })}`;
    return await eventually(
      "the run ends",
      async () => {
        const { status, failed } = (await (await call("GET", path)).json()) as Seen;
        const tasks = ((await (await call("GET", `${path}/tasks`)).json()) as { status: string }[]).map((task) => task.status);
        const look = { status, failed, tasks };
        seen.push(look);
        return DEFINITE.has(status) ? look : null;
      },
      90_000,
    );
  };

  const limited: number[] = [];
  target.on({ method: "POST", path: /uploads/, times: 2 }, (_request, response) => {
    limited.push(Date.now());
    response.setHeader("retry-after", "3");
    fail(response, 429, "TOOMANYREQUESTS");
  });
  assert.deepEqual(await run(), { status: "Succeed", failed: 0, tasks: ["Succeed"] });
  assert.ok(Date.now() - (limited.at(-1) ?? 0) >= 2_900, "it was left alone for as long as it said");

  source.putImage("team/app", "v3", [Buffer.from("one more layer")]);
  target.on({ method: "POST", path: /uploads/, times: 1 }, (request) => {
    line.set({ refuse: true });
    line.dropConnections();
    request.destroy();
    setTimeout(() => line.set({ refuse: false }), 4_000);
  });
  assert.deepEqual(await run(), { status: "Succeed", failed: 0, tasks: ["Succeed"] });
  assert.ok(seen.length > 10);
  assert.deepEqual(
    seen.filter(({ status, failed, tasks }) => status === "Failed" || failed > 0 || tasks.includes("Failed")),
    [],
  );
  assert.equal(target.repository("team/app").tags.size, 3);
});
