/**
 * Watching runs: however many watch one run, this process reads it at most once a second. A message tells that something happened, so that
 * the reading comes at once; without messages it comes by itself.
 */
import type { Clock } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import { vendors } from "../execution/plan/status.ts";
import type { RefreshMarker } from "../execution/refresh/refresh-marker.ts";
import type { Kv, Subscription } from "../kv/kv.ts";
import type { MetricFamily } from "../telemetry/metrics.ts";
import type { RunDetail, RunView } from "./run-view.ts";

/** Messages are execution ids, separated by commas. */
export const RUN_CHANNEL = "replication-runs";

/** So many ids are one message, well below its longest. */
const IDS = 200;

export function runMessages(ids: readonly number[]): string[] {
  const starts = Array.from({ length: Math.ceil(ids.length / IDS) }, (_, index) => index * IDS);
  return starts.map((start) => ids.slice(start, start + IDS).join(","));
}

/** Tells every process that something about the run changed; a lost message costs a moment. */
export function announceRun(kv: Pick<Kv, "publish">, executionId: number): void {
  kv.publish(RUN_CHANNEL, String(executionId)).catch(() => undefined);
}

export type RunListener = (found: { readonly detail: RunDetail | null } | { readonly error: unknown }) => void;

export interface RunFeedParts {
  readonly view: Pick<RunView, "find">;
  readonly kv: Pick<Kv, "publish" | "subscribe">;
  readonly clock: Clock;
  /** What is watched is refreshed before other executions. */
  readonly marker?: Pick<RefreshMarker, "asyncRefreshStatus">;
}

export interface RunFeedLimits {
  readonly maxWatchers: number;
  /** Least time between two readings of one run. */
  readonly minMs: number;
  /** Time between readings while nothing is heard and nothing moves. */
  readonly idleMs: number;
}

export const DEFAULT_RUN_FEED_LIMITS: RunFeedLimits = { maxWatchers: 200, minMs: 1_000, idleMs: 2_000 };

const RETRY_AFTER_SECONDS = 10;
/** Between marks of a watched run. */
const MARK_MS = 5_000;
/** Readings take at most this part of the time: one of ten. */
const COST_FACTOR = 10;

interface Poller {
  readonly executionId: number;
  readonly listeners: Set<RunListener>;
  timer: NodeJS.Timeout | null;
  /** When the timer fires, and when the last reading began. */
  dueMs: number;
  readMs: number;
  /** When it was marked for refresh. */
  markedMs: number;
  /** How long the last reading took. */
  costMs: number;
  reading: boolean;
  /** Something was heard during the reading. */
  again: boolean;
  /** What the last reading found, in short. */
  seen: string;
}

export class RunFeed {
  readonly #parts: RunFeedParts;
  readonly #limits: RunFeedLimits;
  readonly #pollers = new Map<number, Poller>();
  #subscription: Promise<Subscription> | null = null;
  #watchers = 0;
  #refused = 0;
  #readings = 0;

  constructor(parts: RunFeedParts, limits: Partial<RunFeedLimits> = {}) {
    this.#parts = parts;
    this.#limits = { ...DEFAULT_RUN_FEED_LIMITS, ...limits };
  }

  announce(executionId: number): void {
    announceRun(this.#parts.kv, executionId);
  }

  /** The listener hears of every reading until the returned function is called. */
  watch(executionId: number, listener: RunListener): () => void {
    if (this.#watchers >= this.#limits.maxWatchers) {
      this.#refused += 1;
      throw new SlipwayError("TOOMANYREQUESTS", {
        message: `${this.#limits.maxWatchers} watchers are served already; ask for the execution instead`,
        retryAfterSeconds: RETRY_AFTER_SECONDS,
      });
    }
    this.#listen();
    this.#watchers += 1;
    const poller = this.#pollerOf(executionId);
    poller.listeners.add(listener);
    this.#schedule(poller, 0);
    let watching = true;
    return () => {
      if (!watching) return;
      watching = false;
      this.#watchers -= 1;
      poller.listeners.delete(listener);
      if (poller.listeners.size > 0) return;
      if (poller.timer) clearTimeout(poller.timer);
      this.#pollers.delete(executionId);
    };
  }

  async close(): Promise<void> {
    for (const poller of this.#pollers.values()) if (poller.timer) clearTimeout(poller.timer);
    this.#pollers.clear();
    const subscription = await this.#subscription?.catch(() => null);
    await subscription?.close();
  }

  families(): MetricFamily[] {
    const family = (name: string, help: string, value: number): MetricFamily => ({
      name,
      help,
      type: name.endsWith("_total") ? "counter" : "gauge",
      samples: [{ value }],
    });
    return [
      family("slipway_replication_watchers", "Streams of run events that this process serves.", this.#watchers),
      family("slipway_replication_watchers_refused_total", "Streams refused because there were too many.", this.#refused),
      family("slipway_replication_watch_reads_total", "Readings of watched runs, however many watch each.", this.#readings),
    ];
  }

  #pollerOf(executionId: number): Poller {
    const known = this.#pollers.get(executionId);
    if (known) return known;
    const poller: Poller = {
      executionId,
      listeners: new Set(),
      timer: null,
      dueMs: 0,
      readMs: 0,
      markedMs: Number.NEGATIVE_INFINITY,
      costMs: 0,
      reading: false,
      again: false,
      seen: "",
    };
    this.#pollers.set(executionId, poller);
    return poller;
  }

  /** Once for the process, with the first watcher. */
  #listen(): void {
    if (this.#subscription) return;
    const wake = (message: string): void => {
      for (const id of message.split(",")) {
        const poller = this.#pollers.get(Number(id));
        if (poller) this.#schedule(poller, 0);
      }
    };
    this.#subscription = this.#parts.kv.subscribe(RUN_CHANNEL, {
      onMessage: wake,
      onLost: () => undefined,
      onReady: () => {
        for (const poller of this.#pollers.values()) this.#schedule(poller, 0);
      },
    });
    // Readings come by themselves; the next watcher tries again.
    this.#subscription.catch(() => {
      this.#subscription = null;
    });
  }

  #mark(poller: Poller): void {
    const now = this.#parts.clock.now();
    if (now - poller.markedMs < MARK_MS) return;
    poller.markedMs = now;
    void this.#parts.marker?.asyncRefreshStatus(poller.executionId, vendors.replication, { watched: true });
  }

  #schedule(poller: Poller, delayMs: number): void {
    if (poller.reading) {
      poller.again = true;
      return;
    }
    const now = this.#parts.clock.now();
    // A run with very many items is read less often.
    const due = Math.max(now + delayMs, poller.readMs + Math.max(this.#limits.minMs, poller.costMs * COST_FACTOR));
    if (poller.timer) {
      if (poller.dueMs <= due) return;
      clearTimeout(poller.timer);
    }
    poller.dueMs = due;
    poller.timer = setTimeout(() => {
      poller.timer = null;
      void this.#read(poller);
    }, due - now);
  }

  async #read(poller: Poller): Promise<void> {
    poller.reading = true;
    poller.again = false;
    poller.readMs = this.#parts.clock.now();
    this.#readings += 1;
    const before = poller.seen;
    const found = await this.#parts.view.find(poller.executionId).then(
      (detail) => ({ detail }),
      (error: unknown) => ({ error }),
    );
    if ("detail" in found) {
      poller.seen = inShort(found.detail);
      if (found.detail?.execution.endedAt === null) this.#mark(poller);
    }
    for (const listener of poller.listeners) listener(found);
    poller.costMs = this.#parts.clock.now() - poller.readMs;
    poller.reading = false;
    if (poller.listeners.size === 0 || this.#pollers.get(poller.executionId) !== poller) return;
    this.#schedule(poller, poller.seen === before && !poller.again ? this.#limits.idleMs : 0);
  }
}

function inShort(detail: RunDetail | null): string {
  if (!detail) return "";
  const { bytesCopied = 0, bytesMounted = 0, bytesSkipped = 0 } = detail.run ?? {};
  return [detail.execution.revision, bytesCopied, bytesMounted, bytesSkipped].join(" ");
}
