/**
 * Tells that an execution has to be looked at. A mark is only a wake-up: the database notes by itself that a task changed, so a mark that is lost costs
 * the time until the next sweep. Marks of a moment go together, in one round trip.
 */
import type { Logger } from "../../telemetry/logger.ts";
import { isUrgent } from "../plan/slots.ts";
import type { Marked, MarkReason } from "../plan/slots.ts";
import type { RefreshMark, RefreshQueue } from "./refresh-queue.ts";
import type { RefreshStore } from "./refresh-store.ts";

export interface RefreshMarkerOptions {
  readonly queue: Pick<RefreshQueue, "mark">;
  readonly store: Pick<RefreshStore, "saveMarks">;
  readonly logger: Logger;
  readonly batch?: number;
  readonly lingerMs?: number;
}

export interface MarkerStats {
  readonly marked: number;
  /** Went into a batch that had the execution already. */
  readonly coalesced: number;
  readonly batches: number;
  /** Taken by the queue. */
  readonly queued: number;
  /** Written to the database, because the queue was away. */
  readonly saved: number;
  /** Left to the sweep, because the database was away as well, or too many waited. */
  readonly dropped: number;
}

const BATCH = 1_000;
const LINGER_MS = 5;
/** Batches that wait for their round trip; beyond that marks are left to the sweep. */
const MAX_BATCHES = 100;

interface Batch {
  readonly marks: Map<number, RefreshMark>;
  readonly done: Promise<void>;
  readonly finish: () => void;
}

export class RefreshMarker {
  readonly #options: RefreshMarkerOptions;
  readonly #stats = { marked: 0, coalesced: 0, batches: 0, queued: 0, saved: 0, dropped: 0 };
  readonly #flying = new Set<Promise<void>>();
  #gathering: Batch | null = null;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: RefreshMarkerOptions) {
    this.#options = options;
  }

  /** Resolves when the mark is written somewhere. Never fails: whoever changes a task has done so already. */
  asyncRefreshStatus(id: number, vendor: string, reason: MarkReason = {}): Promise<void> {
    return this.#add({ id, vendor, urgent: isUrgent(reason) });
  }

  async markAll(executions: readonly Marked[], reason: MarkReason = {}): Promise<void> {
    const urgent = isUrgent(reason);
    await Promise.all(executions.map(({ id, vendor }) => this.#add({ id, vendor, urgent })));
  }

  stats(): MarkerStats {
    return { ...this.#stats };
  }

  /** Writes what is gathered. */
  async close(): Promise<void> {
    this.#flush();
    await Promise.all(this.#flying);
  }

  #add(mark: RefreshMark): Promise<void> {
    this.#stats.marked += 1;
    if (this.#flying.size >= MAX_BATCHES) {
      this.#stats.dropped += 1;
      return Promise.resolve();
    }
    const batch = (this.#gathering ??= this.#begin());
    const present = batch.marks.get(mark.id);
    if (present) this.#stats.coalesced += 1;
    if (!present || (mark.urgent && !present.urgent)) batch.marks.set(mark.id, mark);
    if (batch.marks.size >= (this.#options.batch ?? BATCH)) this.#flush();
    return batch.done;
  }

  #begin(): Batch {
    this.#timer = setTimeout(() => this.#flush(), this.#options.lingerMs ?? LINGER_MS);
    const { promise, resolve } = Promise.withResolvers<void>();
    return { marks: new Map(), done: promise, finish: resolve };
  }

  #flush(): void {
    clearTimeout(this.#timer);
    const batch = this.#gathering;
    if (!batch) return;
    this.#gathering = null;
    this.#stats.batches += 1;
    const flight = this.#write([...batch.marks.values()]).finally(() => {
      this.#flying.delete(flight);
      batch.finish();
    });
    this.#flying.add(flight);
  }

  async #write(marks: readonly RefreshMark[]): Promise<void> {
    const { queue, store, logger } = this.#options;
    try {
      await queue.mark(marks);
      this.#stats.queued += marks.length;
      return;
    } catch (error) {
      logger.debug({ count: marks.length, error }, "the refresh queue is away, marks go to the database");
    }
    try {
      await store.saveMarks(marks);
      this.#stats.saved += marks.length;
    } catch (error) {
      this.#stats.dropped += marks.length;
      logger.warn(
        { count: marks.length, error },
        "marks for a refresh could not be written anywhere; the sweep will find what they were about",
      );
    }
  }
}
