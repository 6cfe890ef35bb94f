/** Slots go to instances evenly, move little, and by fixed numbers where these were given. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { instanceIdFrom, planAssignment, shardOf } from "../../../src/execution/plan/assignment.ts";
import type { Assignment, Instance } from "../../../src/execution/plan/assignment.ts";
import { decodeMember, encodeMember, laneName, laneOf, LANES, placeOf, placesOf, slotOfPlace } from "../../../src/execution/plan/slots.ts";

const SLOTS = 64;

function instances(count: number, from = 0): Instance[] {
  return Array.from({ length: count }, (_, index) => ({
    bootId: `boot-${from + index}-${((from + index) * 7919) % 997}`,
    host: `core-${from + index}`,
    joinedAt: from + index,
    fixed: null,
  }));
}

function owners(assignment: Assignment): Map<number, string> {
  return new Map(Object.entries(assignment).flatMap(([bootId, slots]) => slots.map((slot) => [slot, bootId] as const)));
}

function moved(before: Assignment, after: Assignment): number {
  const now = owners(after);
  return [...owners(before)].filter(([slot, bootId]) => now.get(slot) !== bootId).length;
}

test("every slot has one owner, and no instance more than its share", () => {
  for (let count = 1; count <= 12; count += 1) {
    const { assignment } = planAssignment(instances(count), SLOTS);
    assert.equal(owners(assignment).size, SLOTS);
    const sizes = Object.values(assignment).map((slots) => slots.length);
    assert.equal(
      sizes.reduce((sum, size) => sum + size, 0),
      SLOTS,
    );
    assert.ok(Math.max(...sizes) <= Math.ceil(SLOTS / count) && Math.min(...sizes) >= Math.floor(SLOTS / count), sizes.join());
  }
  assert.deepEqual(planAssignment([], SLOTS).assignment, {});
});

test("without a memory every planner comes to the same, in whatever order it learned of the instances", () => {
  const five = instances(5);
  assert.deepEqual(planAssignment(five.toReversed(), SLOTS).assignment, planAssignment(five, SLOTS).assignment);
});

test("a join moves only what the newcomer gets, a leave only what the leaver had", () => {
  for (let count = 2; count <= 9; count += 1) {
    const all = instances(count);
    const before = planAssignment(all, SLOTS).assignment;
    const joined = planAssignment([...all, ...instances(1, count)], SLOTS, before).assignment;
    const newcomer = instances(1, count)[0]?.bootId ?? "";
    assert.ok((joined[newcomer]?.length ?? 0) >= Math.floor(SLOTS / (count + 1)), "the newcomer gets its share");
    assert.equal(moved(before, joined), joined[newcomer]?.length);
    const gone = all[1]?.bootId ?? "";
    const left = planAssignment(
      all.filter(({ bootId }) => bootId !== gone),
      SLOTS,
      before,
    ).assignment;
    assert.equal(moved(before, left), before[gone]?.length);
    assert.equal(owners(left).size, SLOTS);
  }
});

function fixed(numbers: readonly number[], total: number): Instance[] {
  return numbers.map((id, index) => ({ bootId: `b${index}`, host: `core-${id}`, joinedAt: index, fixed: { id, total } }));
}

test("fixed numbers: slot s belongs to s % total", () => {
  const { assignment, problems } = planAssignment(fixed([2, 0, 1], 3), SLOTS);
  assert.deepEqual(problems, []);
  for (const [bootId, id] of [
    ["b0", 2],
    ["b1", 0],
    ["b2", 1],
  ] as const) {
    assert.ok(assignment[bootId]?.every((slot) => slot % 3 === id));
  }
  assert.equal(owners(assignment).size, SLOTS);
});

test("fixed numbers: a gap, a duplicate, another total and a missing number are reported, and no slot stays without an owner", () => {
  const gap = planAssignment(fixed([0, 2], 3), SLOTS);
  assert.deepEqual(gap.problems, ["instance id 1 of 3 is missing"]);
  assert.equal(owners(gap.assignment).size, SLOTS);
  const twice = planAssignment(fixed([0, 1, 1], 2), SLOTS);
  assert.deepEqual(twice.problems, ["instance id 1 of 2 is used by core-1 and by core-1"]);
  assert.deepEqual(twice.assignment["b2"], [], "the later one waits");
  assert.equal(owners(twice.assignment).size, SLOTS);
  const mixed = planAssignment([...fixed([0], 2), ...fixed([1], 1).map((one) => ({ ...one, bootId: "x" })), ...instances(1, 9)], SLOTS);
  assert.deepEqual(mixed.problems, [
    "core-1 is 1 of 1, while others are of 2",
    "core-9 has no instance id, while others have one of 2",
    "instance id 1 of 2 is missing",
  ]);
  assert.equal(owners(mixed.assignment).size, SLOTS);
});

test("instances are named by their number, or by their place among all", () => {
  assert.deepEqual(shardOf(instances(5).toReversed(), instances(5)[3]?.bootId ?? ""), { id: 3, total: 5 });
  assert.deepEqual(shardOf(fixed([2, 0, 1], 3), "b0"), { id: 2, total: 3 });
  assert.deepEqual(
    ["3", "core-3", "slipway-core-12", "core", "core-3x", "10.0.0.7", ""].map((name) => instanceIdFrom(name)),
    [3, 3, 12, null, null, null, null],
  );
});

test("members have the published form, and vendors a lane each", () => {
  assert.equal(encodeMember({ id: 17, vendor: "REPLICATION" }), "17:REPLICATION");
  assert.deepEqual(decodeMember("17:REPLICATION"), { id: 17, vendor: "REPLICATION" });
  for (const text of ["", "17", "x:REPLICATION", "-1:GARBAGE_COLLECTION", "0:X", "17:replication", "99999999999999999:X"]) {
    assert.equal(decodeMember(text), null, text);
  }
  assert.notEqual(laneOf("REPLICATION"), laneOf("GARBAGE_COLLECTION"));
  assert.equal(laneOf("SOMETHING_NEW"), LANES - 1);
  assert.equal(laneName(laneOf("TUF")), "TUF");
  assert.equal(laneName(LANES - 1), "other");
  const places = placesOf([3, 9], 1);
  assert.equal(places.length, 2 * LANES);
  assert.equal(places[0], placeOf(9, 0));
  assert.deepEqual([...new Set(places.map(slotOfPlace))], [9, 3]);
});
