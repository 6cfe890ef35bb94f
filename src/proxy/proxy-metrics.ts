/** The series of pull-through: fills, upstream calls, hosts and their limits, what clients got from where, and what the cache holds. */
import type { Metrics, MetricFamily, Sample } from "../telemetry/metrics.ts";
import { renderFamilies } from "../telemetry/metrics.ts";
import type { HostGateStats } from "../upstream/host-gate.ts";
import type { UpstreamStats } from "../upstream/pool.ts";
import type { CacheTraffic } from "./cache-traffic.ts";
import type { CacheTotals, CacheView } from "./cache-view.ts";
import type { FillStats } from "./fill/fill-stats.ts";

export interface ProxyMetricsParts {
  readonly fills: { readonly stats: Readonly<FillStats>; readonly active: number };
  readonly pool: { stats(): UpstreamStats };
  readonly traffic: Pick<CacheTraffic, "families">;
  readonly view: Pick<CacheView, "totals">;
  readonly usage: { readonly dropped: number };
  /** Null: no limit. */
  readonly maxBytes: number | null;
}

/** A scrape must not wait for a database that is slow. */
const TOTALS_WAIT_MS = 1_000;

export function addProxyMetrics(metrics: Metrics, parts: ProxyMetricsParts): void {
  metrics.addSource(() => fillFamilies(parts));
  metrics.addSource(() => upstreamFamilies(parts.pool.stats()));
  metrics.addSource(() => parts.traffic.families());
  metrics.addText(async () => renderFamilies(sizeFamilies(await withinTime(parts.view.totals()), parts.maxBytes)));
}

function counter(name: string, help: string, samples: readonly Sample[] | number): MetricFamily {
  return { name, help, type: "counter", samples: typeof samples === "number" ? [{ value: samples }] : samples };
}

function gauge(name: string, help: string, samples: readonly Sample[] | number): MetricFamily {
  return { name, help, type: "gauge", samples: typeof samples === "number" ? [{ value: samples }] : samples };
}

function fillFamilies({ fills, usage }: ProxyMetricsParts): MetricFamily[] {
  const { stats } = fills;
  const outcome = (name: string, value: number): Sample => ({ value, labels: { outcome: name } });
  return [
    gauge("slipway_proxy_fills_running", "Blobs that this process fetches now.", fills.active),
    counter("slipway_proxy_fills_total", "Blobs that this process fetched or tried to.", [
      outcome("started", stats.started),
      outcome("completed", stats.completed),
      outcome("failed", stats.failed),
    ]),
    counter("slipway_proxy_fill_seconds_total", "Time that completed fills took; divide by the completed ones.", stats.secondsSum),
    counter("slipway_proxy_fills_unread_total", "Fills that were stopped because no client waited for them any more.", stats.unread),
    counter("slipway_proxy_fill_mismatches_total", "Upstream sent bytes of another digest.", stats.mismatches),
    counter("slipway_proxy_coalesced_total", "Requests that read what was on its way already, by whose fetch it was.", [
      { value: stats.joined, labels: { owner: "self" } },
      { value: stats.followed, labels: { owner: "other" } },
    ]),
    counter("slipway_proxy_fills_taken_over_total", "Fills of other processes that this one carried on.", stats.takenOver),
    counter("slipway_proxy_upstream_bytes_total", "Bytes of blobs that came from upstream, by why.", [
      { value: stats.upstreamBytes, labels: { reason: "fill" } },
      { value: stats.aheadBytes, labels: { reason: "ahead" } },
    ]),
    counter("slipway_proxy_ahead_requests_total", "Ranges that were fetched for one client ahead of the fill.", stats.aheadRequests),
    counter(
      "slipway_proxy_usage_dropped_total",
      "Uses of cached content that were not noted because too many were waiting.",
      usage.dropped,
    ),
  ];
}

function upstreamFamilies(stats: UpstreamStats): MetricFamily[] {
  const hosts = [...groupByHost(stats.hosts)];
  const perHost = (value: (gates: readonly HostGateStats[]) => number | null): Sample[] =>
    hosts.flatMap(([host, gates]) => {
      const found = value(gates);
      return found === null ? [] : [{ value: found, labels: { host } }];
    });
  return [
    counter(
      "slipway_upstream_calls_total",
      "Calls to other registries by host, kind and status; `none` had no answer.",
      stats.calls.map(({ host, kind, status, count }) => ({ value: count, labels: { host, kind, status } })),
    ),
    gauge(
      "slipway_upstream_breaker_open",
      "1 while calls to the host fail at once because it is in trouble.",
      perHost((gates) => (gates.some((gate) => gate.breaker !== "closed") ? 1 : 0)),
    ),
    gauge("slipway_upstream_ratelimit_remaining", "Pulls that the host still allows, as it last said.", perHost(least("remaining"))),
    gauge("slipway_upstream_ratelimit_limit", "Pulls that the host allows in its window.", perHost(least("limit"))),
    gauge(
      "slipway_upstream_blocked_seconds",
      "How long the host asked to be left alone, from now.",
      perHost((gates) => Math.max(...gates.map((gate) => gate.blockedMs)) / 1000),
    ),
    ...queueFamilies(hosts),
    counter(
      "slipway_upstream_tokens_total",
      "Tokens of other registries: fetched, taken from memory, waited for with others, failed.",
      Object.entries(stats.tokens).map(([outcome, value]) => ({ value, labels: { outcome } })),
    ),
    counter("slipway_upstream_retries_total", "Calls that were made again.", stats.retries),
    counter("slipway_upstream_failovers_total", "Calls that went to a further address of the same upstream.", stats.failovers),
    counter("slipway_upstream_resumes_total", "Bodies that were cut and continued by range.", stats.resumes),
    counter("slipway_upstream_stalls_total", "Bodies that were given up because they hardly moved.", stats.stalls),
    counter("slipway_upstream_body_bytes_total", "Body bytes received from other registries.", stats.bodyBytes),
  ];
}

function queueFamilies(hosts: readonly (readonly [string, readonly HostGateStats[]])[]): MetricFamily[] {
  const perLane = (field: "limit" | "running" | "waiting" | "refused"): Sample[] =>
    hosts.flatMap(([host, gates]) =>
      (["meta", "bulk"] as const).map((lane) => ({
        value: gates.reduce((sum, gate) => sum + gate.queue[lane][field], 0),
        labels: { host, lane },
      })),
    );
  return [
    gauge("slipway_upstream_concurrency_limit", "Calls that may run at once now; falls when the host is overloaded.", perLane("limit")),
    gauge("slipway_upstream_calls_running", "Calls that run now.", perLane("running")),
    gauge("slipway_upstream_calls_waiting", "Calls that wait for their turn.", perLane("waiting")),
    counter("slipway_upstream_calls_refused_total", "Calls that found the queue full or waited too long.", perLane("refused")),
  ];
}

/** A host has one gate for each credential. */
function groupByHost(gates: readonly HostGateStats[]): Map<string, HostGateStats[]> {
  return Map.groupBy(gates, (gate) => gate.host);
}

function least(field: "remaining" | "limit"): (gates: readonly HostGateStats[]) => number | null {
  return (gates) => {
    const known = gates.map((gate) => gate[field]).filter((value) => value !== null);
    return known.length === 0 ? null : Math.min(...known);
  };
}

/** The same in every process, since the cache is one: take the maximum over instances, not the sum. */
function sizeFamilies(totals: CacheTotals | null, maxBytes: number | null): MetricFamily[] {
  const limit = maxBytes === null ? [] : [gauge("harbor_cache_max_size_bytes", "Bytes that cached content may take.", maxBytes)];
  if (totals === null) return limit;
  return [
    gauge("harbor_cache_size_bytes", "Bytes of cached content, of the whole deployment.", totals.bytes),
    gauge("harbor_cache_entries", "Manifests and blobs in the cache, of the whole deployment.", totals.entries),
    ...limit,
  ];
}

async function withinTime(totals: Promise<CacheTotals>): Promise<CacheTotals | null> {
  const late = Promise.withResolvers<null>();
  const timer = setTimeout(() => late.resolve(null), TOTALS_WAIT_MS);
  try {
    return await Promise.race([totals.catch(() => null), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
