import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { createExecutionsRouter } from "../../../api/harbor/replication/executions.ts";
import type { ReplicationServices } from "../../../api/harbor/replication/services.ts";
import type { Database } from "../../../src/db/pool.ts";
import { basic } from "../../support/auth.ts";
import type { TestApi } from "../../support/auth.ts";
import { loadOpenApi, routesOf } from "../../support/openapi.ts";
import { addPolicy, drafts, EXECUTIONS, startReplicationApi } from "../../support/replication-api.ts";

/** Harbor's own fields of an execution and a task; what else there is, is ours. */
const HARBOR_EXECUTION = new Set(
  "end_time failed id in_progress policy_id start_time status status_text stopped succeed total trigger".split(" "),
);
const HARBOR_TASK = new Set(
  "dst_resource end_time execution_id id job_id operation resource_type src_resource start_time status".split(" "),
);

async function golden(name: string): Promise<string> {
  return JSON.stringify(JSON.parse(await readFile(new URL(`./golden/${name}.json`, import.meta.url), "utf8")));
}

/** The bytes that are left when our further fields are taken out, so the order counts. */
function harborBytes(text: string, names: ReadonlySet<string>): string {
  const strip = (value: object): object => Object.fromEntries(Object.entries(value).filter(([name]) => names.has(name)));
  const value = JSON.parse(text) as object | object[];
  return JSON.stringify(Array.isArray(value) ? value.map(strip) : strip(value));
}

/** One execution in each state, with ids and times that are known. */
async function addStates(database: Database, policyId: number): Promise<void> {
  const states = ["Pending", "Running", "Paused", "Stopped", "Error", "Success", "Skipped"];
  const triggers = ["manual", "scheduled", "event"];
  for (const [index, state] of states.entries()) {
    const ended = ["Stopped", "Error", "Success", "Skipped"].includes(state);
    const neverRan = state === "Pending" || state === "Skipped";
    await database.query(
      `INSERT INTO executions (id, vendor, vendor_id, status, status_message, trigger, created_at, started_at, ended_at, planned_at,
              tasks_total, tasks_pending, tasks_running, tasks_waiting, tasks_failed, tasks_stopped, tasks_succeeded)
       OVERRIDING SYSTEM VALUE VALUES ($1, 'REPLICATION', $2, $3, $4, $5, $6, $7, $8, $8, $9, $10, $10, $10, $11, $12, $13)`,
      [
        101 + index,
        policyId,
        state,
        state === "Skipped" ? "Execution skipped: active replication still in progress." : state === "Error" ? "2 tasks failed" : "",
        triggers[index % 3],
        new Date(Date.UTC(2026, 10, 1 + index, 12, 0, 0, 5)),
        neverRan ? null : new Date(Date.UTC(2026, 10, 1 + index, 12, 0, 1, 250)),
        ended ? new Date(Date.UTC(2026, 10, 1 + index, 13)) : null,
        neverRan ? 0 : 6,
        state === "Running" ? 1 : 0,
        state === "Error" ? 2 : 0,
        state === "Stopped" ? 1 : 0,
        neverRan ? 0 : 3,
      ],
    );
    await database.query("INSERT INTO replication_runs (execution_id, policy_id) VALUES ($1, $2)", [101 + index, policyId]);
  }
}

async function listed(api: TestApi, query: string): Promise<number[]> {
  const answer = await api.request("GET", `${EXECUTIONS}?${query}`, { as: "root" });
  assert.equal(answer.status, 200, answer.text);
  return answer.json.map((one: { id: number }) => one.id);
}

test("executions of replication, as Harbor shows them", async (t) => {
  const { api, database } = await startReplicationApi(t);
  const policy = await addPolicy(database, "nightly");
  await addStates(database, policy);
  await database.query("INSERT INTO executions (vendor) VALUES ('GARBAGE_COLLECTION')");

  await t.test("are byte for byte what Harbor writes, with further fields of ours", async () => {
    const list = await api.request("GET", `${EXECUTIONS}?page_size=100`, { as: "root" });
    assert.equal(harborBytes(list.text, HARBOR_EXECUTION), await golden("replication-executions"));
    assert.equal(list.headers.get("x-total-count"), "7");
    assert.deepEqual(
      list.json.map(({ state }: { state: string }) => state),
      ["Skipped", "Success", "Error", "Stopped", "Paused", "Running", "Pending"],
    );
    for (const { id } of list.json.slice(0, 3)) {
      const one = await api.request("GET", `${EXECUTIONS}/${id}`, { as: "root" });
      assert.equal(
        harborBytes(one.text, HARBOR_EXECUTION),
        harborBytes(JSON.stringify(list.json.find((each: { id: number }) => each.id === id)), HARBOR_EXECUTION),
      );
      assert.deepEqual(Object.keys(one.json), Object.keys(one.json).toSorted());
    }
    assert.equal((await api.request("GET", `${EXECUTIONS}?policy_id=77`, { as: "root" })).text, "[]");
  });

  await t.test("are found by policy, state and trigger in all words that mean them", async () => {
    assert.deepEqual(await listed(api, "status=InProgress"), [103, 102, 101]);
    assert.deepEqual(await listed(api, "status=Succeed"), [106]);
    assert.deepEqual(await listed(api, "status=Failed"), [105]);
    assert.deepEqual(await listed(api, "status=Stopped"), [107, 104]);
    assert.deepEqual(await listed(api, "status=Skipped"), [107]);
    assert.deepEqual(await listed(api, "status=Running"), [102]);
    assert.deepEqual(await listed(api, "status=Nonsense"), []);
    assert.deepEqual(await listed(api, "trigger=event_based"), [106, 103]);
    assert.deepEqual(await listed(api, "trigger=SCHEDULE"), [105, 102]);
    assert.deepEqual(await listed(api, `policy_id=${policy}&trigger=manual&status=Stopped`), [107, 104]);
    assert.deepEqual(await listed(api, "policy_id=0"), []);
  });

  await t.test("come in pages and in the order that is asked for", async () => {
    const second = await api.request("GET", `${EXECUTIONS}?page=2&page_size=3&policy_id=${policy}`, { as: "root" });
    assert.deepEqual(
      second.json.map(({ id }: { id: number }) => id),
      [104, 103, 102],
    );
    const link = `</api/v2.0/replication/executions?page=1&page_size=3&policy_id=${policy}>; rel="prev" , </api/v2.0/replication/executions?page=3&page_size=3&policy_id=${policy}>; rel="next"`;
    assert.equal(second.headers.get("link"), link);
    assert.deepEqual(await listed(api, "sort=id"), [101, 102, 103, 104, 105, 106, 107]);
    assert.deepEqual(await listed(api, "sort=-trigger,start_time&page_size=2"), [102, 105]);
    assert.deepEqual(await listed(api, "sort=password,StartTime&page_size=1"), [101]);
    for (const [query, status] of [
      ["page_size=101", 422],
      ["page_size=x", 422],
      ["policy_id=x", 422],
    ] as const) {
      assert.equal((await api.request("GET", `${EXECUTIONS}?${query}`, { as: "root" })).status, status, query);
    }
  });

  await t.test("that do not exist, or are no replication, are 404", async () => {
    for (const [method, path] of [
      ["GET", ""],
      ["PUT", ""],
      ["GET", "/tasks"],
      ["GET", "/items"],
      ["GET", "/log"],
      ["GET", "/events"],
      ["GET", "/tasks/1/log"],
      ["POST", "/retry"],
      ["POST", "/pause"],
      ["POST", "/resume"],
    ] as const) {
      const answer = await api.request(method, `${EXECUTIONS}/999${path}`, { as: "root" });
      assert.equal(answer.status, 404, `${method} ${path}`);
      assert.equal(answer.json.errors[0].message, "replication execution 999 not found");
    }
    const foreign = await database.query<{ id: number }>("SELECT id FROM executions WHERE vendor = 'GARBAGE_COLLECTION'");
    assert.equal((await api.request("GET", `${EXECUTIONS}/${foreign.rows[0]?.id}`, { as: "root" })).status, 404);
    assert.equal((await api.request("GET", `${EXECUTIONS}/x`, { as: "root" })).status, 422);
  });
});

test("tasks, items, logs and progress of a run", async (t) => {
  const { api, database, replication } = await startReplicationApi(t);
  const { executions, tasks, items, runs, logs } = replication;
  const policy = await addPolicy(database, "nightly");
  const { id } = await executions.create({ vendor: "REPLICATION", vendorId: policy, trigger: "manual" });
  await runs.create({ executionId: id, policyId: policy, kind: "copy" });
  await executions.adopt(id, { workflowId: "w", runId: "r" });
  await database.query("UPDATE executions SET started_at = now() - interval '10 seconds' WHERE id = $1", [id]);
  const planned = await items.plan(id, drafts);
  const [one, two] = planned.map((task) => task.id);
  assert.ok(one !== undefined && two !== undefined);

  await t.test("tasks are byte for byte what Harbor writes", async () => {
    await database.query("UPDATE tasks SET status = 'Success', started_at = $2, ended_at = $3 WHERE id = $1", [
      one,
      new Date(Date.UTC(2026, 10, 1, 12)),
      new Date(Date.UTC(2026, 10, 1, 12, 0, 0, 750)),
    ]);
    const list = await api.request("GET", `${EXECUTIONS}/${id}/tasks?sort=id`, { as: "root" });
    assert.equal(
      harborBytes(list.text, HARBOR_TASK),
      (await golden("replication-tasks"))
        .replaceAll('"$execution"', String(id))
        .replaceAll('"$one"', String(one))
        .replaceAll('"$two"', String(two)),
    );
  });

  await t.test("a task that will be tried again is in progress", async () => {
    const retryAt = new Date(Date.now() + 60_000);
    await tasks.update(id, "two", { status: "Running", revision: 1 });
    await tasks.update(id, "two", { status: "Error", revision: 1, message: "the target is away", retryAt });
    await executions.settle([id]);
    const ask = async (query: string): Promise<number[]> =>
      (await api.request("GET", `${EXECUTIONS}/${id}/tasks?${query}`, { as: "root" })).json.map((task: { id: number }) => task.id);
    const [waiting] = (await api.request("GET", `${EXECUTIONS}/${id}/tasks?status=InProgress`, { as: "root" })).json;
    assert.deepEqual(
      [waiting.id, waiting.status, waiting.state, waiting.end_time],
      [two, "InProgress", "Error", "0001-01-01T00:00:00.000Z"],
    );
    assert.equal(waiting.retry_at, retryAt.toISOString());
    assert.deepEqual(await ask("status=Failed"), []);
    assert.deepEqual(await ask("status=Succeed"), [one]);
    assert.deepEqual(await ask("status=Nonsense"), []);
    assert.deepEqual(await ask("resource_type=artifact"), []);
    assert.deepEqual(await ask("resource_type=image&sort=-id&page_size=1"), [two]);
    const { json } = await api.request("GET", `${EXECUTIONS}/${id}`, { as: "root" });
    assert.deepEqual([json.total, json.succeed, json.in_progress, json.failed, json.status], [2, 1, 1, 0, "InProgress"]);
  });

  await t.test("items tell what became of each tag", async () => {
    const page = await items.page({ executionId: id, limit: 10, offset: 0 });
    const figures = { digest: null, blobsCopied: 0, blobsMounted: 0, blobsSkipped: 0, attempts: 1 };
    await items.report([
      {
        ...figures,
        id: page.items[0]?.id ?? 0,
        status: "Success",
        reason: "copied",
        message: "",
        bytesCopied: 1_000,
        blobsCopied: 2,
        blobsMounted: 1,
      },
      {
        ...figures,
        id: page.items[1]?.id ?? 0,
        status: "Skipped",
        reason: "not-overridden",
        message: "the tag has other content",
        bytesCopied: 0,
      },
      { ...figures, id: page.items[2]?.id ?? 0, status: "Error", reason: "refused", message: "denied", bytesCopied: 10 },
    ]);
    const ask = (query: string): ReturnType<TestApi["request"]> => api.request("GET", `${EXECUTIONS}/${id}/items?${query}`, { as: "root" });
    const all = await ask("page_size=3");
    assert.equal(all.headers.get("x-total-count"), "4");
    assert.match(all.headers.get("link") ?? "", /page=2&page_size=3|page_size=3&page=2/);
    assert.deepEqual(
      all.json.map((item: Record<string, unknown>) => [
        item["tag"],
        item["status"],
        item["reason"],
        item["bytes_copied"],
        item["blobs_mounted"],
      ]),
      [
        ["one-a", "Success", "copied", 1_000, 1],
        ["one-b", "Skipped", "not-overridden", 0, 0],
        ["two-a", "Error", "refused", 10, 0],
      ],
    );
    assert.equal(all.json[0].digest, `sha256:${"a".repeat(64)}`);
    const tags = async (query: string): Promise<string[]> => (await ask(query)).json.map((item: { tag: string }) => item.tag);
    assert.deepEqual(await tags("status=Failed"), ["two-a"]);
    assert.deepEqual(await tags("status=Pending"), ["two-b"]);
    assert.deepEqual(await tags("status=Nonsense"), []);
    assert.deepEqual(await tags(`task_id=${one}`), ["one-a", "one-b"]);
    assert.equal((await ask("page_size=101")).status, 422);
  });

  await t.test("progress has bytes, items and every destination", async () => {
    await runs.addFigures(id, { itemsUnchanged: 9, bytesTotal: 5_000, bytesCopied: 1_010, bytesMounted: 500, bytesSkipped: 490 });
    await executions.completePlanning(id);
    const { json } = await api.request("GET", `${EXECUTIONS}/${id}`, { as: "root" });
    const { bytes_per_second: pace, seconds_left: left, ...progress } = json.progress;
    assert.deepEqual(progress, {
      bytes_copied: 1_010,
      bytes_mounted: 500,
      bytes_skipped: 490,
      bytes_total: 5_000,
      items: { failed: 1, pending: 1, skipped: 1, stopped: 0, succeeded: 1, total: 4, unchanged: 9 },
    });
    assert.ok(pace > 0 && left > 0, "a running run has a pace and an end");
    assert.deepEqual(json.destinations, [
      {
        bytes_copied: 1_010,
        failed: 0,
        in_progress: 1,
        items: { failed: 1, pending: 1, skipped: 1, stopped: 0, succeeded: 1 },
        position: 0,
        registry_id: 0,
        registry_name: "Local",
        status: "InProgress",
        stopped: 0,
        succeed: 1,
        total: 2,
      },
    ]);
  });

  await t.test("logs are text, of a task or of the planning, and long ones are cut", async () => {
    const other = await executions.create({ vendor: "REPLICATION", vendorId: policy, trigger: "manual" });
    await logs.append(id, [
      { taskId: null, level: "INFO", line: "2 repositories found" },
      { taskId: one, level: "WARNING", line: "library/app:one-b is kept as it is" },
      { taskId: one, level: "ERROR", line: "second line" },
    ]);
    const read = (path: string, execution = id): ReturnType<TestApi["request"]> =>
      api.request("GET", `${EXECUTIONS}/${execution}${path}`, { as: "root" });
    const log = await read(`/tasks/${one}/log`);
    assert.match(log.headers.get("content-type") ?? "", /^text\/plain/);
    assert.match(log.text, /^\S+Z \[WARNING\] library\/app:one-b is kept as it is\n\S+Z \[ERROR\] second line\n$/);
    assert.match((await read("/log")).text, /^\S+Z \[INFO\] 2 repositories found\n$/);
    assert.equal((await read(`/tasks/${two}/log`)).text, "");
    assert.equal((await read("/tasks/4711/log")).json.errors[0].message, "replication task 4711 not found");
    assert.equal(
      (await read(`/tasks/${one}/log`, other.id)).json.errors[0].message,
      `execution ${other.id} contains no task with ID ${one}`,
    );
    await database.query(
      "INSERT INTO execution_logs (execution_id, task_id, level, line) SELECT $1, $2, 'INFO', repeat('x', 2000) FROM generate_series(1, 6000)",
      [id, two],
    );
    const long = await read(`/tasks/${two}/log`);
    assert.ok(long.text.length <= 10 * 1024 * 1024 + 100);
    assert.match(long.text.slice(-100), /the log is too long/);
  });
});

test("destinations have a status and counts of their own", async (t) => {
  const { api, database, replication } = await startReplicationApi(t);
  const { executions, items } = replication;
  const policy = await addPolicy(database, "fan-out");
  const registries = await database.query<{ id: number }>(
    "INSERT INTO registries (name, url) SELECT 'region-' || g, 'https://region' || g || '.example.com' FROM generate_series(1, 3) g RETURNING id",
  );
  const [first, second, third] = registries.rows.map(({ id }) => id);
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  await database.query("DELETE FROM replication_destinations WHERE policy_id = $1", [policy]);
  await database.query(
    "INSERT INTO replication_destinations (policy_id, position, registry_id) SELECT $1, p - 1, id FROM unnest($2::bigint[]) WITH ORDINALITY AS r (id, p)",
    [policy, [first, second, third]],
  );
  const { id } = await executions.create({ vendor: "REPLICATION", vendorId: policy, trigger: "manual" });
  await replication.runs.create({ executionId: id, policyId: policy, kind: "copy" });
  const read = async (): Promise<unknown[]> =>
    (await api.request("GET", `${EXECUTIONS}/${id}`, { as: "root" })).json.destinations.map((one: Record<string, unknown>) => [
      one["registry_name"],
      one["status"],
      one["total"],
      one["in_progress"],
    ]);
  assert.deepEqual(
    await read(),
    ["region-1", "region-2", "region-3"].map((name) => [name, "InProgress", 0, 0]),
  );
  await executions.adopt(id, { workflowId: "w", runId: "r" });
  const [one, two] = drafts;
  assert.ok(one && two);
  await items.plan(id, [
    { ...one, attrs: { ...one.attrs, destination: 0, target_registry_id: first } },
    { ...two, attrs: { ...two.attrs, destination: 1, target_registry_id: second } },
  ]);
  await database.query("UPDATE tasks SET status = 'Error', ended_at = now() WHERE execution_id = $1 AND key = 'two'", [id]);
  await executions.completePlanning(id);
  assert.deepEqual(await read(), [
    ["region-1", "InProgress", 1, 1],
    ["region-2", "Failed", 1, 0],
    ["region-3", "Succeed", 0, 0],
  ]);
  await database.query("UPDATE tasks SET status = 'Success', ended_at = now() WHERE execution_id = $1 AND key = 'one'", [id]);
  await executions.settle([id]);
  await database.query("DELETE FROM replication_destinations WHERE policy_id = $1 AND position > 0", [policy]);
  assert.deepEqual(
    await read(),
    [
      ["region-1", "Succeed", 1, 0],
      ["region-2", "Failed", 1, 0],
    ],
    "what left the policy is shown as long as it has tasks",
  );
});

test("a page costs the same statements however many rows it has", async (t) => {
  const { api, database } = await startReplicationApi(t);
  const policy = await addPolicy(database, "busy");
  await database.query("INSERT INTO executions (vendor, vendor_id) SELECT 'REPLICATION', $1 FROM generate_series(1, 150)", [policy]);
  const statements = async (path: string): Promise<number> => {
    await api.request("GET", path, { as: "root" });
    const before = database.stats().statements;
    assert.equal((await api.request("GET", path, { as: "root" })).status, 200);
    return database.stats().statements - before;
  };
  const hundred = await statements(`${EXECUTIONS}?page_size=100`);
  assert.equal(hundred, await statements(`${EXECUTIONS}?page_size=1`));
  assert.ok(hundred <= 3, String(hundred));
});

test("who may see and start replications", async (t) => {
  const { api, database } = await startReplicationApi(t);
  const policy = await addPolicy(database, "nightly");
  await addStates(database, policy);
  /** Had the caller no right, it would be told so before anything else. */
  const allowed = new Set([200, 201, 412, 503]);
  const robot = async (actions: readonly string[]): Promise<string> => {
    const access = actions.map((action) => ({ resource: "replication", action }));
    const body = {
      name: `r${actions.join("")}`,
      level: "system",
      duration: -1,
      permissions: [{ kind: "system", namespace: "/", access }],
    };
    const created = await api.request("POST", "/api/v2.0/robots", { as: "root", body });
    assert.equal(created.status, 201, created.text);
    return basic(created.json.name, created.json.secret);
  };
  const reader = await robot(["read", "list"]);
  const starter = await robot(["create"]);
  const paths: readonly (readonly [string, string, "list" | "read" | "create", unknown?])[] = [
    ["GET", "", "list"],
    ["POST", "", "create", { policy_id: policy }],
    ["GET", "/104", "read"],
    ["PUT", "/104", "create"],
    ["PATCH", "/101", "create", { speed: 1 }],
    ["POST", "/101/pause", "create"],
    ["POST", "/101/resume", "create"],
    ["POST", "/104/retry", "create"],
    ["GET", "/104/tasks", "list"],
    ["GET", "/104/items", "list"],
    ["GET", "/104/log", "read"],
  ];
  for (const [method, path, right, body] of paths) {
    const ask = async (as?: string): Promise<number> =>
      (await api.request(method, `${EXECUTIONS}${path}`, { ...(as ? { as } : {}), ...(body ? { body } : {}) })).status;
    const name = `${method} ${path}`;
    assert.equal(await ask(), 401, `${name} without credentials`);
    assert.equal(await ask("alice"), 403, `${name} by a user`);
    assert.equal(await ask(right === "create" ? reader : starter), 403, `${name} by a robot without the right`);
    assert.ok(allowed.has(await ask(right === "create" ? starter : reader)), `${name} by a robot with the right`);
  }
  assert.equal((await api.request("GET", `${EXECUTIONS}/104/events`)).status, 401);
  assert.equal((await api.request("GET", `${EXECUTIONS}/104/events`, { as: starter })).status, 403);
});

test("every route is described, and nothing is described that has no route", async () => {
  // Routers only keep what they are given until a request comes.
  const routes = routesOf(createExecutionsRouter({} as ReplicationServices), "/api/v2.0");
  const described = (await loadOpenApi()).operations().filter((operation) => operation.includes("/api/v2.0/replication/executions"));
  assert.deepEqual(routes.toSorted(), described);
});
