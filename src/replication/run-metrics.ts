/** The series of replication: what became of runs by policy, bytes by target, what goes on, and how old the last success is. */
import type { Clock } from "../core/clock.ts";
import type { Metrics, MetricFamily, Sample } from "../telemetry/metrics.ts";
import { renderFamilies } from "../telemetry/metrics.ts";
import { redact } from "../telemetry/redact.ts";
import type { PolicyFigures, RunFigures, RunFigureTotals } from "./run-figures.ts";

export interface RunMetricsParts {
  readonly figures: Pick<RunFigures, "fold" | "totals">;
  readonly clock: Clock;
}

/** As many policies as are read at all. */
const MAX_POLICIES = 10_000;
/** Policies and targets with a series of their own; what is above is one series, "other". */
export const MAX_LABELS = 500;
/** A scrape must not wait for a database that is slow. */
const WAIT_MS = 1_000;
/** Several scrapers cost no more than one. */
const FRESH_MS = 5_000;

/** Executions end in these states; the words of the API are for people. */
const OUTCOMES: Readonly<Record<string, string>> = { Success: "succeeded", Error: "failed", Stopped: "stopped", Skipped: "skipped" };
const OPEN: Readonly<Record<string, string>> = { Pending: "pending", Running: "running", Paused: "paused" };

export function addRunMetrics(metrics: Metrics, parts: RunMetricsParts): void {
  let known: { readonly text: string; readonly atMs: number } | null = null;
  metrics.addText(async () => {
    const now = parts.clock.now();
    if (known && now - known.atMs < FRESH_MS) return known.text;
    const totals = await withinTime(read(parts.figures));
    // Better an older answer than a gap, which alerts would take for something else.
    if (totals === null) return known?.text ?? "";
    known = { text: renderFamilies(runFamilies(totals)), atMs: now };
    return known.text;
  });
}

async function read(figures: RunMetricsParts["figures"]): Promise<RunFigureTotals> {
  // What has piled up since the last scrape, in bounded steps; the rest is for the next one.
  for (let step = 0; step < 10 && (await figures.fold()) > 0; step += 1);
  return await figures.totals(MAX_POLICIES);
}

export function runFamilies({ policies, targets, open }: RunFigureTotals): MetricFamily[] {
  return [
    {
      name: "slipway_replication_executions",
      help: "Replication runs that have not ended, by state.",
      type: "gauge",
      samples: Object.entries(OPEN).map(([state, word]) => ({ value: open[state] ?? 0, labels: { state: word } })),
    },
    {
      name: "slipway_replication_runs_total",
      help: "Replication runs that ended, by policy and outcome.",
      type: "counter",
      samples: outcomeSamples(policies),
    },
    {
      name: "slipway_replication_last_success_age_seconds",
      help: "Time since the last successful run of an enabled policy, or since it was made when there was none.",
      type: "gauge",
      samples: policies
        .slice(0, MAX_LABELS)
        .filter(({ enabled }) => enabled)
        .map(({ name, successAgeSeconds }) => ({ value: Math.round(successAgeSeconds), labels: { policy: redact(name) } })),
    },
    {
      name: "slipway_replication_bytes_total",
      help: "Bytes of blobs that ended runs copied, by target registry.",
      type: "counter",
      samples: summed(targets.map(({ name, bytes }) => ({ label: name, value: bytes }))).map(({ label, value }) => ({
        value,
        labels: { target: redact(label) },
      })),
    },
  ];
}

function outcomeSamples(policies: readonly PolicyFigures[]): Sample[] {
  return Object.entries(OUTCOMES).flatMap(([state, outcome]) =>
    summed(policies.map(({ name, outcomes }) => ({ label: name, value: outcomes[state] ?? 0 }))).map(({ label, value }) => ({
      value,
      labels: { policy: redact(label), outcome },
    })),
  );
}

interface Labelled {
  readonly label: string;
  readonly value: number;
}

function summed(values: readonly Labelled[]): Labelled[] {
  if (values.length <= MAX_LABELS) return [...values];
  const other = values.slice(MAX_LABELS).reduce((sum, { value }) => sum + value, 0);
  return [...values.slice(0, MAX_LABELS), { label: "other", value: other }];
}

async function withinTime(totals: Promise<RunFigureTotals>): Promise<RunFigureTotals | null> {
  const late = Promise.withResolvers<null>();
  const timer = setTimeout(() => late.resolve(null), WAIT_MS);
  try {
    return await Promise.race([totals.catch(() => null), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
