/** Counts what is asked of blob storage, how long it takes and what fails, whichever driver does it. */
import { isSlipwayError } from "../core/errors.ts";
import type { AppendOptions, AppendResult, BlobStore, StorageSpace } from "../storage/blob-store.ts";
import { PlainHistogram, SECONDS_BUCKETS } from "./metrics.ts";
import type { MetricFamily } from "./metrics.ts";

const OPERATIONS = [
  "stat",
  "read",
  "readAll",
  "put",
  "remove",
  "list",
  "createSession",
  "append",
  "commitSession",
  "abortSession",
  "adoptFile",
  "putObject",
  "getObject",
  "removeObject",
] as const;
type Operation = (typeof OPERATIONS)[number];

/** An append lasts as long as its client sends; its time says nothing about storage. */
const UNTIMED: ReadonlySet<Operation> = new Set(["append"]);

interface Counters {
  done: number;
  failed: number;
  readonly seconds: PlainHistogram;
}

export class StorageMetrics {
  readonly #counters = new Map<Operation, Counters>();
  #written = 0;
  #space: StorageSpace | null = null;

  /** The same store, counted. */
  measure(store: BlobStore): BlobStore {
    const measured = new Map<PropertyKey, unknown>();
    for (const operation of OPERATIONS) {
      const call = store[operation].bind(store) as (...args: unknown[]) => Promise<unknown>;
      measured.set(operation, (...args: unknown[]) => this.#count(operation, args, call));
    }
    return new Proxy(store, {
      get(target, name) {
        const known = measured.get(name);
        if (known !== undefined) return known;
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        // The drivers have private fields, which only they themselves may reach.
        const bound: unknown = value.bind(target);
        measured.set(name, bound);
        return bound;
      },
    });
  }

  families(store: BlobStore): MetricFamily[] {
    // Room is asked for in the background: a scrape shows what the one before found.
    store.space().then(
      (space) => {
        this.#space = space;
      },
      () => undefined,
    );
    const operations: { value: number; labels: Record<string, string> }[] = [];
    const histograms: { counts: readonly number[]; sum: number; labels: Record<string, string> }[] = [];
    for (const [operation, { done, failed, seconds }] of this.#counters) {
      operations.push({ value: done, labels: { operation, outcome: "done" } }, { value: failed, labels: { operation, outcome: "failed" } });
      if (!UNTIMED.has(operation)) histograms.push({ counts: seconds.counts, sum: seconds.sum, labels: { operation } });
    }
    return [
      { name: "slipway_storage_operations_total", help: "Calls of blob storage.", type: "counter", samples: operations },
      { name: "slipway_storage_seconds", help: "Time of a call.", type: "histogram", bounds: SECONDS_BUCKETS, histograms },
      { name: "slipway_storage_written_bytes_total", help: "Bytes stored.", type: "counter", samples: [{ value: this.#written }] },
      ...this.#room(),
    ];
  }

  #room(): MetricFamily[] {
    if (this.#space === null) return [];
    const { totalBytes, freeBytes } = this.#space;
    return [
      { name: "slipway_storage_size_bytes", help: "Size of the file system.", type: "gauge", samples: [{ value: totalBytes }] },
      { name: "slipway_storage_free_bytes", help: "Room left on it.", type: "gauge", samples: [{ value: freeBytes }] },
    ];
  }

  async #count(operation: Operation, args: readonly unknown[], call: (...args: unknown[]) => Promise<unknown>): Promise<unknown> {
    const counters = this.#of(operation);
    const begun = performance.now();
    try {
      const result = await call(...args);
      counters.done += 1;
      this.#written += writtenBytes(operation, args, result);
      return result;
    } catch (error) {
      // An answer, not a failure.
      if (isSlipwayError(error, "BLOB_UNKNOWN")) counters.done += 1;
      else counters.failed += 1;
      throw error;
    } finally {
      if (!UNTIMED.has(operation)) counters.seconds.observe((performance.now() - begun) / 1000);
    }
  }

  #of(operation: Operation): Counters {
    let counters = this.#counters.get(operation);
    if (!counters) {
      counters = { done: 0, failed: 0, seconds: new PlainHistogram(SECONDS_BUCKETS) };
      this.#counters.set(operation, counters);
    }
    return counters;
  }
}

function writtenBytes(operation: Operation, args: readonly unknown[], result: unknown): number {
  if (operation === "append") return (result as AppendResult).offset - (args[2] as AppendOptions).offset;
  if (operation === "put" || operation === "putObject") return (args[1] as Uint8Array).byteLength;
  return operation === "adoptFile" ? (args[1] as { size: number }).size : 0;
}
