/** What the refresher of this process did, in plain numbers that are read at scrape. */
import { laneName, laneOf } from "../plan/slots.ts";
import { PlainHistogram, SECONDS_BUCKETS } from "../../telemetry/metrics.ts";
import type { BatchOutcome } from "./batch-settler.ts";
import type { RefreshClaim } from "./refresh-queue.ts";

export interface VendorCounts {
  processed: number;
  changed: number;
  failed: number;
}

const NONE: ReadonlySet<number> = new Set();

export class RefreshCounters {
  /** Vendors without a lane of their own are one, "other". */
  readonly byVendor = new Map<string, VendorCounts>();
  readonly batchSizes = new PlainHistogram([1, 10, 50, 100, 250, 500, 750, 1_000, 2_500, 5_000]);
  readonly batchSeconds = new PlainHistogram(SECONDS_BUCKETS);
  /** From the first mark of an execution to the status that can be seen. */
  readonly lagSeconds = new PlainHistogram(SECONDS_BUCKETS);
  /** Statements of batches; sweeps have theirs. */
  statements = 0;
  /** Statements of the refresh altogether. */
  sent = 0;
  /** Batches that met trouble of the database. */
  troubled = 0;
  queueErrors = 0;
  sweeps = 0;
  /** Executions whose mark was lost. */
  sweptUp = 0;
  replayed = 0;
  /** Of earlier designs: marks taken over, what was none, and pages read. */
  oldMarked = 0;
  oldMalformed = 0;
  oldScans = 0;
  /** Slots that this process holds now. */
  held = 0;
  /** Slots that came to this process, or left it. */
  gained = 0;
  lost = 0;
  #slots: ReadonlySet<number> = new Set();

  /** The process holds these slots from now on. What it gave back in between, for a moment or for long, counts when it holds again. */
  holds(slots: readonly number[]): void {
    const now = new Set(slots);
    for (const slot of now) if (!this.#slots.has(slot)) this.gained += 1;
    for (const slot of this.#slots) if (!now.has(slot)) this.lost += 1;
    this.#slots = now;
    this.held = now.size;
  }

  /** Those that it holds now. */
  get slots(): ReadonlySet<number> {
    return this.held === 0 ? NONE : this.#slots;
  }

  batch(claims: readonly RefreshClaim[], outcome: BatchOutcome, ms: number): void {
    this.batchSizes.observe(claims.length);
    this.batchSeconds.observe(ms / 1_000);
    this.statements += outcome.statements;
    if (outcome.trouble !== null) this.troubled += 1;
    const left = new Set(outcome.left);
    const failed = new Set(outcome.failed);
    for (const { id, vendor, claim } of claims) {
      if (failed.has(id)) this.#of(vendor).failed += 1;
      else if (!left.has(id)) {
        this.#of(vendor).processed += 1;
        this.lagSeconds.observe((claim.ageMs + ms) / 1_000);
      }
    }
    for (const { vendor } of outcome.changed) this.#of(vendor).changed += 1;
  }

  #of(name: string): VendorCounts {
    const vendor = laneName(laneOf(name));
    let counts = this.byVendor.get(vendor);
    if (!counts) {
      counts = { processed: 0, changed: 0, failed: 0 };
      this.byVendor.set(vendor, counts);
    }
    return counts;
  }
}
