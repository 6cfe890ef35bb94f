/** Whether a schedule of the service is as we want it: it gives back calendars in its own spelling. */
import type { ScheduleDescription, ScheduleOverlapPolicy } from "@temporalio/client";
import { expandRanges } from "./cron.ts";
import type { parseCron } from "./cron.ts";

export interface WantedSchedule {
  readonly spec: { readonly calendars: ReturnType<typeof parseCron>; readonly timezone: string };
  readonly policies: { readonly overlap: ScheduleOverlapPolicy; readonly catchupWindow: number };
  readonly action: { readonly workflowType: string; readonly taskQueue: string; readonly args: readonly unknown[] };
}

export function isSameSchedule({ action, policies, spec }: ScheduleDescription, wanted: WantedSchedule): boolean {
  return (
    action.type === "startWorkflow" &&
    action.workflowType === wanted.action.workflowType &&
    action.taskQueue === wanted.action.taskQueue &&
    JSON.stringify(action.args) === JSON.stringify(wanted.action.args) &&
    policies.overlap === wanted.policies.overlap &&
    policies.catchupWindow === wanted.policies.catchupWindow &&
    (spec.timezone ?? "UTC") === wanted.spec.timezone &&
    (spec.intervals?.length ?? 0) === 0 &&
    spec.calendars?.length === wanted.spec.calendars.length &&
    wanted.spec.calendars.every((calendar, index) => isSameCalendar(spec.calendars?.[index], calendar))
  );
}

type Described = NonNullable<ScheduleDescription["spec"]["calendars"]>[number];
type Wanted = ReturnType<typeof parseCron>[number];

const FULL: Readonly<Record<string, { start: number; end: number }>> = {
  second: { start: 0, end: 0 },
  minute: { start: 0, end: 0 },
  hour: { start: 0, end: 0 },
  dayOfMonth: { start: 1, end: 31 },
  month: { start: 1, end: 12 },
  dayOfWeek: { start: 0, end: 6 },
};

function isSameCalendar(described: Described | undefined, wanted: Wanted): boolean {
  if (!described) return false;
  return (["second", "minute", "hour", "dayOfMonth", "month", "dayOfWeek"] as const).every((field) => {
    const whole = [FULL[field] ?? { start: 0, end: 0 }];
    const want = wanted[field];
    const ranges = Array.isArray(want) ? (want as { start: number | string }[]) : whole;
    const have: readonly { start: number | string }[] = described[field].length > 0 ? described[field] : whole;
    return expandRanges(have).join() === expandRanges(ranges).join();
  });
}
