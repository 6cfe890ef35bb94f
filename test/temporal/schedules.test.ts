/** Schedules follow the configuration at every start, whatever happened to them in between. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { scheduleIds } from "../../src/temporal/ids.ts";
import { ensureSchedules, maintenanceSchedules } from "../../src/temporal/schedules.ts";
import { testNamespace } from "../support/temporal.ts";

test("schedules are created once, left alone when right, repaired when changed, and removed by configuration", async (t) => {
  const { temporal } = await testNamespace(t);
  const wanted = maintenanceSchedules({ garbageCollectionCron: "30 2 1 * mon" }).filter(({ cron }) => cron !== null);
  const ids = wanted.map((schedule) => schedule.id);
  const outcomes = async (schedules = wanted): Promise<string[]> => [...(await ensureSchedules(temporal, schedules)).values()];

  assert.deepEqual(await outcomes(), ["created", "created", "created"]);
  assert.deepEqual(await outcomes(), ["unchanged", "unchanged", "unchanged"]);

  const described = await temporal.call((client) => client.schedule.getHandle(scheduleIds.garbageCollection).describe());
  assert.equal(described.policies.overlap, "SKIP");
  assert.ok(described.policies.catchupWindow <= 15 * 60_000, "a long outage does not end in a flood of old ticks");
  const next = described.info.nextActionTimes[0];
  assert.ok(next && next.getUTCHours() === 2 && next.getUTCMinutes() === 30);
  assert.ok(
    described.info.nextActionTimes.every((tick) => tick.getUTCDate() === 1 || tick.getUTCDay() === 1),
    "either day field may match",
  );
  assert.ok(described.info.nextActionTimes.some((tick) => tick.getUTCDay() === 1 && tick.getUTCDate() !== 1));

  // Somebody changes one, pauses another and deletes the third.
  await temporal.call((client) =>
    client.schedule.getHandle(scheduleIds.garbageCollection).update((before) => ({ ...before, spec: { intervals: [{ every: "5m" }] } })),
  );
  await temporal.call((client) => client.schedule.getHandle(scheduleIds.uploadExpiry).pause("while we look into it"));
  await temporal.call((client) => client.schedule.getHandle(scheduleIds.executionRetention).delete());
  assert.deepEqual(await outcomes(), ["unchanged", "repaired", "created"]);
  const paused = await temporal.call((client) => client.schedule.getHandle(scheduleIds.uploadExpiry).describe());
  assert.equal(paused.state.paused, true, "an operator's pause is respected");

  const off = maintenanceSchedules({ garbageCollectionCron: null }).slice(0, 3);
  assert.deepEqual(await outcomes(off), ["unchanged", "removed", "unchanged"]);
  assert.deepEqual(await outcomes(off), ["unchanged", "absent", "unchanged"]);
  assert.equal(ids.length, 3);
});

test("many processes that start together make each schedule once", async (t) => {
  const { temporal } = await testNamespace(t);
  const all = await Promise.all(Array.from({ length: 3 }, () => ensureSchedules(temporal, maintenanceSchedules({}))));
  const created = all.flatMap((outcomes) => [...outcomes.values()]).filter((outcome) => outcome === "created");
  assert.equal(created.length, 3);
});
