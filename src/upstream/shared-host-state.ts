/**
 * What one process learns about a host, told to the others within a second: blocked until when, how much pull budget is left, whether it
 * is dead. Losing it costs a few calls that would have been spared, so failures of the key-value service are counted and otherwise ignored.
 */
import { randomUUID } from "node:crypto";
import { z } from "zod";
import type { Kv, Subscription } from "../kv/kv.ts";

const HostSignals = z.object({
  /** Milliseconds since the epoch; 0 when not blocked. */
  blockedUntil: z.number(),
  /** The block concerns only calls that count against the pull budget. */
  pullsBlockedUntil: z.number(),
  remaining: z.number().nullable(),
  limit: z.number().nullable(),
  breaker: z.enum(["closed", "open", "half-open"]),
  breakerChangedAt: z.number(),
});
export type HostSignals = z.infer<typeof HostSignals>;

const Message = z.object({ from: z.string(), host: z.string(), signals: HostSignals });

export type HostListener = (hostKey: string, signals: HostSignals) => void;

export interface SharedHostState {
  read(hostKey: string): Promise<HostSignals | null>;
  publish(hostKey: string, signals: HostSignals): void;
  /** Signals of other processes. */
  onChange(listener: HostListener): void;
  close(): Promise<void>;
}

/** One process alone. */
export const localHostState: SharedHostState = {
  read: () => Promise.resolve(null),
  publish: () => undefined,
  onChange: () => undefined,
  close: () => Promise.resolve(),
};

const CHANNEL = "upstream-hosts";
const KEY_PREFIX = "upstream:host:";
const KEY_TTL_MS = 15 * 60_000;
const FLUSH_MS = 200;
const MAX_PENDING = 1000;

export class KvHostState implements SharedHostState {
  readonly #kv: Kv;
  readonly #id = randomUUID();
  readonly #listeners: HostListener[] = [];
  readonly #pending = new Map<string, HostSignals>();
  #timer: NodeJS.Timeout | null = null;
  #flushing: Promise<void> = Promise.resolve();
  #subscription: Subscription | null = null;
  failures = 0;

  private constructor(kv: Kv) {
    this.#kv = kv;
  }

  static async start(kv: Kv): Promise<KvHostState> {
    const state = new KvHostState(kv);
    state.#subscription = await kv.subscribe(CHANNEL, {
      onMessage: (text) => state.#receive(text),
      onLost: () => undefined,
      onReady: () => undefined,
    });
    return state;
  }

  async read(hostKey: string): Promise<HostSignals | null> {
    try {
      const text = await this.#kv.get(KEY_PREFIX + hostKey);
      return text === null ? null : (HostSignals.safeParse(JSON.parse(text)).data ?? null);
    } catch {
      this.failures += 1;
      return null;
    }
  }

  publish(hostKey: string, signals: HostSignals): void {
    if (this.#pending.size >= MAX_PENDING && !this.#pending.has(hostKey)) return;
    this.#pending.set(hostKey, signals);
    // A counter that moves with every answer is told a few times a second, not every time.
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#flushing = this.#flush();
    }, FLUSH_MS).unref();
  }

  onChange(listener: HostListener): void {
    this.#listeners.push(listener);
  }

  async close(): Promise<void> {
    if (this.#timer) clearTimeout(this.#timer);
    await this.#flushing;
    await this.#subscription?.close();
  }

  async #flush(): Promise<void> {
    const batch = [...this.#pending];
    this.#pending.clear();
    for (const [host, signals] of batch) {
      try {
        await this.#kv.set(KEY_PREFIX + host, JSON.stringify(signals), { ttlMs: KEY_TTL_MS });
        await this.#kv.publish(CHANNEL, JSON.stringify({ from: this.#id, host, signals }));
      } catch {
        this.failures += 1;
      }
    }
  }

  #receive(text: string): void {
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      return;
    }
    const message = Message.safeParse(json).data;
    if (!message || message.from === this.#id) return;
    for (const listener of this.#listeners) listener(message.host, message.signals);
  }
}
