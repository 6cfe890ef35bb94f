/** Cron texts as calendars, compared with a plain reading of cron, minute by minute. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { isSlipwayError } from "../../src/core/errors.ts";
import { expandRanges, parseCron } from "../../src/temporal/cron.ts";

type Ranges = { start: number | string; end?: number | string; step?: number }[];

/** Whether a Temporal calendar matches: all its fields must, absent ones being 0 for times and anything for days. */
function matches(calendar: ReturnType<typeof parseCron>[number], at: Date): boolean {
  const has = (field: "second" | "minute" | "hour" | "dayOfMonth" | "month" | "dayOfWeek", value: number): boolean => {
    const ranges = calendar[field];
    if (ranges === undefined) return field === "dayOfMonth" || field === "month" || field === "dayOfWeek" || value === 0;
    return expandRanges(ranges as Ranges).includes(value);
  };
  return (
    has("minute", at.getUTCMinutes()) &&
    has("hour", at.getUTCHours()) &&
    has("dayOfMonth", at.getUTCDate()) &&
    has("month", at.getUTCMonth() + 1) &&
    has("dayOfWeek", at.getUTCDay())
  );
}

function ticks(text: string, count: number): string[] {
  const calendars = parseCron(text);
  const found: string[] = [];
  for (let at = Date.UTC(2026, 0, 30, 23, 50); found.length < count; at += 60_000) {
    const date = new Date(at);
    if (calendars.some((calendar) => matches(calendar, date))) found.push(date.toISOString().slice(0, 16));
  }
  return found;
}

test("texts tick when cron says so", () => {
  const table: [text: string, expected: string[]][] = [
    ["0 3 * * *", ["2026-01-31T03:00", "2026-02-01T03:00"]],
    ["0 0 2 * * *", ["2026-01-31T02:00", "2026-02-01T02:00"]],
    ["17 * * * *", ["2026-01-31T00:17", "2026-01-31T01:17"]],
    ["*/20 1 * * *", ["2026-01-31T01:00", "2026-01-31T01:20", "2026-01-31T01:40", "2026-02-01T01:00"]],
    ["50/5 23 * * *", ["2026-01-30T23:50", "2026-01-30T23:55", "2026-01-31T23:50"]],
    ["0 0 * * 0", ["2026-02-01T00:00", "2026-02-08T00:00"]],
    ["0 0 * * 7", ["2026-02-01T00:00", "2026-02-08T00:00"]],
    ["0 0 * * fri-sat", ["2026-01-31T00:00", "2026-02-06T00:00", "2026-02-07T00:00"]],
    ["0 0 29 feb *", ["2028-02-29T00:00"]],
    ["5,10 6-7 1 * *", ["2026-02-01T06:05", "2026-02-01T06:10", "2026-02-01T07:05"]],
    ["0 0 */10 * *", ["2026-01-31T00:00", "2026-02-01T00:00", "2026-02-11T00:00", "2026-02-21T00:00"]],
    ["0 0 ? * */3", ["2026-01-31T00:00", "2026-02-01T00:00", "2026-02-04T00:00"]],
    // Either day field will do when both are restricted, also by a step.
    ["0 0 */20 * 1", ["2026-02-01T00:00", "2026-02-02T00:00", "2026-02-09T00:00"]],
    ["0 0 3 * 1", ["2026-02-02T00:00", "2026-02-03T00:00", "2026-02-09T00:00"]],
  ];
  for (const [text, expected] of table) {
    assert.deepEqual(ticks(text, expected.length), expected, text);
  }
});

test("texts that are no cron are refused with the reason", () => {
  for (const text of [
    "",
    "* * * *",
    "* * * * * * *",
    "60 * * * *",
    "* 24 * * *",
    "* * 0 * *",
    "* * * 13 *",
    "* * * * 8",
    "5-1 * * * *",
    "*/0 * * * *",
    "a b c d e",
  ]) {
    assert.throws(
      () => parseCron(text),
      (error) => isSlipwayError(error, "BAD_REQUEST"),
      text,
    );
  }
});
