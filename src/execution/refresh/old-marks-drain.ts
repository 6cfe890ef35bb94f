/**
 * Takes over the marks that earlier designs left in Redis: keys of single executions, and sets. By the instance that sweeps and under a lease, so once
 * for the deployment; in steps of one page, each marked before it is removed, so that a crash in between costs a mark made twice. Once a pass found
 * nothing, the database says so and nobody scans again.
 *
 * A member that is written again between its mark and its removal is removed with the first one. Its change is noted in the database all the same,
 * and the sweep finds it.
 */
import { sleep } from "../../core/clock.ts";
import type { Lease } from "../../kv/kv.ts";
import type { OldKeys, Page } from "../../kv/old-redis.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { OLD_KEY_PATTERN, OLD_SETS, readOldKey, readOldMember } from "../plan/old-marks.ts";
import type { DrainMode } from "../plan/old-marks.ts";
import type { Marked } from "../plan/slots.ts";
import type { DrainStore } from "./drain-store.ts";
import type { RefreshCounters } from "./refresh-counters.ts";
import type { RefreshQueue } from "./refresh-queue.ts";
import type { RefreshStore } from "./refresh-store.ts";

export interface OldMarksDrainOptions {
  readonly mode: DrainMode;
  readonly open: () => Promise<OldKeys>;
  /** Null while another instance drains. */
  readonly acquireLease: (ttlMs: number) => Promise<Lease | null>;
  readonly drains: Pick<DrainStore, "find" | "begin" | "add" | "endPass">;
  readonly queue: Pick<RefreshQueue, "mark">;
  readonly store: Pick<RefreshStore, "saveMarks">;
  readonly counters: RefreshCounters;
  readonly logger: Logger;
  /** Names or members of one step. */
  readonly page?: number;
  /** Between passes. */
  readonly pauseMs?: number;
}

const PAGE = 1_000;
const PAUSE_MS = 30_000;
const LEASE_MS = 15_000;
const RENEW_MS = LEASE_MS / 3;
/** While another instance drains, or did until it died. */
const BUSY_MS = 5_000;

type Outcome = "over" | "busy" | "more";
type Read = (name: string) => Marked | "malformed" | null;

interface Source {
  readonly next: (cursor: string) => Promise<Page>;
  readonly read: Read;
  readonly remove: (names: readonly string[]) => Promise<void>;
}

interface Totals {
  marked: number;
  malformed: number;
}

export class OldMarksDrain {
  readonly #options: OldMarksDrainOptions;

  constructor(options: OldMarksDrainOptions) {
    this.#options = options;
  }

  /** Until nothing is left to do or the signal; never fails. */
  async run(signal: AbortSignal): Promise<void> {
    const { logger, pauseMs = PAUSE_MS } = this.#options;
    while (!signal.aborted) {
      let waitMs = pauseMs;
      try {
        const outcome = await this.#look(signal);
        if (outcome === "over") return;
        if (outcome === "busy") waitMs = Math.min(BUSY_MS, pauseMs);
      } catch (error) {
        logger.warn({ error }, "marks of the earlier design could not be drained, another try follows");
      }
      await sleep(waitMs, signal).catch(() => undefined);
    }
  }

  async #look(signal: AbortSignal): Promise<Outcome> {
    const { mode, drains, open, acquireLease } = this.#options;
    const { phase } = await drains.find();
    if (mode === "off" || (mode === "once" && phase === "drained")) return "over";
    const redis = await open();
    try {
      if (mode === "auto" && phase !== "draining" && !(await this.#hasSets(redis))) return "over";
      const lease = await acquireLease(LEASE_MS);
      if (lease === null) return "busy";
      try {
        await drains.begin();
        return await this.#pass(redis, lease, signal);
      } finally {
        await lease.release().catch(() => undefined);
      }
    } finally {
      redis.close();
    }
  }

  async #hasSets(redis: OldKeys): Promise<boolean> {
    for (const key of OLD_SETS) if ((await redis.typeOf(key)) === "set") return true;
    return false;
  }

  async #pass(redis: OldKeys, lease: Lease, signal: AbortSignal): Promise<Outcome> {
    const { mode, drains, logger } = this.#options;
    const totals: Totals = { marked: 0, malformed: 0 };
    const complete = await this.#drainAll(await this.#sources(redis), totals, { lease, signal });
    if (totals.marked + totals.malformed > 0) logger.info({ ...totals }, "marks of the earlier design were taken over");
    if (!complete) return "busy";
    const over = mode !== "keep" && totals.marked + totals.malformed === 0;
    await drains.endPass(over);
    if (!over) return "more";
    logger.info({}, "no marks of the earlier design are left, nothing is scanned any more");
    return "over";
  }

  async #sources(redis: OldKeys): Promise<Source[]> {
    const { page = PAGE, logger } = this.#options;
    const sources: Source[] = [];
    for (const key of OLD_SETS) {
      const type = await redis.typeOf(key);
      if (type === "set") {
        sources.push({
          next: (cursor) => redis.scanSet(key, cursor, page),
          read: readOldMember,
          remove: (members) => redis.removeMembers(key, members),
        });
      } else if (type !== "none") {
        logger.warn({ key, type }, "a key has the name of an old set of marks but is none, it is left alone");
      }
    }
    const keys: Source = {
      next: (cursor) => redis.scan(OLD_KEY_PATTERN, cursor, page),
      read: readOldKey,
      remove: (names) => redis.remove(names),
    };
    return [...sources, keys];
  }

  /** False when it was ended before everything was seen. */
  async #drainAll(sources: readonly Source[], totals: Totals, { lease, signal }: { lease: Lease; signal: AbortSignal }): Promise<boolean> {
    let renewedAt = performance.now();
    for (const source of sources) {
      for (let cursor: string | null = "0"; cursor !== null;) {
        if (signal.aborted) return false;
        if (performance.now() - renewedAt > RENEW_MS) {
          if (!(await lease.renew(LEASE_MS))) return false;
          renewedAt = performance.now();
        }
        const page: Page = await source.next(cursor);
        this.#options.counters.oldScans += 1;
        await this.#take(source, page.found, totals);
        cursor = page.next;
      }
    }
    return true;
  }

  async #take({ read, remove }: Source, names: readonly string[], totals: Totals): Promise<void> {
    const { counters, drains } = this.#options;
    const known = names.map((name) => ({ name, mark: read(name) })).filter(({ mark }) => mark !== null);
    if (known.length === 0) return;
    const marks = known.flatMap(({ mark }) => (mark === null || mark === "malformed" ? [] : [mark]));
    await this.#mark(marks);
    await remove(known.map(({ name }) => name));
    const malformed = known.length - marks.length;
    await drains.add({ marked: marks.length, malformed });
    totals.marked += marks.length;
    totals.malformed += malformed;
    counters.oldMarked += marks.length;
    counters.oldMalformed += malformed;
  }

  async #mark(marks: readonly Marked[]): Promise<void> {
    if (marks.length === 0) return;
    const { queue, store, logger } = this.#options;
    const plain = marks.map((mark) => ({ ...mark, urgent: false }));
    try {
      await queue.mark(plain);
    } catch (error) {
      logger.debug({ count: marks.length, error }, "the refresh queue is away, old marks go to the database");
      await store.saveMarks(plain);
    }
  }
}
