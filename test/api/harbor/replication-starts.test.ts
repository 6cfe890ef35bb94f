import assert from "node:assert/strict";
import { test } from "node:test";
import { workflowIds } from "../../../src/temporal/ids.ts";
import type { Answer, TestApi } from "../../support/auth.ts";
import { addPolicy, drafts, EXECUTIONS, startReplicationApi } from "../../support/replication-api.ts";
import { testNamespace } from "../../support/temporal.ts";

test("replication is started, steered and tried again", async (t) => {
  const { temporal } = await testNamespace(t);
  const { api, database, replication } = await startReplicationApi(t, { temporal });
  const { executions } = replication;
  const policy = await addPolicy(database, "nightly");
  const disabled = await addPolicy(database, "off", { enabled: false });
  const start = (body: unknown, query = ""): ReturnType<TestApi["request"]> =>
    api.request("POST", `${EXECUTIONS}${query}`, { as: "root", body });
  const idOf = ({ headers }: { headers: Headers }): number =>
    Number(/^\/api\/v2\.0\/replication\/executions\/(\d+)$/.exec(headers.get("location") ?? "")?.[1]);
  const show = async (id: number): Promise<Answer["json"]> => (await api.request("GET", `${EXECUTIONS}/${id}`, { as: "root" })).json;

  /** Started, and taken up as its workflow would do it. */
  async function running(): Promise<number> {
    const id = idOf(await start({ policy_id: policy }));
    const workflowId = workflowIds.replicationRun(policy, id);
    const { runId } = await temporal.call((client) => client.workflow.getHandle(workflowId).describe());
    assert.ok(await executions.adopt(id, { workflowId, runId }));
    return id;
  }

  await t.test("with Harbor's answers", async () => {
    const started = await start({ policy_id: policy });
    assert.deepEqual([started.status, started.text], [201, ""]);
    const { trigger, operator, kind, state } = await show(idOf(started));
    assert.deepEqual([trigger, operator, kind, state], ["manual", "root", "copy", "Pending"]);
    assert.equal((await show(idOf(await start({ policy_id: policy }, "?trigger=scheduled")))).trigger, "scheduled");
    const texts = [];
    for (const body of [{ policy_id: 4711 }, {}, { policy_id: disabled }, { policy_id: "x" }]) {
      const answer = await start(body);
      texts.push(`${answer.status} ${answer.json.errors[0].message.split(":")[0]}`);
    }
    assert.deepEqual(texts, [
      "404 replication policy 4711 not found",
      "404 replication policy 0 not found",
      `412 the policy ${disabled} is disabled`,
      "400 invalid body at policy_id",
    ]);
    assert.equal((await start("{")).status, 400);
    assert.equal((await api.request("POST", EXECUTIONS, { as: "root" })).status, 422);
  });

  await t.test("as a dry run, an audit, or with force", async () => {
    const dry = await show(idOf(await start({ policy_id: policy, dry_run: true })));
    assert.deepEqual([dry.kind, dry.plan], ["dry-run", { bytes: 0, copy: 0, delete: 0, repositories: [], truncated: false, unchanged: 0 }]);
    assert.equal((await show(idOf(await start({ policy_id: policy, audit: true })))).kind, "audit");
    assert.equal((await show(idOf(await start({ policy_id: policy, force: true })))).force, true);
    assert.equal((await start({ policy_id: policy, dry_run: true, audit: true })).status, 400);
    assert.equal((await start({ policy_id: disabled, dry_run: true })).status, 201, "a disabled policy can be tried");
  });

  await t.test("is paused, resumed, slowed and stopped only while it has not ended", async () => {
    const waiting = idOf(await start({ policy_id: policy }));
    const id = await running();
    const act = async (method: string, path: string, body?: object): Promise<string> => {
      const answer = await api.request(method, `${EXECUTIONS}/${path}`, { as: "root", ...(body ? { body } : {}) });
      return `${answer.status} ${answer.json?.errors[0].message ?? answer.text}`;
    };
    assert.equal(await act("POST", `${waiting}/pause`), `412 the execution ${waiting} has not begun yet`);
    assert.equal(await act("POST", `${id}/retry`), `412 the execution ${id} is still in progress`);
    assert.equal(await act("POST", `${id}/pause`), "200 ");
    assert.deepEqual([(await show(id)).state, (await show(id)).status], ["Paused", "InProgress"]);
    assert.equal(await act("POST", `${id}/resume`), "200 ");
    assert.equal((await show(id)).state, "Running");
    const speeds: unknown[] = [];
    for (const speed of [128, -1, null]) {
      assert.equal(await act("PATCH", String(id), { speed }), "200 ");
      speeds.push((await show(id)).speed);
    }
    assert.deepEqual(speeds, [128, 0, undefined]);
    for (const body of [{}, { speed: "fast" }, { speed: 1.5 }]) assert.match(await act("PATCH", String(id), body), /^400 /);
    assert.equal(await act("PUT", String(id)), "200 ");
    assert.equal(await act("PUT", String(id)), "200 ", "what has ended is stopped without an error");
    const stopped = await show(id);
    assert.deepEqual([stopped.status, stopped.status_text], ["Stopped", "stopped by root"]);
    for (const path of ["pause", "resume"]) assert.equal(await act("POST", `${id}/${path}`), `412 the execution ${id} has ended`);
    assert.equal(await act("PATCH", String(id), { speed: 1 }), `412 the execution ${id} has ended`);
  });

  await t.test("is tried again with what failed", async () => {
    const id = await running();
    await replication.items.plan(id, drafts);
    await database.query("UPDATE tasks SET status = 'Error', started_at = now(), ended_at = now() WHERE execution_id = $1", [id]);
    await database.query("UPDATE replication_items SET status = 'Error' WHERE execution_id = $1", [id]);
    await executions.completePlanning(id);
    await executions.settle([id]);
    assert.equal((await show(id)).status, "Failed");
    const again = await api.request("POST", `${EXECUTIONS}/${id}/retry`, { as: "root" });
    assert.equal(again.status, 201);
    assert.equal((await show(idOf(again))).retry_of, id);
    const done = await running();
    await executions.completePlanning(done);
    const nothing = await api.request("POST", `${EXECUTIONS}/${done}/retry`, { as: "root" });
    assert.deepEqual([nothing.status, nothing.json.errors[0].message], [412, `the execution ${done} has nothing to retry`]);
  });

  await t.test("is skipped, naming the run that is active, where the policy wants one at a time", async () => {
    await database.query("UPDATE replication_policies SET single_active_replication = true, overlap = 'skip' WHERE id = $1", [policy]);
    const active = idOf(await start({ policy_id: policy }));
    const second = await start({ policy_id: policy });
    assert.equal(second.status, 201);
    const { status, state, status_text: text, active_execution: named } = await show(idOf(second));
    assert.deepEqual([status, state, named], ["Stopped", "Skipped", active]);
    assert.equal(text, "Execution skipped: active replication still in progress.");
  });

  await t.test("shows where the run is to be seen", async () => {
    const { id } = await executions.create({ vendor: "REPLICATION", vendorId: policy, trigger: "event" });
    await executions.adopt(id, { workflowId: `replication/${policy}`, runId: "r1" });
    const { workflow_url: url, trigger, status, state, planned } = await show(id);
    assert.equal(url, `http://temporal.example.com/namespaces/${temporal.namespace}/workflows/replication%2F${policy}/r1`);
    assert.deepEqual([trigger, status, state, planned], ["event_based", "InProgress", "Running", false]);
  });
});

test("a start is kept, and says so, while the workflow service is away", async (t) => {
  const { api, database, replication } = await startReplicationApi(t);
  const policy = await addPolicy(database, "nightly");
  const refused = await api.request("POST", EXECUTIONS, { as: "root", body: { policy_id: policy } });
  assert.equal(refused.status, 503);
  assert.ok(Number(refused.headers.get("retry-after")) > 0);
  const location = refused.headers.get("location") ?? "";
  const kept = await api.request("GET", location, { as: "root" });
  assert.equal(kept.json.state, "Pending");
  assert.equal(
    refused.json.errors[0].message,
    `the workflow service is not available: execution ${kept.json.id} is kept and starts when it is back`,
  );
  const stopped = await api.request("PUT", location, { as: "root" });
  assert.equal(stopped.status, 200, "what has not begun is stopped without the service");
  assert.equal((await api.request("GET", location, { as: "root" })).json.status, "Stopped");

  const { id: running } = await replication.executions.create({ vendor: "REPLICATION", vendorId: policy, trigger: "manual" });
  await replication.runs.create({ executionId: running, policyId: policy, kind: "copy" });
  await replication.executions.adopt(running, { workflowId: `replication/${policy}`, runId: "run" });
  const paused = await api.request("POST", `${EXECUTIONS}/${running}/pause`, { as: "root" });
  assert.equal(paused.status, 503);
  assert.ok(Number(paused.headers.get("retry-after")) > 0);
  assert.match(paused.json.errors[0].message, /^the workflow service is not available: execution \d+ stays as it is; pause it when/);
  assert.equal((await api.request("GET", `${EXECUTIONS}/${running}`, { as: "root" })).json.state, "Running");
});
