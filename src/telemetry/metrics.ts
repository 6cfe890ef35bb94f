/**
 * Prometheus metrics. Hot paths count in plain numbers; they are handed to prom-client when /metrics is read, so that a request never
 * pays for a label lookup. Every domain registers a source under its own prefix.
 */
import type { Registry } from "prom-client";

export interface Sample {
  readonly value: number;
  readonly labels?: Readonly<Record<string, string>>;
}

export interface HistogramSample {
  /** Counts per bucket (not cumulative), one more than bounds: the last is everything above. */
  readonly counts: readonly number[];
  readonly sum: number;
  readonly labels?: Readonly<Record<string, string>>;
}

export interface MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly samples?: readonly Sample[];
  readonly bounds?: readonly number[];
  readonly histograms?: readonly HistogramSample[];
}

export type MetricSource = () => readonly MetricFamily[];

export class Metrics {
  #registry: Promise<Registry> | undefined;
  readonly #sources: MetricSource[] = [];
  /** Text in Prometheus format from elsewhere (the Temporal runtime has its own registry). */
  readonly #texts: (() => Promise<string>)[] = [];

  addSource(source: MetricSource): void {
    this.#sources.push(source);
  }

  addText(text: () => Promise<string>): void {
    this.#texts.push(text);
  }

  async render(): Promise<string> {
    this.#registry ??= openProcessMetrics();
    const parts = [await (await this.#registry).metrics()];
    for (const source of this.#sources) for (const family of source()) parts.push(renderFamily(family));
    for (const text of this.#texts) parts.push(await text().catch(() => ""));
    return parts.filter((part) => part !== "").join("\n");
  }
}

export function renderFamilies(families: readonly MetricFamily[]): string {
  return families.map(renderFamily).join("\n");
}

/** The series of the process itself, from the first scrape on: a process that nobody scrapes does not pay for them. */
async function openProcessMetrics(): Promise<Registry> {
  const { collectDefaultMetrics, Registry } = await import("prom-client");
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: "slipway_" });
  return registry;
}

function renderFamily(family: MetricFamily): string {
  const lines = [`# HELP ${family.name} ${family.help}`, `# TYPE ${family.name} ${family.type}`];
  for (const sample of family.samples ?? []) lines.push(`${family.name}${renderLabels(sample.labels)} ${sample.value}`);
  for (const histogram of family.histograms ?? []) {
    let total = 0;
    const bounds = family.bounds ?? [];
    histogram.counts.forEach((count, index) => {
      total += count;
      const bound = bounds[index];
      lines.push(
        `${family.name}_bucket${renderLabels({ ...histogram.labels, le: bound === undefined ? "+Inf" : String(bound) })} ${total}`,
      );
    });
    lines.push(`${family.name}_sum${renderLabels(histogram.labels)} ${histogram.sum}`);
    lines.push(`${family.name}_count${renderLabels(histogram.labels)} ${total}`);
  }
  return `${lines.join("\n")}\n`;
}

function renderLabels(labels: Readonly<Record<string, string>> | undefined): string {
  const entries = Object.entries(labels ?? {});
  if (entries.length === 0) return "";
  return `{${entries.map(([name, value]) => `${name}="${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`).join(",")}}`;
}

/** A histogram of plain numbers: observing is a short loop without allocation. */
export class PlainHistogram {
  readonly bounds: readonly number[];
  readonly counts: number[];
  sum = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Array<number>(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    let index = 0;
    while (index < this.bounds.length && value > (this.bounds[index] as number)) index += 1;
    this.counts[index] = (this.counts[index] as number) + 1;
    this.sum += value;
  }
}

export const SECONDS_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300] as const;
