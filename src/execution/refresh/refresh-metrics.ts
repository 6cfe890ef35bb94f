/**
 * The series of the refresh. Plain numbers are read at scrape; the state of the queue and what is set aside are asked for then, with a deadline, and
 * not more often than every few seconds.
 */
import type { Clock } from "../../core/clock.ts";
import { renderFamilies } from "../../telemetry/metrics.ts";
import type { MetricFamily, Metrics, PlainHistogram, Sample } from "../../telemetry/metrics.ts";
import type { RefreshInstances } from "./instances.ts";
import type { MarkerStats } from "./refresh-marker.ts";
import type { RefreshCounters } from "./refresh-counters.ts";
import type { LaneState, RefreshQueue } from "./refresh-queue.ts";
import type { RefreshStore } from "./refresh-store.ts";

export interface RefreshMetricsParts {
  readonly queue: Pick<RefreshQueue, "states" | "expiries" | "slots">;
  readonly store: Pick<RefreshStore, "countSetAside">;
  readonly counters: RefreshCounters;
  readonly instances: Pick<RefreshInstances, "known" | "problems">;
  readonly clock: Clock;
}

const WAIT_MS = 1_000;
/** Several scrapers cost no more than one. */
const FRESH_MS = 5_000;

/** Every process may mark. */
export function markFamilies({ queued, coalesced, saved, dropped }: MarkerStats): MetricFamily[] {
  return [
    {
      name: "slipway_refresh_marks_total",
      help: "Marks of executions by result: queued, coalesced with another of the moment, saved in the database, or dropped and left to the sweep.",
      type: "counter",
      samples: Object.entries({ queued, coalesced, saved, dropped }).map(([result, value]) => ({ value, labels: { result } })),
    },
  ];
}

/** Of a process that refreshes. */
export function addRefreshMetrics(metrics: Metrics, parts: RefreshMetricsParts): void {
  metrics.addSource(() => workFamilies(parts));
  let known: { readonly text: string; readonly atMs: number } | null = null;
  metrics.addText(async () => {
    const now = parts.clock.now();
    if (known && now - known.atMs < FRESH_MS) return known.text;
    const families = await withinTime(readQueue(parts));
    // Rather no answer than one that says of a queue that is away that it is short.
    if (families === null) return "";
    known = { text: renderFamilies(families), atMs: now };
    return known.text;
  });
}

async function readQueue({ queue, store, counters }: RefreshMetricsParts): Promise<MetricFamily[]> {
  const [states, setAside] = await Promise.all([queue.states(), store.countSetAside()]);
  return queueFamilies(states, counters.slots, setAside);
}

/** By slot and vendor for what this process holds, and only where something waits; altogether for everything, so that slots without a holder show. */
export function queueFamilies(states: readonly LaneState[], held: ReadonlySet<number>, setAside: number): MetricFamily[] {
  const own = states.filter(({ slot, depth }) => depth > 0 && held.has(slot));
  const labelled = (value: (state: LaneState) => number): Sample[] =>
    own.map((state) => ({ value: value(state), labels: { slot: String(state.slot), vendor: state.vendor } }));
  const seconds = (ms: number): number => ms / 1_000;
  return [
    gauge(
      "depth",
      "Executions that wait or are being refreshed, in slots of this instance where there are any.",
      labelled((state) => state.depth),
    ),
    gauge(
      "oldest_seconds",
      "Age of the oldest mark that waits, as above.",
      labelled((state) => seconds(state.oldestAgeMs)),
    ),
    gauge("queue_depth", "Executions that wait or are being refreshed, in all slots, whoever holds them.", [
      { value: states.reduce((sum, { depth }) => sum + depth, 0) },
    ]),
    gauge("queue_oldest_seconds", "Age of the oldest mark that waits in any slot.", [
      { value: seconds(states.reduce((most, { oldestAgeMs }) => Math.max(most, oldestAgeMs), 0)) },
    ]),
    gauge("set_aside", "Executions whose refresh failed too often and is not tried any more.", [{ value: setAside }]),
  ];
}

function workFamilies({ queue, counters, instances }: RefreshMetricsParts): MetricFamily[] {
  const vendors = [...counters.byVendor];
  const byVendor = (kind: "processed" | "changed" | "failed"): Sample[] =>
    vendors.map(([vendor, counts]) => ({ value: counts[kind], labels: { vendor } }));
  const one = (value: number): Sample[] => [{ value }];
  return [
    counter("processed_total", "Executions that were looked at.", byVendor("processed")),
    counter("changed_total", "Executions whose row changed.", byVendor("changed")),
    counter("failed_total", "Executions whose refresh failed.", byVendor("failed")),
    histogram("batch_executions", "Executions of one batch.", counters.batchSizes),
    histogram("batch_seconds", "Time of one batch, from its claim to the end of its statement.", counters.batchSeconds),
    histogram("lag_seconds", "From the first mark of an execution to its status in the database.", counters.lagSeconds),
    counter("statements_total", "Database statements: those that settle batches, and sweeps, marks and bookkeeping.", [
      { value: counters.statements, labels: { kind: "batch" } },
      { value: Math.max(0, counters.sent - counters.statements), labels: { kind: "other" } },
    ]),
    counter("troubled_batches_total", "Batches that met trouble of the database; their slots rested.", one(counters.troubled)),
    counter("queue_errors_total", "Calls of the queue that failed.", one(counters.queueErrors)),
    counter("lease_expiries_total", "Claims found run out: of killed instances, or given back after a failure.", one(queue.expiries)),
    counter("sweeps_total", "Sweeps for lost marks by this instance.", one(counters.sweeps)),
    counter("swept_up_total", "Executions whose mark was lost.", one(counters.sweptUp)),
    counter("replayed_total", "Marks that had been saved in the database while the queue was away.", one(counters.replayed)),
    counter("old_marks_total", "What the drain of marks of earlier designs found.", [
      { value: counters.oldMarked, labels: { result: "marked" } },
      { value: counters.oldMalformed, labels: { result: "malformed" } },
    ]),
    counter("old_scans_total", "Pages that the drain read, of sets and of the key space.", one(counters.oldScans)),
    gauge("slots", "Slots that there are.", one(queue.slots)),
    gauge("slots_held", "Slots that this instance holds.", one(counters.held)),
    counter("slot_moves_total", "Slots that came to this instance, or left it.", [
      { value: counters.gained, labels: { direction: "gained" } },
      { value: counters.lost, labels: { direction: "lost" } },
    ]),
    gauge("instances", "Instances that take part.", one(instances.known().length)),
    gauge("instance_problems", "Gaps and duplicates among fixed instance numbers.", one(instances.problems().length)),
  ];
}

function gauge(name: string, help: string, samples: readonly Sample[]): MetricFamily {
  return { name: `slipway_refresh_${name}`, help, type: "gauge", samples };
}

function counter(name: string, help: string, samples: readonly Sample[]): MetricFamily {
  return { name: `slipway_refresh_${name}`, help, type: "counter", samples };
}

function histogram(name: string, help: string, { bounds, counts, sum }: PlainHistogram): MetricFamily {
  return { name: `slipway_refresh_${name}`, help, type: "histogram", bounds, histograms: [{ counts, sum }] };
}

async function withinTime<T>(work: Promise<T>): Promise<T | null> {
  const late = Promise.withResolvers<null>();
  const timer = setTimeout(() => late.resolve(null), WAIT_MS);
  try {
    return await Promise.race([work.catch(() => null), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
