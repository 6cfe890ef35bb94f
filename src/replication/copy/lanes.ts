/** How many requests and blobs are under way to one host at once: small ones in turn, bulk ones largest first, over all batches of the process. */
import { SlipwayError } from "../../core/errors.ts";

/** From this size on a blob is bulk. */
export const BULK_BYTES = 8 * 1024 * 1024;
const SMALL_LIMIT = 32;
const BULK_LIMIT = 6;
const MAX_HOSTS = 1000;

interface Waiter {
  readonly weight: number;
  start(): void;
}

export class Lane {
  readonly #limit: number;
  readonly #waiting: Waiter[] = [];
  #running = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get idle(): boolean {
    return this.#running === 0 && this.#waiting.length === 0;
  }

  /** Heavier work goes first; of equal weight what came first. */
  async run<T>(weight: number, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    if (signal.aborted) throw new SlipwayError("CANCELLED", { cause: signal.reason });
    if (this.#running < this.#limit) this.#running += 1;
    else await this.#wait(weight, signal);
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next.start();
      else this.#running -= 1;
    }
  }

  #wait(weight: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        weight,
        start: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      const onAbort = (): void => {
        const at = this.#waiting.indexOf(waiter);
        if (at !== -1) this.#waiting.splice(at, 1);
        reject(new SlipwayError("CANCELLED", { cause: signal.reason }));
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#insert(waiter);
    });
  }

  #insert(waiter: Waiter): void {
    let low = 0;
    let high = this.#waiting.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#waiting[middle]?.weight ?? 0) >= waiter.weight) low = middle + 1;
      else high = middle;
    }
    this.#waiting.splice(low, 0, waiter);
  }
}

export interface HostLanes {
  /** Manifests, questions, small blobs. */
  readonly small: Lane;
  readonly bulk: Lane;
}

export class Lanes {
  readonly #byHost = new Map<string, HostLanes>();
  readonly #ceiling: number;

  constructor(ceiling: number) {
    this.#ceiling = ceiling;
  }

  of(host: string): HostLanes {
    const known = this.#byHost.get(host);
    if (known) return known;
    if (this.#byHost.size >= MAX_HOSTS) this.#dropIdle();
    const lanes = { small: new Lane(Math.min(SMALL_LIMIT, this.#ceiling)), bulk: new Lane(Math.min(BULK_LIMIT, this.#ceiling)) };
    this.#byHost.set(host, lanes);
    return lanes;
  }

  stats(): { lane: string; running: number; waiting: number }[] {
    const all = [...this.#byHost.values()];
    return (["small", "bulk"] as const).map((lane) => ({
      lane,
      running: all.reduce((sum, lanes) => sum + lanes[lane].running, 0),
      waiting: all.reduce((sum, lanes) => sum + lanes[lane].waiting, 0),
    }));
  }

  #dropIdle(): void {
    for (const [host, lanes] of this.#byHost) if (lanes.small.idle && lanes.bulk.idle) this.#byHost.delete(host);
  }
}

/** They keep the lanes of a host full, also while one of them begins or ends. */
const ENOUGH_BATCHES = 4;

/**
 * No target holds more than half of a worker's batches, so that a slow one leaves room for the others; nor more than its lanes need, so that the rest of a run is left for
 * whichever worker comes to it first.
 */
export class Shares {
  readonly #most: number;
  readonly #held = new Map<number, number>();

  constructor(slots: number) {
    this.#most = Math.max(1, Math.min(ENOUGH_BATCHES, Math.floor(slots / 2)));
  }

  enter(registryId: number): boolean {
    const held = this.#held.get(registryId) ?? 0;
    if (held >= this.#most) return false;
    this.#held.set(registryId, held + 1);
    return true;
  }

  leave(registryId: number): void {
    const held = (this.#held.get(registryId) ?? 1) - 1;
    if (held <= 0) this.#held.delete(registryId);
    else this.#held.set(registryId, held);
  }
}
