/**
 * Cron texts as Temporal calendars. The text is never handed to Temporal itself: it reads six fields with the year last, and demands that both
 * day fields match where cron takes either.
 */
import type { CalendarSpec } from "@temporalio/client";
import { SlipwayError } from "../core/errors.ts";

interface Range {
  readonly start: number;
  readonly end: number;
  readonly step: number;
}

interface Field {
  readonly name: string;
  readonly min: number;
  readonly max: number;
  readonly words?: readonly string[];
}

const MONTHS = [
  "JANUARY",
  "FEBRUARY",
  "MARCH",
  "APRIL",
  "MAY",
  "JUNE",
  "JULY",
  "AUGUST",
  "SEPTEMBER",
  "OCTOBER",
  "NOVEMBER",
  "DECEMBER",
] as const;
const DAYS = ["SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"] as const;

const FIELDS: readonly Field[] = [
  { name: "second", min: 0, max: 59 },
  { name: "minute", min: 0, max: 59 },
  { name: "hour", min: 0, max: 23 },
  { name: "day of month", min: 1, max: 31 },
  { name: "month", min: 1, max: 12, words: MONTHS.map((month) => month.slice(0, 3)) },
  // 7 is Sunday too.
  { name: "day of week", min: 0, max: 7, words: DAYS.map((day) => day.slice(0, 3)) },
];

/** Five fields, or six with the seconds first. Two calendars, of which either may match, when both day fields are restricted. */
export function parseCron(text: string): CalendarSpec[] {
  const parts = text.trim().split(/\s+/);
  if (parts.length === 5) parts.unshift("0");
  if (parts.length !== 6) throw invalid(text, "five fields, or six with the seconds first, are expected");
  const ranges = parts.map((part, index) => parseField(text, part, FIELDS[index] as Field));
  const [second, minute, hour, dayOfMonth, month, weekday] = ranges as [Range[], Range[], Range[], Range[], Range[], Range[]];
  const dayOfWeek = weekdays(weekday);
  const common: CalendarSpec = {
    second,
    minute,
    hour,
    month: month.map((range) => ({ ...range, start: MONTHS[range.start - 1] ?? "JANUARY", end: MONTHS[range.end - 1] ?? "DECEMBER" })),
    comment: text.trim(),
  };
  const byDay = isRestricted(parts[3]);
  const byWeekday = isRestricted(parts[5]);
  if (byDay && byWeekday)
    return [
      { ...common, dayOfMonth },
      { ...common, dayOfWeek },
    ];
  return [{ ...common, ...(byDay ? { dayOfMonth } : {}), ...(byWeekday ? { dayOfWeek } : {}) }];
}

/** The numbers that a field of ranges stands for: the form in which two calendars can be compared. */
export function expandRanges(ranges: readonly { start: number | string; end?: number | string; step?: number }[]): number[] {
  const numbers = new Set<number>();
  for (const range of ranges) {
    const start = ordinal(range.start);
    const end = range.end === undefined ? start : ordinal(range.end);
    for (let value = start; value <= end; value += Math.max(1, range.step ?? 1)) numbers.add(value);
  }
  return [...numbers].toSorted((a, b) => a - b);
}

function ordinal(value: number | string): number {
  if (typeof value === "number") return value;
  const month = MONTHS.findIndex((name) => name === value);
  return month >= 0 ? month + 1 : DAYS.findIndex((name) => name === value);
}

/** With both ends: the client takes an absent one for Monday. */
function weekdays(ranges: readonly Range[]): { start: (typeof DAYS)[number]; end: (typeof DAYS)[number] }[] {
  const days = new Set(expandRanges(ranges).map((day) => day % 7));
  return [...days].toSorted((a, b) => a - b).map((day) => ({ start: DAYS[day] ?? "SUNDAY", end: DAYS[day] ?? "SUNDAY" }));
}

/** A step over all values is a restriction too. */
function isRestricted(part: string | undefined): boolean {
  return part !== undefined && !part.split(",").some((item) => /^[*?](?:\/0*1)?$/.test(item));
}

function parseField(text: string, part: string, field: Field): Range[] {
  return part.split(",").map((item) => {
    const [body = "", stepText, more] = item.split("/");
    const step = stepText === undefined ? 1 : Number(stepText);
    if (more !== undefined || !Number.isInteger(step) || step < 1) throw invalid(text, `${item} is no step of ${field.name}`);
    if (body === "*" || body === "?") return { start: field.min, end: field.name === "day of week" ? 6 : field.max, step };
    const [from = "", to, rest] = body.split("-");
    const start = parseValue(text, from, field);
    // "5/10" runs from 5 to the end.
    const end = to === undefined ? (stepText === undefined ? start : field.max) : parseValue(text, to, field);
    if (rest !== undefined || end < start) throw invalid(text, `${item} is no range of ${field.name}`);
    return { start, end, step };
  });
}

function parseValue(text: string, value: string, field: Field): number {
  const word = field.words?.indexOf(value.toUpperCase()) ?? -1;
  const number = word >= 0 ? word + field.min : /^\d{1,2}$/.test(value) ? Number(value) : Number.NaN;
  if (!(number >= field.min && number <= field.max)) {
    throw invalid(text, `${value} is no ${field.name} (${field.min} to ${field.max})`);
  }
  return number;
}

function invalid(text: string, reason: string): SlipwayError {
  return new SlipwayError("BAD_REQUEST", { message: `invalid cron text ${JSON.stringify(text)}: ${reason}` });
}
