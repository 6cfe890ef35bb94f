/**
 * Empties the outbox: claims rows, hands them to the handler of their kind, removes what was done. Woken by publish/subscribe and, since a
 * message may be lost, by polling with back-off. Between statements no connection is held.
 */
import { backoffDelay } from "../core/backoff.ts";
import { toSlipwayError } from "../core/errors.ts";
import { Wake } from "../core/wake.ts";
import type { Kv, Subscription } from "../kv/kv.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Outbox, OutboxClaim, OutboxKind, OutboxRow } from "./outbox.ts";

/** Does the work of some rows of one kind, all or none, in their order; may be called again with the same ones. */
export type RelayHandler = (rows: readonly OutboxRow[], signal: AbortSignal) => Promise<void>;

export interface OutboxRelayOptions {
  readonly outbox: Pick<Outbox, "claim" | "complete" | "fail">;
  readonly handlers: Readonly<Partial<Record<OutboxKind, RelayHandler>>>;
  readonly kv: Pick<Kv, "subscribe">;
  /** On which writers announce new rows. */
  readonly channel?: string;
  readonly logger: Logger;
  readonly batch?: number;
  /** How long rows that a killed relay held stay hidden. */
  readonly leaseMs?: number;
  /** Pauses between looks at an outbox that stays empty. */
  readonly idle?: { readonly baseMs: number; readonly capMs: number };
}

export interface RelayStats {
  readonly handled: number;
  readonly failed: number;
  readonly batches: number;
}

/** Where the announcement of new rows is expected, unless the composition says otherwise. */
export const OUTBOX_CHANNEL = "outbox";

const BATCH = 100;
const LEASE_MS = 30_000;
const IDLE = { baseMs: 100, capMs: 5_000 } as const;
/** What is left of the lease is for the statements around the work. */
const WORK_SHARE = 0.7;

export class OutboxRelay {
  readonly #options: OutboxRelayOptions;
  readonly #wake = new Wake();
  #handled = 0;
  #failed = 0;
  #batches = 0;

  constructor(options: OutboxRelayOptions) {
    this.#options = options;
  }

  stats(): RelayStats {
    return { handled: this.#handled, failed: this.#failed, batches: this.#batches };
  }

  /** Works until the signal says stop; a batch that has begun is finished. */
  async run(signal: AbortSignal, onHandled: (count: number) => void): Promise<void> {
    const listener = new Listener(this.#options, this.#wake);
    try {
      for (let idle = 0; !signal.aborted;) {
        listener.ensure();
        this.#wake.arm();
        const count = await this.#step();
        onHandled(count);
        idle = count > 0 ? 0 : idle + 1;
        if (idle > 0) await this.#wake.wait(backoffDelay(idle, this.#options.idle ?? IDLE), signal);
      }
    } finally {
      await listener.close();
    }
  }

  /** Handles one batch of every kind; 0 when there was nothing, or nothing could be done. */
  async #step(): Promise<number> {
    let handled = 0;
    for (const [kind, handler] of Object.entries(this.#options.handlers) as [OutboxKind, RelayHandler][]) {
      try {
        handled += await this.#batch(kind, handler);
      } catch (error) {
        this.#options.logger.warn({ kind, error }, "the outbox could not be read or written");
      }
    }
    this.#handled += handled;
    return handled;
  }

  async #batch(kind: OutboxKind, handler: RelayHandler): Promise<number> {
    const leaseMs = this.#options.leaseMs ?? LEASE_MS;
    const deadline = AbortSignal.timeout(leaseMs * WORK_SHARE);
    const claim = await this.#options.outbox.claim({ kind, limit: this.#options.batch ?? BATCH, leaseMs });
    if (claim.rows.length === 0) return 0;
    this.#batches += 1;
    const work = (rows: readonly OutboxRow[]): Promise<void> => handler(rows, deadline);
    if (claim.rows.length > 1) {
      try {
        await work(claim.rows);
        return await this.#complete(claim, claim.rows);
      } catch (error) {
        this.#options.logger.debug({ kind, count: claim.rows.length, error }, "an outbox batch failed, its rows are tried one by one");
      }
    }
    let handled = 0;
    for (const rows of Map.groupBy(claim.rows, (row) => row.key).values()) handled += await this.#oneByOne(claim, rows, work);
    return handled;
  }

  /** Rows of one key: when one fails, the later ones wait for it. */
  async #oneByOne(claim: OutboxClaim, rows: readonly OutboxRow[], work: (rows: readonly OutboxRow[]) => Promise<void>): Promise<number> {
    for (const [index, row] of rows.entries()) {
      try {
        await work([row]);
      } catch (error) {
        this.#failed += 1;
        this.#options.logger.warn({ kind: row.kind, key: row.key, attempts: row.attempts, error }, "outbox row failed");
        await this.#options.outbox.fail(claim.claim, rows.slice(index), toSlipwayError(error).message);
        return index;
      }
      await this.#complete(claim, [row]);
    }
    return rows.length;
  }

  async #complete({ claim }: OutboxClaim, rows: readonly OutboxRow[]): Promise<number> {
    return this.#options.outbox.complete(
      claim,
      rows.map((row) => row.id),
    );
  }
}

/** The subscription, made again when making it failed. Without it the relay polls. */
class Listener {
  readonly #options: OutboxRelayOptions;
  readonly #wake: Wake;
  #subscription: Promise<Subscription | null> | null = null;

  constructor(options: OutboxRelayOptions, wake: Wake) {
    this.#options = options;
    this.#wake = wake;
  }

  ensure(): void {
    this.#subscription ??= this.#subscribe();
  }

  async close(): Promise<void> {
    const subscription = await this.#subscription;
    await subscription?.close().catch(() => undefined);
  }

  async #subscribe(): Promise<Subscription | null> {
    try {
      return await this.#options.kv.subscribe(this.#options.channel ?? OUTBOX_CHANNEL, {
        onMessage: () => this.#wake.ring(),
        onLost: () => undefined,
        onReady: () => this.#wake.ring(),
      });
    } catch (error) {
      this.#options.logger.debug({ error }, "no wake-ups for the outbox relay; it polls");
      this.#subscription = null;
      return null;
    }
  }
}
