/** The program with the role `refresh` alone, as production runs it, and what the command line tells of it. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { Redis } from "ioredis";
import { runRefresh } from "../../src/cli/refresh.ts";
import { Database } from "../../src/db/pool.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { queryRefresh } from "../../src/temporal/refresh.ts";
import { eventually, quietLogger } from "../support/maintenance.ts";
import { countByStatus, openTestKv, seedExecutions, testRefresh } from "../support/refresh.ts";
import { scope } from "../support/scope.ts";
import { missingRedis, testRedisUrl } from "../support/services.ts";
import { sharedServices, startSlipway } from "../support/slipway.ts";
import { testNamespace } from "../support/temporal.ts";

test("a process with the role refresh keeps executions true, and the command line shows it", { skip: missingRedis() }, async (t) => {
  const end = scope(t);
  const { address, namespace, temporal } = await testNamespace(end);
  const services = await sharedServices(end);
  // Another database of the server, as an earlier program may have had.
  const oldRedisUrl = new URL("/7", await testRedisUrl()).href;
  const old = new Redis(oldRedisUrl, { protocol: 2 });
  end.after(() => old.disconnect());
  await old.sadd("execution:status_outdate", "nonsense");
  const env = {
    ...services,
    SLIPWAY_REFRESH_OLD_REDIS_URL: oldRedisUrl,
    TEMPORAL_ADDRESS: address,
    TEMPORAL_NAMESPACE: namespace,
    CORE_INSTANCE_TOTAL: "1",
    CORE_INSTANCE_ID: "core-0",
  };
  const slipway = await startSlipway(end, { env, args: ["--role", "refresh"], readyTimeoutMs: 150_000 });
  const database = new Database({ url: services["SLIPWAY_DATABASE_URL"] ?? "", poolSize: 3 });
  end.after(() => database.close());
  const kv = await openTestKv(end, "postgres", database, "slipway:");
  const refresh = testRefresh({ kv, database, logger: quietLogger });

  const ids = await seedExecutions(database, 50);
  await refresh.marker.markAll(ids.map((id) => ({ id, vendor: "REPLICATION" })));
  await eventually("it refreshes", async () => (await countByStatus(database))["Success"] === 50, 30_000);
  // The sweep may have taken some of them before their marks came: then it is more than one pass.
  const told = (line: RegExp): number => [...slipway.output().matchAll(line)].reduce((sum, [, count]) => sum + Number(count), 0);
  const ended = /(\d+) succeed, 0 failed, 0 skipped \(assigned to other instances\)/g;
  await eventually("the passes are told", async () => told(ended) >= 50);
  assert.ok(told(/instance 0\/1: found (\d+) executions in queue, will process assigned subset/g) >= 50);

  const series = await (await fetch(`${slipway.url}/metrics`)).text();
  assert.match(series, /^slipway_refresh_processed_total\{vendor="REPLICATION"\} [1-9]/m);
  assert.match(series, /^slipway_refresh_slots_held 64$/m);
  assert.match(series, /^slipway_refresh_instances 1$/m);
  assert.match(series, /^slipway_refresh_queue_depth \d+$/m);
  assert.match(series, /^slipway_refresh_marks_total\{result="queued"\} \d+$/m);

  await eventually("old marks are drained", async () => (await refresh.drains.find()).malformed === 1);
  assert.equal(await old.exists("execution:status_outdate"), 0);

  const lines: string[] = [];
  const cli = {
    executions: new ExecutionStore(database),
    tasks: new TaskStore(database),
    starters: { startExecutionReconcile: () => Promise.reject(new Error("not asked for")) },
    queue: refresh.queue,
    store: refresh.store,
    drains: refresh.drains,
    view: () => queryRefresh(temporal),
    print: (line: string) => void lines.push(line),
    signal: new AbortController().signal,
  };
  await refresh.store.noteFailures([ids[0] ?? 0], "it breaks", 1);
  assert.equal(await runRefresh(["status"], cli), 0);
  assert.match(
    lines.join("\n"),
    /^instance 0\/1 {2}64 slots {2}execution-refresh@\S+\nnothing waits\nexecution \d+ \(REPLICATION\) is set aside after 1 tries: it breaks\nold marks are drain(?:ing|ed): 0 taken over, 1 malformed, \d passes$/,
  );
  assert.equal(await slipway.stop(), 0);
});
