/**
 * Who talks to a host next, and how many at a time. The limit grows by one per round of successes while it is the bottleneck and halves
 * when the host shows that it has too much. Waiting is bounded in number and in time.
 */
import { SlipwayError } from "../core/errors.ts";
import type { Clock } from "../core/clock.ts";
import { PRIORITIES } from "./types.ts";
import type { Priority } from "./types.ts";

export interface HostQueueOptions {
  readonly clock: Clock;
  readonly initial: number;
  readonly floor?: number;
  readonly ceiling: number;
  /** Calls that may wait; a more urgent one takes the place of the least urgent. */
  readonly queueBound?: number;
  /** Part of the slots that is kept for interactive calls. */
  readonly reserve?: number;
  /** The ceiling is shared by so many processes. */
  readonly processes?: (() => number) | undefined;
}

export type SlotOutcome = "ok" | "overload" | "neutral";

export interface Slot {
  /** For long bodies: the host took the call well, whenever it will end. */
  wentWell(): void;
  /** The first call counts; later ones do nothing. */
  release(outcome: SlotOutcome): void;
}

interface Waiter {
  readonly priority: Priority;
  readonly waitMs: number;
  grant(slot: Slot): void;
  refuse(error: SlipwayError): void;
}

interface AcquireOptions {
  readonly priority: Priority;
  readonly waitMs: number;
  readonly signal?: AbortSignal | undefined;
}

export class HostQueue {
  readonly #options: HostQueueOptions;
  readonly #waiting: Record<Priority, Set<Waiter>>;
  #limit: number;
  #running = 0;
  #waitingCount = 0;
  #halvedAt = Number.NEGATIVE_INFINITY;
  #refused = 0;

  constructor(options: HostQueueOptions) {
    this.#options = options;
    this.#limit = options.initial;
    this.#waiting = { interactive: new Set(), revalidation: new Set(), replication: new Set(), prefetch: new Set() };
  }

  get limit(): number {
    const share = Math.max(1, Math.floor(this.#options.ceiling / Math.max(1, this.#options.processes?.() ?? 1)));
    return Math.max(1, Math.min(Math.floor(this.#limit), share));
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#waitingCount;
  }

  get refused(): number {
    return this.#refused;
  }

  acquire(options: AcquireOptions): Promise<Slot> {
    if (this.#mayRun(options.priority) && !this.#someoneBefore(options.priority)) return Promise.resolve(this.#start());
    if (options.waitMs <= 0 || !this.#makeRoom(options.priority)) return Promise.reject(this.#limited(options.waitMs));
    return this.#wait(options);
  }

  /** Used when the host was found dead: nobody should sit out a wait for it. */
  refuseAll(error: SlipwayError): void {
    for (const priority of PRIORITIES) for (const waiter of this.#waiting[priority]) waiter.refuse(error);
  }

  #wait(options: AcquireOptions): Promise<Slot> {
    const { priority, waitMs, signal } = options;
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        if (this.#waiting[priority].delete(waiter)) this.#waitingCount -= 1;
      };
      const waiter: Waiter = {
        priority,
        waitMs,
        grant: (slot) => {
          leave();
          resolve(slot);
        },
        refuse: (error) => {
          leave();
          reject(error);
        },
      };
      const onAbort = (): void => waiter.refuse(new SlipwayError("CANCELLED", { cause: signal?.reason }));
      const timer = setTimeout(() => waiter.refuse(this.#limited(waitMs)), waitMs);
      this.#waiting[priority].add(waiter);
      this.#waitingCount += 1;
      if (signal?.aborted) onAbort();
      else signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** By default a quarter of the slots stays free for interactive calls. */
  #mayRun(priority: Priority): boolean {
    return this.#running < this.limit - (priority === "interactive" ? 0 : this.#reserve());
  }

  #reserve(): number {
    const { limit } = this;
    const part = this.#options.reserve ?? 0.25;
    if (part === 0) return 0;
    return limit >= 4 ? Math.floor(limit * part) : limit > 1 ? 1 : 0;
  }

  #someoneBefore(priority: Priority): boolean {
    return PRIORITIES.slice(0, PRIORITIES.indexOf(priority) + 1).some((each) => this.#waiting[each].size > 0);
  }

  #makeRoom(priority: Priority): boolean {
    if (this.#waitingCount < (this.#options.queueBound ?? 1000)) return true;
    for (const lower of PRIORITIES.slice(PRIORITIES.indexOf(priority) + 1).reverse()) {
      const last = [...this.#waiting[lower]].at(-1);
      if (!last) continue;
      last.refuse(this.#limited(last.waitMs));
      return true;
    }
    return false;
  }

  #start(): Slot {
    this.#running += 1;
    const startedAt = this.#options.clock.now();
    let open = true;
    return {
      wentWell: () => {
        this.#grow();
        this.#pump();
      },
      release: (outcome) => {
        if (!open) return;
        open = false;
        if (outcome === "ok") this.#grow();
        if (outcome === "overload") this.#shrink(startedAt);
        this.#running -= 1;
        this.#pump();
      },
    };
  }

  #grow(): void {
    // A limit that is not reached has not been tried, so success says nothing about it.
    if (this.#running < this.limit - this.#reserve()) return;
    this.#limit = Math.min(this.#options.ceiling, this.#limit + 1 / this.#limit);
  }

  #shrink(startedAt: number): void {
    // Calls that were under way at the last halving tell the same news again.
    if (startedAt <= this.#halvedAt) return;
    this.#halvedAt = this.#options.clock.now();
    this.#limit = Math.max(this.#options.floor ?? 1, this.#limit / 2);
  }

  #pump(): void {
    for (const priority of PRIORITIES) {
      for (const waiter of this.#waiting[priority]) {
        if (!this.#mayRun(priority)) return;
        waiter.grant(this.#start());
      }
    }
  }

  #limited(waitMs: number): SlipwayError {
    this.#refused += 1;
    return new SlipwayError("UPSTREAM_LIMITED", {
      message: "too many calls to the upstream registry are waiting",
      retryAfterSeconds: Math.min(60, Math.max(1, Math.ceil(waitMs / 1000))),
    });
  }
}
