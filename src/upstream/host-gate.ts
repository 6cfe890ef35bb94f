/**
 * Everything that decides whether a call to one (origin, credential) may go now: breaker, blocks from Retry-After, announced pull budget,
 * queue. The rules are in their own files; this one asks them in order and feeds them what happened.
 */
import { backoffDelay } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import type { Clock } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import { Breaker } from "./breaker.ts";
import type { BreakerState } from "./breaker.ts";
import type { TransportFailure } from "./failure.ts";
import { HostQueue } from "./host-queue.ts";
import type { Slot } from "./host-queue.ts";
import { parseRateLimit, RateBudget } from "./rate-limit.ts";
import type { Lane } from "./request.ts";
import { parseRetryAfter } from "./retry-after.ts";
import { RetryBudget } from "./retry-budget.ts";
import type { HostSignals, SharedHostState } from "./shared-host-state.ts";
import type { Priority } from "./types.ts";

export interface HostGateOptions {
  readonly key: string;
  readonly host: string;
  readonly clock: Clock;
  readonly shared: SharedHostState;
  /** True when the host answers at all. Has its own short deadline. */
  readonly probe: () => Promise<boolean>;
  readonly processes?: (() => number) | undefined;
  readonly metaConcurrency?: { readonly initial: number; readonly ceiling: number } | undefined;
  readonly bulkConcurrency?: { readonly initial: number; readonly ceiling: number } | undefined;
  readonly queueBound?: number | undefined;
  /** Part of the slots that is kept for interactive calls; a quarter by default, none where there are no such calls. */
  readonly reserve?: number | undefined;
  readonly breakerThreshold?: number | undefined;
  readonly probeIntervalMs?: number | undefined;
}

export interface EnterOptions {
  readonly lane: Lane;
  readonly priority: Priority;
  readonly waitMs: number;
  readonly blockWaitMs?: number | undefined;
  readonly counted: boolean;
  readonly signal?: AbortSignal | undefined;
}

interface Block {
  until: number;
  code: "UPSTREAM_LIMITED" | "UPSTREAM_UNAVAILABLE";
}

/** Longer waits are told to the caller, but we look again after this time. */
const MAX_BLOCK_MS = 3_600_000;
const PROBES_WITHOUT_CALLS_MS = 10 * 60_000;
const BLOCK_BACKOFF = { baseMs: 1000, capMs: 60_000 };

export interface HostGateStats {
  readonly host: string;
  readonly breaker: BreakerState;
  readonly remaining: number | null;
  readonly limit: number | null;
  readonly blockedMs: number;
  readonly queue: Readonly<Record<Lane, { limit: number; running: number; waiting: number; refused: number }>>;
}

export class HostGate {
  readonly #options: HostGateOptions;
  readonly #queues: Readonly<Record<Lane, HostQueue>>;
  readonly #breaker: Breaker;
  readonly #budget: RateBudget;
  readonly retries = new RetryBudget();
  readonly #all: Block = { until: 0, code: "UPSTREAM_LIMITED" };
  readonly #pulls: Block = { until: 0, code: "UPSTREAM_LIMITED" };
  #blocksInARow = 0;
  #breakerChangedAt = 0;
  #lastCallAt = 0;
  #probeTimer: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(options: HostGateOptions) {
    this.#options = options;
    const { clock, processes, queueBound, reserve } = options;
    const bound = { ...(queueBound === undefined ? {} : { queueBound }), ...(reserve === undefined ? {} : { reserve }) };
    this.#queues = {
      meta: new HostQueue({ clock, processes, ...bound, ...(options.metaConcurrency ?? { initial: 32, ceiling: 64 }) }),
      bulk: new HostQueue({ clock, processes, ...bound, ...(options.bulkConcurrency ?? { initial: 32, ceiling: 128 }) }),
    };
    this.#breaker = new Breaker({
      clock,
      ...(options.breakerThreshold === undefined ? {} : { threshold: options.breakerThreshold }),
      ...(options.probeIntervalMs === undefined ? {} : { probeIntervalMs: options.probeIntervalMs }),
    });
    this.#budget = new RateBudget({ clock });
    void options.shared.read(options.key).then((signals) => signals && this.receive(signals));
  }

  async enter(options: EnterOptions): Promise<Slot> {
    this.#lastCallAt = this.#options.clock.now();
    this.#checkBreaker();
    const waited = await this.#waitForBlocks(options);
    this.#checkBudget(options);
    const slot = await this.#queues[options.lane].acquire({ ...options, waitMs: options.waitMs - waited });
    try {
      // Both may have changed while the call stood in the queue.
      this.#checkBreaker();
      this.#checkBudget(options);
    } catch (error) {
      slot.release("neutral");
      throw error;
    }
    if (options.counted) this.#budget.spend();
    this.retries.called();
    return slot;
  }

  /** Feeds an answer's status and headers; returns what it means for the slot and for how long the host asked to be left alone. */
  answered(
    status: number,
    counted: boolean,
    header: (name: string) => string | undefined,
  ): { outcome: "ok" | "overload"; retryAfterMs: number | null } {
    const rate = parseRateLimit(header);
    if (rate) this.#budget.observe(rate);
    const retryAfterMs = parseRetryAfter(header("retry-after"), this.#options.clock.now());
    if (status === 429) {
      this.#breaker.success();
      // Where a pull budget is announced, the answer is about that budget, and calls that do not count against it still work.
      this.#block(rate && counted ? this.#pulls : this.#all, "UPSTREAM_LIMITED", retryAfterMs);
      return { outcome: "overload", retryAfterMs };
    }
    if (status === 503 && retryAfterMs !== null) this.#block(this.#all, "UPSTREAM_UNAVAILABLE", retryAfterMs);
    else if (status >= 500 && status !== 501 && status !== 505) this.#strike(1);
    else {
      this.#blocksInARow = 0;
      this.#breaker.success();
    }
    if (rate) this.#tell();
    return { outcome: status === 503 ? "overload" : "ok", retryAfterMs };
  }

  failed(failure: TransportFailure): "overload" | "neutral" {
    if (failure.verdict === "timeout") this.#strike(2);
    else if (failure.verdict === "unreachable" || failure.verdict === "cut") this.#strike(1);
    return failure.connectTimeout ? "overload" : "neutral";
  }

  /** News from another process. */
  receive(signals: HostSignals): void {
    this.#all.until = Math.max(this.#all.until, signals.blockedUntil);
    this.#pulls.until = Math.max(this.#pulls.until, signals.pullsBlockedUntil);
    if (signals.remaining !== null) this.#budget.observe({ remaining: signals.remaining, limit: signals.limit, windowSeconds: null });
    // A process that has not noticed yet says "closed" as well: the newer change wins.
    if (signals.breakerChangedAt <= this.#breakerChangedAt) return;
    this.#breakerChangedAt = signals.breakerChangedAt;
    if (signals.breaker === "open" && this.#breaker.allowsCalls) this.#open();
    if (signals.breaker === "closed" && !this.#breaker.allowsCalls) this.#breaker.close();
  }

  stats(): HostGateStats {
    const describe = (queue: HostQueue) => ({ limit: queue.limit, running: queue.running, waiting: queue.waiting, refused: queue.refused });
    return {
      host: this.#options.host,
      breaker: this.#breaker.state,
      remaining: this.#budget.remaining,
      limit: this.#budget.limit,
      blockedMs: Math.max(0, this.#all.until - this.#options.clock.now(), this.#pulls.until - this.#options.clock.now()),
      queue: { meta: describe(this.#queues.meta), bulk: describe(this.#queues.bulk) },
    };
  }

  close(): void {
    this.#closed = true;
    if (this.#probeTimer) clearTimeout(this.#probeTimer);
    for (const queue of Object.values(this.#queues)) queue.refuseAll(new SlipwayError("DRAINING"));
  }

  #checkBreaker(): void {
    if (this.#closed) throw new SlipwayError("DRAINING");
    if (this.#breaker.allowsCalls) return;
    this.#scheduleProbe();
    throw this.#dead();
  }

  #dead(): SlipwayError {
    return new SlipwayError("UPSTREAM_UNAVAILABLE", {
      detail: { host: this.#options.host, breaker: "open" },
      retryAfterSeconds: Math.max(1, Math.ceil(this.#breaker.retryInMs / 1000)),
    });
  }

  async #waitForBlocks(options: EnterOptions): Promise<number> {
    const { clock, host } = this.#options;
    const start = clock.now();
    const patience = Math.min(options.waitMs, options.blockWaitMs ?? options.waitMs);
    for (;;) {
      const now = clock.now();
      const block = options.counted && this.#pulls.until > this.#all.until ? this.#pulls : this.#all;
      const left = block.until - now;
      if (left <= 0) return now - start;
      if (left > patience - (now - start)) {
        throw new SlipwayError(block.code, { detail: { host, blocked: true }, retryAfterSeconds: Math.ceil(left / 1000) });
      }
      // Those who waited for the same moment must not all arrive in it.
      await sleep(left + Math.random() * 50, options.signal).catch((cause: unknown) => {
        throw new SlipwayError("CANCELLED", { cause });
      });
      this.#checkBreaker();
    }
  }

  #checkBudget(options: EnterOptions): void {
    if (!options.counted) return;
    const wait = this.#budget.waitFor(options.priority === "interactive");
    if (wait === 0) return;
    throw new SlipwayError("UPSTREAM_LIMITED", {
      message: "the rest of the upstream registry's pull budget is kept for interactive pulls",
      detail: { host: this.#options.host, remaining: this.#budget.remaining },
      retryAfterSeconds: Math.ceil(wait / 1000),
    });
  }

  #block(block: Block, code: Block["code"], retryAfterMs: number | null): void {
    const now = this.#options.clock.now();
    // A burst of refusals is one refusal.
    if (retryAfterMs === null && block.until <= now) this.#blocksInARow += 1;
    const wait = retryAfterMs ?? backoffDelay(this.#blocksInARow, BLOCK_BACKOFF);
    const until = now + Math.min(wait, MAX_BLOCK_MS);
    if (until > block.until) {
      block.until = until;
      block.code = code;
    }
    this.#tell();
  }

  #strike(weight: 1 | 2): void {
    if (this.#breaker.failure(weight)) this.#opened();
  }

  #open(): void {
    this.#breaker.open();
    for (const queue of Object.values(this.#queues)) queue.refuseAll(this.#dead());
    this.#scheduleProbe();
  }

  #opened(): void {
    this.#breakerChangedAt = this.#options.clock.now();
    this.#open();
    this.#tell();
  }

  #scheduleProbe(): void {
    if (this.#probeTimer || this.#closed) return;
    this.#probeTimer = setTimeout(
      () => {
        this.#probeTimer = null;
        void this.#probe();
      },
      this.#breaker.retryInMs + Math.random() * this.#breaker.probeIntervalMs * 0.1,
    );
    this.#probeTimer.unref();
  }

  async #probe(): Promise<void> {
    if (!this.#breaker.beginProbe()) {
      if (this.#breaker.state === "open") this.#scheduleProbe();
      return;
    }
    const worked = await this.#options.probe().catch(() => false);
    if (this.#closed) return;
    this.#breaker.endProbe(worked);
    if (worked) {
      this.#breakerChangedAt = this.#options.clock.now();
      this.#tell();
      return;
    }
    // With nobody asking, the next call starts the probes again.
    if (this.#options.clock.now() - this.#lastCallAt < PROBES_WITHOUT_CALLS_MS) this.#scheduleProbe();
  }

  #tell(): void {
    this.#options.shared.publish(this.#options.key, {
      blockedUntil: this.#all.until,
      pullsBlockedUntil: this.#pulls.until,
      remaining: this.#budget.remaining,
      limit: this.#budget.limit,
      breaker: this.#breaker.state,
      breakerChangedAt: this.#breakerChangedAt,
    });
  }
}
