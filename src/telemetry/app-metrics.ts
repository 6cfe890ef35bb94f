/** The series of the parts that every process has: storage, database, cache, authentication. Read from plain numbers at scrape. */
import type { Auth } from "../auth/open-auth.ts";
import type { InvalidationBus } from "../catalog/cache/invalidation-bus.ts";
import type { Catalog } from "../catalog/open-catalog.ts";
import type { Database } from "../db/pool.ts";
import type { Metrics, MetricFamily } from "./metrics.ts";

export interface MeasuredParts {
  readonly database: Database;
  readonly bus: InvalidationBus;
  readonly catalog: Catalog;
  readonly auth: Auth;
}

export function addAppMetrics(metrics: Metrics, parts: MeasuredParts): void {
  metrics.addSource(() => databaseFamilies(parts.database));
  metrics.addSource(() => flatFamilies("slipway_catalog", parts.catalog.stats()));
  metrics.addSource(() => flatFamilies("slipway_auth", parts.auth.stats()));
  metrics.addSource(() => flatFamilies("slipway_invalidation", parts.bus.stats()));
}

function databaseFamilies(database: Database): MetricFamily[] {
  const stats = database.stats();
  return [
    {
      name: "slipway_database_connections",
      help: "Connections of this process by state; waiting are requests for one.",
      type: "gauge",
      samples: [
        { value: stats.total - stats.idle, labels: { state: "busy" } },
        { value: stats.idle, labels: { state: "idle" } },
        { value: stats.waiting, labels: { state: "waiting" } },
      ],
    },
    { name: "slipway_database_statements_total", help: "Statements sent.", type: "counter", samples: [{ value: stats.statements }] },
    {
      name: "slipway_database_unavailable_total",
      help: "Statements that failed for want of a connection.",
      type: "counter",
      samples: [{ value: stats.errors }],
    },
  ];
}

/** Nested counters become one series for each leaf: {cache: {tags: {hits: 3}}} is slipway_catalog_cache_hits{name="tags"}-like flat names. */
export function flatFamilies(prefix: string, stats: object): MetricFamily[] {
  const families: MetricFamily[] = [];
  for (const [name, value] of Object.entries(stats) as [string, unknown][]) {
    const metric = `${prefix}_${snakeCase(name)}`;
    if (typeof value === "number" || typeof value === "boolean") {
      families.push({ name: metric, help: `${name} of ${prefix}.`, type: "gauge", samples: [{ value: Number(value) }] });
    } else if (typeof value === "object" && value !== null) {
      families.push(...flatFamilies(metric, value));
    }
  }
  return families;
}

function snakeCase(name: string): string {
  return name
    .replaceAll(/[^A-Za-z0-9]+/g, "_")
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1_$2")
    .toLowerCase();
}
