/** `slipway gc` against a real worker: follows, reports, and says clearly what is wrong with a call. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { GC_USAGE, runGc } from "../../src/cli/gc.ts";
import type { GcServices } from "../../src/cli/gc.ts";
import { isSlipwayError } from "../../src/core/errors.ts";
import { ExecutionStore } from "../../src/execution/execution-store.ts";
import { TaskStore } from "../../src/execution/task-store.ts";
import { createMaintenanceStarters } from "../../src/temporal/maintenance.ts";
import { createTrash, noKv, startMaintenance, tableCollection } from "../support/maintenance.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";

test("a collection is started, followed and shown", async (t) => {
  const end = scope(t);
  const { database } = await testDatabase(end);
  const { temporal } = await testNamespace(end);
  await createTrash(database, { count: 7, state: "linked" });
  const lines: string[] = [];
  const services: GcServices = {
    executions: new ExecutionStore(database),
    tasks: new TaskStore(database),
    starters: createMaintenanceStarters(temporal),
    print: (line) => void lines.push(line),
    signal: AbortSignal.timeout(30_000),
  };
  assert.equal(await runGc(["status"], services), 0);
  assert.deepEqual(lines.splice(0), ["there has been no collection yet"]);

  assert.equal(await runGc(["run", "--detach", "--dry-run", "--grace", "2h"], services), 0);
  assert.match(lines.splice(0).join("\n"), /^started maintenance\/garbage-collection$/);
  const group = startMaintenance({ database, temporal, dataDir: await tempDir(end), collection: tableCollection(database, 0), kv: noKv });
  end.after(() => group.close());
  assert.equal(await runGc(["run"], services), 0, "joins the run that is active, or starts the next");
  lines.splice(0);
  assert.equal(await runGc(["run"], services), 0);
  const output = lines.splice(0).join("\n");
  assert.match(output, /ended: Success/);
  assert.match(output, /sweep +\d+ items/);

  await runGc(["status"], services);
  const listed = lines.join("\n");
  assert.match(listed, /manual dry run: Success/);
  assert.match(listed, /manual collection: Success/);
  const grace = (await services.executions.list({ limit: 10 })).at(-1)?.extraAttrs["grace_ms"];
  assert.equal(grace, 7_200_000);
});

test("calls that make no sense are refused", async () => {
  const services = { signal: AbortSignal.abort() } as unknown as GcServices;
  for (const args of [[], ["burn"], ["run", "--grace", "soon"], ["run", "--unknown"]]) {
    await assert.rejects(runGc(args, services), (error) => isSlipwayError(error, "BAD_REQUEST"), args.join(" "));
  }
  assert.match(GC_USAGE, /--dry-run/);
});
