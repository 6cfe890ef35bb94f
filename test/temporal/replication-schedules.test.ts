/** Schedules of policies on a real Temporal server: when they tick, how they follow their policies, what reconciling mends. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Cron } from "croner";
import type { Policy } from "../../src/replication/plan/policy.ts";
import { ReplicationSchedules } from "../../src/temporal/replication-schedules.ts";
import { matchingTicks } from "../../src/temporal/schedule-ticks.ts";
import { scheduleIds } from "../../src/temporal/ids.ts";
import { TemporalConnection } from "../../src/temporal/connection.ts";
import { isSlipwayError } from "../../src/core/errors.ts";
import { freePort } from "../support/slipway.ts";
import { eventually, quietLogger } from "../support/maintenance.ts";
import { testNamespace } from "../support/temporal.ts";
import type { ScheduleDescription } from "@temporalio/client";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

function policy(id: number, cron: string | null, fields: Partial<Policy> = {}): Policy {
  const timezone = fields.timezone ?? "UTC";
  return {
    id,
    name: `policy ${id}`,
    description: "",
    creator: "",
    sourceRegistryId: 0,
    destinations: [],
    destNamespace: "",
    destNamespaceReplaceCount: -1,
    trigger: cron === null ? { type: "manual" } : { type: "scheduled", cron, timezone },
    timezone,
    filters: [],
    deletion: false,
    override: false,
    enabled: true,
    speedKb: 0,
    copyByChunk: false,
    singleActive: false,
    overlap: "allow",
    mirror: false,
    maxDeletions: 100,
    maxDeletionPercent: 10,
    createdAt: new Date(0),
    updatedAt: new Date(),
    ...fields,
  };
}

interface Started {
  readonly temporal: TemporalConnection;
  readonly schedules: ReplicationSchedules;
  /** What stands in the rows. */
  readonly rows: Map<number, Policy>;
  clockSkewMs: number;
  describe(id: number): Promise<ScheduleDescription>;
}

async function start(t: Cleanable): Promise<Started> {
  const { temporal } = await testNamespace(t);
  const rows = new Map<number, Policy>();
  const started: Started = {
    temporal,
    rows,
    clockSkewMs: 0,
    schedules: new ReplicationSchedules({
      temporal,
      policies: { find: async (id) => rows.get(id) ?? null },
      logger: quietLogger,
      now: () => Date.now() + started.clockSkewMs,
    }),
    describe: (id) => temporal.call((client) => client.schedule.getHandle(scheduleIds.replication(id)).describe()),
  };
  return started;
}

test("the next twenty ticks are those of a reference cron", async (t) => {
  const { temporal, schedules } = await start(t);
  const table: [cron: string, timezone: string, spelledOut?: string][] = [
    ["0 0 2 * * *", "UTC"],
    ["0 */15 * * * *", "UTC"],
    ["0 5,35 9-17 * * 1-5", "Europe/Berlin"],
    ["0 30 4 1,15 * *", "America/New_York"],
    ["0 0 0 13 * 5", "UTC"],
    ["0 0 0 */2 * *", "UTC"],
    ["0 0 12 * jan-mar sun", "Asia/Tokyo"],
    ["0 0 6 ? * MON-FRI", "Asia/Kolkata"],
    ["0 10/20 3 * */4 *", "Australia/Sydney", "0 10-59/20 3 * */4 *"],
    ["0 0 0 29 2,3 *", "UTC"],
    ["0 0 0 1-31/10 * 1", "UTC"],
    ["0 59 23 31 * *", "Pacific/Auckland"],
    // Over the hours that summer time leaves out and repeats.
    ["0 45 0 * * *", "Europe/Berlin"],
    ["0 15 3 * 3,10 *", "Europe/Berlin"],
  ];
  const from = Date.UTC(2027, 1, 20, 11, 30);
  for (const [index, [cron, timezone, spelledOut = cron]] of table.entries()) {
    const id = index + 1;
    await schedules.apply(policy(id, cron, { timezone, enabled: false }));
    const expected = new Cron(spelledOut, { timezone, paused: true }).nextRuns(20, new Date(from));
    const last = expected.at(-1)?.getTime() ?? 0;
    const ticks = await matchingTicks(temporal, { id: scheduleIds.replication(id), from, to: last + 1000 });
    assert.deepEqual(
      ticks.map((tick) => new Date(tick).toISOString()),
      expected.map((tick) => tick.toISOString()),
      `${cron} in ${timezone}`,
    );
  }
});

test("a schedule follows its policy", async (t) => {
  const { schedules, rows, describe } = await start(t);
  const set = async (value: Policy | null, id = 1): Promise<string> => {
    if (value === null) rows.delete(id);
    else rows.set(id, value);
    return await schedules.follow(id);
  };
  assert.equal(await set(policy(1, "0 0 2 * * *")), "created");
  assert.equal(await set(policy(1, "0 0 2 * * *")), "unchanged");
  const { state, spec, policies, action, info } = await describe(1);
  assert.equal(state.paused, false);
  assert.equal(policies.overlap, "SKIP");
  assert.equal(policies.catchupWindow, 600_000);
  assert.equal(spec.timezone ?? "UTC", "UTC");
  assert.ok(info.nextActionTimes.every((tick) => tick.getUTCHours() === 2 && tick.getUTCMinutes() === 0));
  assert.ok(action.type === "startWorkflow" && action.workflowType === "replicationTrigger" && action.taskQueue === "replication");
  assert.deepEqual(action.args, [{ policyId: 1, trigger: "scheduled" }]);
  assert.equal(await set(policy(1, "0 0 2 * * *", { enabled: false })), "changed");
  assert.equal((await describe(1)).state.paused, true);
  assert.equal(await set(policy(1, "0 30 7 * * *", { timezone: "Europe/Berlin" })), "changed");
  const moved = await describe(1);
  assert.deepEqual([moved.state.paused, moved.spec.timezone], [false, "Europe/Berlin"]);
  assert.equal(await set(policy(1, null)), "removed");
  assert.equal(await set(policy(1, null)), "absent");
  assert.equal(await set(policy(1, "0 0 2 * * *")), "created");
  assert.equal(await set(null), "removed");
});

test("a policy that changes while its schedule is set has the schedule of its last change", async (t) => {
  const { temporal, describe } = await start(t);
  const versions = [policy(1, "0 0 2 * * *"), policy(1, "0 0 3 * * *"), policy(1, "0 0 4 * * *")].map((one, index) => ({
    ...one,
    updatedAt: new Date(1_000 * index),
  }));
  let reads = 0;
  const find = async (): Promise<Policy | null> => versions[Math.min(reads++, 2)] ?? null;
  await new ReplicationSchedules({ temporal, policies: { find }, logger: quietLogger }).follow(1);
  assert.equal((await describe(1)).info.nextActionTimes[0]?.getUTCHours(), 4);
});

test("reconciling mends what is missing, extra or changed, and leaves an operator's pause alone", async (t) => {
  const { temporal, schedules, rows, describe } = await start(t);
  for (const id of [1, 2, 3, 4, 5]) rows.set(id, policy(id, "0 0 2 * * *", { enabled: id !== 5 }));
  const all = (): Policy[] => [...rows.values()];
  const { missing } = await schedules.reconcile(all());
  assert.equal(missing, 5);
  // The list of the service runs behind.
  await eventually("all schedules are listed", async () => {
    return await temporal.call(async (client) => {
      let count = 0;
      for await (const { scheduleId } of client.schedule.list()) if (scheduleId !== "") count += 1;
      return count === 5;
    });
  });
  assert.equal((await schedules.reconcile(all())).mended, 0);

  const handle = <T>(
    id: number,
    work: (handle: ReturnType<Parameters<Parameters<TemporalConnection["call"]>[0]>[0]["schedule"]["getHandle"]>) => Promise<T>,
  ): Promise<T> => temporal.call((client) => work(client.schedule.getHandle(scheduleIds.replication(id))));
  await handle(1, (one) => one.delete());
  await handle(2, (one) => one.update((before) => ({ ...before, spec: { intervals: [{ every: "5m" }] } })));
  rows.delete(3);
  await handle(4, (one) => one.pause("while we look into it"));
  await handle(5, (one) => one.unpause());
  const report = await schedules.reconcile(all());
  assert.deepEqual(report, { checked: 4, held: 1, failed: 0, missing: 1, extra: 1, changed: 2, unfired: 0, mended: 4 });
  assert.equal((await describe(5)).state.paused, true);
  assert.equal((await describe(4)).state.note, "while we look into it");
  await assert.rejects(describe(3), (error) => isSlipwayError(error, "NOT_FOUND"));
  const text = JSON.stringify(schedules.families());
  for (const sample of [
    '{"value":6,"labels":{"kind":"missing"}}',
    '{"value":1,"labels":{"kind":"extra"}}',
    '{"value":1,"labels":{"state":"held"}}',
  ]) {
    assert.ok(text.includes(sample), `${sample} in ${text}`);
  }
});

test("a schedule that was due and did not fire is seen, and one run makes up for it", async (t) => {
  const started = await start(t);
  const { schedules, describe } = started;
  const minutely = policy(1, "0 */1 * * * *");
  started.rows.set(1, minutely);
  await schedules.apply(minutely);
  assert.equal((await schedules.reconcile([minutely])).unfired, 0);
  // As it looks ten minutes later, if nothing has happened until then.
  started.clockSkewMs = 10 * 60_000;
  const report = await schedules.reconcile([minutely]);
  assert.deepEqual([report.unfired, report.mended], [1, 1]);
  const { info } = await eventually("the run is asked for", async () => {
    const description = await describe(1);
    return description.info.recentActions.length > 0 && description;
  });
  assert.ok(info.numActionsTaken >= 1);
  started.clockSkewMs = 0;
  assert.equal((await schedules.reconcile([minutely])).unfired, 0);
  // While it is paused nothing is due.
  const paused = { ...minutely, enabled: false, updatedAt: new Date() };
  started.rows.set(1, paused);
  await schedules.follow(1);
  started.clockSkewMs = 10 * 60_000;
  assert.equal((await schedules.reconcile([paused])).mended, 0);
});

test("while the workflow service is away, whoever asks is told", async (t) => {
  const temporal = new TemporalConnection({ address: `127.0.0.1:${await freePort()}`, namespace: "default", callTimeoutMs: 300 });
  t.after(() => temporal.close());
  const row = policy(1, "0 0 2 * * *");
  const schedules = new ReplicationSchedules({ temporal, policies: { find: async () => row }, logger: quietLogger });
  const isAway = (error: unknown): boolean => isSlipwayError(error, "TEMPORAL_UNAVAILABLE");
  await assert.rejects(schedules.follow(1, { timeoutMs: 300 }), isAway);
  await assert.rejects(schedules.reconcile([row], AbortSignal.timeout(5_000)), isAway);
});
