/** The series of the parts that every process has: storage, database, cache, authentication. Read from plain numbers at scrape. */
import type { Auth } from "../auth/open-auth.ts";
import type { InvalidationBus } from "../catalog/cache/invalidation-bus.ts";
import type { Catalog } from "../catalog/open-catalog.ts";
import type { Database } from "../db/pool.ts";
import type { Metrics, MetricFamily, Sample } from "./metrics.ts";

export interface MeasuredParts {
  readonly database: Database;
  readonly bus: InvalidationBus;
  readonly catalog: Catalog;
  readonly auth: Auth;
}

export function addAppMetrics(metrics: Metrics, parts: MeasuredParts): void {
  metrics.addSource(() => databaseFamilies(parts.database));
  metrics.addSource(() => nestedFamilies("slipway_catalog", parts.catalog.stats()));
  metrics.addSource(() => nestedFamilies("slipway_auth", parts.auth.stats()));
  metrics.addSource(() => nestedFamilies("slipway_invalidation", parts.bus.stats()));
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

/** What these parts report that goes up and down; everything else only grows. */
const GAUGES: ReadonlySet<string> = new Set([
  "entries",
  "bytes",
  "hashers",
  "known_headers",
  "waiting",
  "tracked",
  "trusted",
  "peers",
  "scopes",
]);

/**
 * Nested numbers as series. A group within a group becomes a label of it: {cache: {tags: {hits: 3}}} under slipway_catalog is
 * slipway_catalog_cache_hits_total{cache="tags"}.
 */
export function nestedFamilies(prefix: string, stats: object): MetricFamily[] {
  const families = new Map<string, MetricFamily & { samples: Sample[] }>();
  const add = (group: string, name: string, found: { value: unknown; labels?: Sample["labels"] }): void => {
    const { value, labels } = found;
    if (typeof value !== "number" && typeof value !== "boolean") return;
    const leaf = snakeCase(name);
    const type = GAUGES.has(leaf) ? "gauge" : "counter";
    const metric = `${group}_${leaf}${type === "gauge" ? "" : "_total"}`;
    const family = families.get(metric) ?? { name: metric, help: `${name} of ${group}.`, type, samples: [] };
    family.samples.push({ value: Number(value), ...(labels && { labels }) });
    families.set(metric, family);
  };
  for (const [part, inside] of Object.entries(stats)) {
    add(prefix, part, { value: inside });
    for (const [name, value] of entriesOf(inside)) {
      add(`${prefix}_${snakeCase(part)}`, name, { value });
      for (const [leaf, number] of entriesOf(value)) {
        add(`${prefix}_${snakeCase(part)}`, leaf, { value: number, labels: { [snakeCase(part)]: snakeCase(name) } });
      }
    }
  }
  return [...families.values()];
}

function entriesOf(value: unknown): [string, unknown][] {
  return typeof value === "object" && value !== null ? Object.entries(value) : [];
}

function snakeCase(name: string): string {
  return name
    .replaceAll(/[^A-Za-z0-9]+/g, "_")
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1_$2")
    .toLowerCase();
}
