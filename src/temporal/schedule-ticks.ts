/** Whether a schedule fired when it should have: the service tells which ticks match, and which of them it acted upon. */
import type { ScheduleDescription } from "@temporalio/client";
import type { CallOptions, TemporalConnection } from "./connection.ts";

export interface TickCheck {
  readonly temporal: TemporalConnection;
  readonly description: ScheduleDescription;
  readonly options: CallOptions;
  readonly now?: () => number;
}

/** Ticks are given this long to be acted upon. */
const GRACE_MS = 2 * 60_000;
const LOOK_BACK_MS = 24 * 3_600_000;
/** Looked at first: the service gives back a thousand ticks at most. */
const NEAR_MS = 3_600_000;

/** Of the last tick only, and only of those since the schedule was last changed. */
export async function didNotFire({ temporal, description, options, now = Date.now }: TickCheck): Promise<boolean> {
  const { createdAt, lastUpdatedAt, recentActions, runningActions } = description.info;
  // The tick before waits for a worker, and stands for those that came after it.
  if (runningActions.length > 0) return false;
  const until = now() - GRACE_MS;
  const since = Math.max(createdAt.getTime(), lastUpdatedAt?.getTime() ?? 0, until - LOOK_BACK_MS);
  if (since >= until) return false;
  const lastAction = Math.max(0, ...recentActions.map(({ scheduledAt }) => scheduledAt.getTime()));
  const near = Math.max(since, until - NEAR_MS);
  const id = description.scheduleId;
  const last =
    (await matchingTicks(temporal, { id, from: near, to: until }, options)).at(-1) ??
    (near > since ? (await matchingTicks(temporal, { id, from: since, to: near }, options)).at(-1) : undefined);
  return last !== undefined && lastAction < last;
}

/** Its next tick lies behind us. */
export function isStuck({ info }: ScheduleDescription, now: number): boolean {
  const next = info.nextActionTimes[0]?.getTime();
  return next === undefined || next < now - GRACE_MS;
}

/** When the schedule ticks, paused or not, between two times, in milliseconds since the epoch. */
export async function matchingTicks(
  temporal: TemporalConnection,
  { id, from, to }: { readonly id: string; readonly from: number; readonly to: number },
  options: CallOptions = {},
): Promise<number[]> {
  const { startTime } = await temporal.call(
    (client) =>
      client.workflowService.listScheduleMatchingTimes({
        namespace: temporal.namespace,
        scheduleId: id,
        startTime: toTimestamp(from),
        endTime: toTimestamp(to),
      }),
    options,
  );
  return startTime.map(({ seconds, nanos }) => Number(seconds) * 1000 + Math.floor((nanos ?? 0) / 1e6));
}

type Timestamp = NonNullable<ScheduleDescription["raw"]["info"]>["createTime"];

function toTimestamp(ms: number): NonNullable<Timestamp> {
  // The type asks for a long integer, of which the encoder takes a number as well.
  const seconds = Math.floor(ms / 1000) as unknown as NonNullable<NonNullable<Timestamp>["seconds"]>;
  return { seconds, nanos: Math.round((ms % 1000) * 1e6) };
}
