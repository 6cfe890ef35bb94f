/** What the refresher of this process did, in plain numbers that are read at scrape. */
import { PlainHistogram, SECONDS_BUCKETS } from "../../telemetry/metrics.ts";
import type { BatchOutcome } from "./batch-settler.ts";
import type { RefreshClaim } from "./refresh-queue.ts";

export interface VendorCounts {
  processed: number;
  changed: number;
  failed: number;
}

export class RefreshCounters {
  readonly byVendor = new Map<string, VendorCounts>();
  readonly batchSizes = new PlainHistogram([1, 10, 50, 100, 250, 500, 750, 1_000, 2_500, 5_000]);
  readonly batchSeconds = new PlainHistogram(SECONDS_BUCKETS);
  /** Statements of batches; sweeps have theirs. */
  statements = 0;
  /** Batches that met trouble of the database. */
  troubled = 0;
  queueErrors = 0;
  sweeps = 0;
  /** Executions whose mark was lost. */
  sweptUp = 0;
  replayed = 0;
  /** Slots that this process holds now. */
  held = 0;

  batch(claims: readonly RefreshClaim[], outcome: BatchOutcome, ms: number): void {
    this.batchSizes.observe(claims.length);
    this.batchSeconds.observe(ms / 1_000);
    this.statements += outcome.statements;
    if (outcome.trouble !== null) this.troubled += 1;
    const left = new Set(outcome.left);
    const failed = new Set(outcome.failed);
    for (const { id, vendor } of claims) {
      if (failed.has(id)) this.#of(vendor).failed += 1;
      else if (!left.has(id)) this.#of(vendor).processed += 1;
    }
    for (const { vendor } of outcome.changed) this.#of(vendor).changed += 1;
  }

  #of(vendor: string): VendorCounts {
    let counts = this.byVendor.get(vendor);
    if (!counts) {
      counts = { processed: 0, changed: 0, failed: 0 };
      this.byVendor.set(vendor, counts);
    }
    return counts;
  }
}
