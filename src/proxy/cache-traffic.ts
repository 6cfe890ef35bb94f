/**
 * What clients asked for and where the answers came from. Counts in plain numbers for the metrics of this process; hits and misses are also added up in the database, so
 * that they outlive processes and count for all of them.
 */
import type { Queryable } from "../db/pool.ts";
import type { RequestObserver, RequestRecord } from "../telemetry/access-log.ts";
import type { Logger } from "../telemetry/logger.ts";
import { PlainHistogram, SECONDS_BUCKETS } from "../telemetry/metrics.ts";
import type { MetricFamily, Sample } from "../telemetry/metrics.ts";

const FLUSH_MS = 10_000;
const COUNTED_ROUTES: ReadonlySet<string> = new Set(["manifest", "blob", "tags", "referrers"]);
/** Downloads: what a hit rate is about. */
const PULL_ROUTES: ReadonlySet<string> = new Set(["manifest", "blob"]);
const FROM_CACHE: ReadonlySet<string> = new Set(["HIT", "STALE", "REVALIDATED"]);
const HEALTH_PATHS: ReadonlySet<string> = new Set(["/health", "/healthz"]);

interface StateCounters {
  readonly route: string;
  readonly cache: string;
  requests: number;
  bytes: number;
  readonly firstByte: PlainHistogram;
}

export interface CacheHits {
  readonly hits: number;
  readonly misses: number;
}

export class CacheTraffic implements RequestObserver {
  readonly #db: Queryable;
  readonly #logger: Logger;
  readonly #timer: NodeJS.Timeout;
  readonly #states = new Map<string, StateCounters>();
  readonly #seconds = new PlainHistogram(SECONDS_BUCKETS);
  #requests = 0;
  #errors = 0;
  #healthChecks = 0;
  #hits = 0;
  #misses = 0;
  #flushedHits = 0;
  #flushedMisses = 0;

  constructor(db: Queryable, logger: Logger) {
    this.#db = db;
    this.#logger = logger;
    this.#timer = setInterval(() => void this.flush(), FLUSH_MS);
    this.#timer.unref();
  }

  onResponse(record: RequestRecord): void {
    this.#requests += 1;
    this.#seconds.observe(record.durationMs / 1000);
    if (record.status >= 500) this.#errors += 1;
    if (record.cache !== undefined && COUNTED_ROUTES.has(record.route)) this.#count(record, record.cache);
    else if (record.path !== undefined && HEALTH_PATHS.has(record.path)) this.#healthChecks += 1;
  }

  /** Of all processes, since the beginning. */
  async totals(): Promise<CacheHits> {
    const { rows } = await this.#db.query<{ name: string; value: number }>(
      "SELECT name, value FROM cache_counters WHERE name IN ('hits', 'misses')",
    );
    const valueOf = (name: string): number => rows.find((row) => row.name === name)?.value ?? 0;
    // What this process has not written yet counts too.
    return {
      hits: valueOf("hits") + this.#hits - this.#flushedHits,
      misses: valueOf("misses") + this.#misses - this.#flushedMisses,
    };
  }

  async flush(): Promise<void> {
    const [hits, misses] = [this.#hits - this.#flushedHits, this.#misses - this.#flushedMisses];
    if (hits === 0 && misses === 0) return;
    this.#flushedHits += hits;
    this.#flushedMisses += misses;
    try {
      await this.#db.query(
        `INSERT INTO cache_counters (name, value) VALUES ('hits', $1), ('misses', $2)
         ON CONFLICT (name) DO UPDATE SET value = cache_counters.value + EXCLUDED.value`,
        [hits, misses],
      );
    } catch (error) {
      this.#flushedHits -= hits;
      this.#flushedMisses -= misses;
      this.#logger.debug({ error }, "hits and misses were not written");
    }
  }

  families(): MetricFamily[] {
    const states = [...this.#states.values()];
    const labelled = (value: (state: StateCounters) => number): Sample[] =>
      states.map((state) => ({ value: value(state), labels: { route: state.route, cache: state.cache } }));
    const counter = (name: string, help: string, samples: readonly Sample[]): MetricFamily => ({ name, help, type: "counter", samples });
    return [
      counter(
        "slipway_proxy_requests_total",
        "Requests for content of proxy projects by what was asked and where the answer came from.",
        labelled((state) => state.requests),
      ),
      counter(
        "slipway_proxy_served_bytes_total",
        "Body bytes sent to clients of proxy projects, by the same.",
        labelled((state) => state.bytes),
      ),
      {
        name: "slipway_proxy_first_byte_seconds",
        help: "Time from a request for content of a proxy project to the first byte of the answer, by where it came from.",
        type: "histogram",
        bounds: SECONDS_BUCKETS,
        histograms: states.map(({ route, cache, firstByte }) => ({
          counts: firstByte.counts,
          sum: firstByte.sum,
          labels: { route, cache },
        })),
      },
      counter("harbor_cache_requests_total", "Requests answered by this process.", [{ value: this.#requests }]),
      counter("harbor_cache_errors_total", "Requests answered with a status of 500 and above.", [{ value: this.#errors }]),
      counter("harbor_cache_hits_total", "Downloads of proxied content that were answered from here.", [{ value: this.#hits }]),
      counter("harbor_cache_misses_total", "Downloads of proxied content that came from upstream.", [{ value: this.#misses }]),
      counter("harbor_cache_health_checks_total", "Requests for /health.", [{ value: this.#healthChecks }]),
      {
        name: "harbor_cache_request_duration_seconds",
        help: "Time from the request to the end of the answer.",
        type: "histogram",
        bounds: SECONDS_BUCKETS,
        histograms: [{ counts: this.#seconds.counts, sum: this.#seconds.sum }],
      },
    ];
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
  }

  #count(record: RequestRecord, cache: string): void {
    const key = `${record.route} ${cache}`;
    let state = this.#states.get(key);
    if (!state) {
      state = { route: record.route, cache, requests: 0, bytes: 0, firstByte: new PlainHistogram(SECONDS_BUCKETS) };
      this.#states.set(key, state);
    }
    state.requests += 1;
    state.bytes += record.bytesSent;
    if (record.method !== "GET" || record.status >= 400) return;
    state.firstByte.observe((record.firstByteMs ?? record.durationMs) / 1000);
    if (!PULL_ROUTES.has(record.route)) return;
    if (FROM_CACHE.has(cache)) this.#hits += 1;
    else if (cache === "MISS") this.#misses += 1;
  }
}
