/** The whole way of a scheduled policy: saved over REST, ticked by Temporal, run by the replication role, removed with the policy. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isSlipwayError } from "../../src/core/errors.ts";
import { scheduleIds } from "../../src/temporal/ids.ts";
import { FakeRegistry } from "../support/fake-registry.ts";
import { eventually } from "../support/maintenance.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import { testNamespace } from "../support/temporal.ts";

test("a policy runs when its schedule ticks", async (t) => {
  const { address, namespace, temporal } = await testNamespace(t);
  const source = await new FakeRegistry({}).start();
  t.after(() => source.stop());
  const env = { ...(await sharedServices(t)), TEMPORAL_ADDRESS: address, TEMPORAL_NAMESPACE: namespace };
  const slipway = await startSlipway(t, { env });
  const authorization = `Basic ${Buffer.from(`admin:${slipway.password}`).toString("base64")}`;
  const call = async (method: string, path: string, body?: object): Promise<Response> =>
    await fetch(`${slipway.url}/api/v2.0${path}`, {
      method,
      headers: { authorization, "content-type": "application/json" },
      body: body === undefined ? null : JSON.stringify(body),
    });
  const make = async (path: string, body: object): Promise<number> => {
    const answer = await call("POST", path, body);
    assert.equal(answer.status, 201, await answer.text());
    return Number(answer.headers.get("location")?.split("/").at(-1));
  };
  const registry = await make("/registries", { name: "source", type: "docker-registry", url: source.url });
  const trigger = { type: "scheduled", trigger_settings: { cron: "0 0 3 1 1 *" } };
  const policy = await make("/replication/policies", { name: "yearly", src_registry: { id: registry }, trigger, enabled: true });

  const scheduleId = scheduleIds.replication(policy);
  await temporal.call((client) => client.schedule.getHandle(scheduleId).trigger());
  const [execution] = await eventually(
    "the run has ended",
    async () => {
      const answer = await call("GET", `/replication/executions?policy_id=${policy}`);
      const executions = (await answer.json()) as { status: string; trigger: string }[];
      return executions.some(({ status }) => status !== "InProgress") && executions;
    },
    150_000,
  );
  assert.deepEqual([execution?.trigger, execution?.status], ["scheduled", "Succeed"]);

  assert.equal((await call("DELETE", `/replication/policies/${policy}`)).status, 200);
  await assert.rejects(
    temporal.call((client) => client.schedule.getHandle(scheduleId).describe()),
    (error) => isSlipwayError(error, "NOT_FOUND"),
  );
});
