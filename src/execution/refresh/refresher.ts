/**
 * Refreshes the executions of the slots that this process holds: claim, settle, complete, in batches. Marks wake it; since a message may be lost, it looks
 * by itself as well, less often the longer nothing comes. What a crash leaves behind is claimed again when its lease ends.
 */
import { backoffDelay } from "../../core/backoff.ts";
import { sleep } from "../../core/clock.ts";
import { Wake } from "../../core/wake.ts";
import type { Subscription } from "../../kv/kv.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { FixedShard } from "../plan/assignment.ts";
import type { BatchOutcome, BatchSettler } from "./batch-settler.ts";
import type { OldMarksDrain } from "./old-marks-drain.ts";
import { PassLog } from "./pass-log.ts";
import type { RefreshClaim, RefreshQueue } from "./refresh-queue.ts";
import type { RefreshCounters } from "./refresh-counters.ts";
import { SlotBackoff } from "./slot-backoff.ts";
import type { Sweeper } from "./sweeper.ts";

export interface Holding {
  readonly slots: readonly number[];
  /** How this instance is called in the log. */
  readonly shard: FixedShard;
  /** One instance sweeps for all. */
  readonly sweeps: boolean;
}

export interface RefresherOptions {
  readonly queue: Pick<RefreshQueue, "claim" | "complete" | "extend" | "states" | "watch">;
  readonly settler: Pick<BatchSettler, "settle">;
  readonly sweeper: Pick<Sweeper, "sweep">;
  /** What earlier designs left; null where there is nothing to look at. */
  readonly drain?: Pick<OldMarksDrain, "run"> | null;
  readonly counters: RefreshCounters;
  readonly logger: Logger;
  readonly batch: number;
  readonly sweepMs: number;
  /** After a batch that changed something: events wait in the outbox. */
  readonly onChanges?: () => void;
  readonly leaseMs?: number;
  /** How long marks are gathered into a batch. */
  readonly gatherMs?: number;
  readonly idle?: { readonly baseMs: number; readonly capMs: number };
}

const LEASE_MS = 10_000;
const GATHER_MS = 200;
const IDLE = { baseMs: 400, capMs: 5_000 } as const;
/** Between sweeps while the queue is away: then they alone keep the status true. */
const AWAY_MS = 5_000;
/** Trouble of the database for so long makes the instance unwell. */
const TROUBLE_MS = 3_000;

export class Refresher {
  readonly #options: RefresherOptions;
  readonly #backoff = new SlotBackoff();
  #current: AbortController | null = null;
  #troubleSince: number | null = null;

  constructor(options: RefresherOptions) {
    this.#options = options;
  }

  /** False when the database has refused this process for a while; others may reach it. */
  isWell(now = performance.now()): boolean {
    return this.#troubleSince === null || now - this.#troubleSince < TROUBLE_MS;
  }

  /** The database answers again, as somebody found out by asking. */
  noteRecovery(): void {
    this.#troubleSince = null;
  }

  /** Works until the signal, or until another call takes over; a batch that has begun is finished. */
  async hold(holding: Holding, signal: AbortSignal): Promise<void> {
    this.#current?.abort();
    const replaced = new AbortController();
    this.#current = replaced;
    const ended = AbortSignal.any([signal, replaced.signal]);
    const { queue, drain, logger, counters } = this.#options;
    const wake = new Wake();
    const sweepNow = new Wake();
    const subscription = queue.watch(() => holding.slots, { onMarks: () => wake.ring(), onBack: () => sweepNow.ring() });
    subscription.catch(() => undefined);
    counters.holds(holding.slots);
    try {
      const forAll = holding.sweeps ? [this.#sweepLoop(sweepNow, ended), drain?.run(ended)] : [];
      await Promise.all([this.#claimLoop(holding, wake, ended), ...forAll]);
    } finally {
      replaced.abort();
      if (this.#current === replaced) {
        this.#current = null;
        counters.held = 0;
      }
      await closeQuietly(subscription, logger);
    }
  }

  async #claimLoop(holding: Holding, wake: Wake, signal: AbortSignal): Promise<void> {
    const { queue, batch, logger, leaseMs = LEASE_MS, gatherMs = GATHER_MS, idle = IDLE } = this.#options;
    const pass = new PassLog(logger, queue, holding);
    for (let quiet = 0; !signal.aborted;) {
      wake.arm();
      const slots = this.#backoff.ready(holding.slots, performance.now());
      const claims = await this.#claim(slots, leaseMs);
      if (claims.length > 0) {
        quiet = 0;
        await pass.begin();
        const { done, failed } = await this.#work(claims, leaseMs);
        pass.count({ succeeded: done.length, failed: failed.length });
        if (claims.length < batch) await pause(gatherMs, signal);
        continue;
      }
      quiet += 1;
      pass.pause();
      if (await wake.wait(backoffDelay(quiet, idle), signal)) await pause(gatherMs, signal);
    }
    pass.end();
  }

  async #claim(slots: readonly number[], leaseMs: number): Promise<RefreshClaim[]> {
    const { queue, batch, logger, counters } = this.#options;
    if (slots.length === 0) return [];
    try {
      return await queue.claim(slots, batch, leaseMs);
    } catch (error) {
      counters.queueErrors += 1;
      logger.debug({ error }, "the refresh queue could not be read");
      return [];
    }
  }

  async #work(claims: readonly RefreshClaim[], leaseMs: number): Promise<BatchOutcome> {
    const { queue, settler, counters, logger, onChanges } = this.#options;
    const startedAt = performance.now();
    const keeper = setInterval(() => void queue.extend(claims, leaseMs).catch(() => undefined), leaseMs * 0.4);
    let outcome: BatchOutcome;
    try {
      outcome = await settler.settle(claims.map(({ id }) => id));
    } finally {
      clearInterval(keeper);
    }
    counters.batch(claims, outcome, performance.now() - startedAt);
    if (outcome.changed.length > 0) onChanges?.();
    this.#settleSlots(claims, outcome);
    const finished = new Set([...outcome.done, ...outcome.setAside]);
    const again = claims.filter(({ id }) => !finished.has(id));
    try {
      await queue.complete(claims.filter(({ id }) => finished.has(id)));
      // Given back before the lease ends, but not before a pause.
      if (again.length > 0) await queue.extend(again, this.#pauseFor(again, outcome, leaseMs));
    } catch (error) {
      // They stay claimed until the lease ends and are then settled once more.
      counters.queueErrors += 1;
      logger.debug({ count: claims.length, error }, "a refreshed batch could not be completed in the queue");
    }
    return outcome;
  }

  #settleSlots(claims: readonly RefreshClaim[], outcome: BatchOutcome): void {
    if (outcome.trouble === null) {
      this.#troubleSince = null;
      this.#backoff.worked(claims.map(({ slot }) => slot));
      return;
    }
    this.#troubleSince ??= performance.now();
    this.#options.logger.warn({ left: outcome.left.length, error: outcome.trouble }, "executions could not be refreshed, their slots rest");
  }

  #pauseFor(again: readonly RefreshClaim[], outcome: BatchOutcome, leaseMs: number): number {
    if (outcome.trouble === null) return Math.min(1_000, leaseMs);
    return Math.min(
      leaseMs,
      this.#backoff.failed(
        again.map(({ slot }) => slot),
        performance.now(),
      ),
    );
  }

  async #sweepLoop(wake: Wake, signal: AbortSignal): Promise<void> {
    const { sweeper, sweepMs, logger, counters } = this.#options;
    for (let olderThanMs: number | undefined; !signal.aborted;) {
      wake.arm();
      let waitMs = sweepMs;
      try {
        const result = await sweeper.sweep(signal, olderThanMs);
        counters.sweeps += 1;
        if (result.away) waitMs = Math.min(sweepMs, AWAY_MS);
        counters.sweptUp += result.marked + result.settled;
        counters.replayed += result.replayed;
        if (result.marked + result.settled + result.replayed > 0)
          logger.info({ ...result }, "the sweep found executions whose mark was lost");
      } catch (error) {
        logger.warn({ error }, "the sweep for lost marks failed, the next one comes");
      }
      // After a loss of the queue everything that is noted was lost with it.
      olderThanMs = (await wake.wait(waitMs, signal)) ? 0 : undefined;
    }
  }
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await sleep(milliseconds, signal).catch(() => undefined);
}

async function closeQuietly(subscription: Promise<Subscription>, logger: Logger): Promise<void> {
  try {
    await (await subscription).close();
  } catch (error) {
    logger.debug({ error }, "the refresh queue was not watched");
  }
}
