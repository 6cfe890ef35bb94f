/**
 * Tells every live process to drop what it knows, and returns when they have.
 *
 * A publisher waits for the acknowledgement of every member it knows, at most 500 ms. So a process that cannot acknowledge in that time must not use its
 * caches: it trusts them only while a message of its own, sent less than 450 ms ago, has come back through the channel. Messages of one
 * subscription come in order, so whatever was published before that message was applied before it. A process that was stopped, whose event
 * loop is blocked or whose channel is dead loses trust by time alone, without having to notice why.
 *
 * A lost subscription may have lost messages: everything cached is dropped before trust returns. A new process greets the others and is not trusted
 * (by itself) before all that live have answered, and from then on they wait for it. With nobody else there is nothing to send.
 */
import { sleep } from "../../core/clock.ts";
import type { Kv, Subscription } from "../../kv/kv.ts";
import type { Members } from "../../kv/members.ts";
import type { Logger } from "../../telemetry/logger.ts";

export interface InvalidationBusOptions {
  readonly kv: Kv;
  readonly members: Members;
  readonly logger: Logger;
}

interface Broadcast {
  readonly from: string;
  readonly seq: number;
  /** Absent in a greeting. */
  readonly scopes?: readonly string[];
  /** The sender goes. */
  readonly bye?: boolean;
}

interface Pending {
  readonly waiting: Set<string>;
  readonly done: () => void;
}

export type ScopeListener = (scopes: readonly string[]) => void;

const CHANNEL = "invalidate";
const ACK_MS = 500;
const TRUST_MS = 450;
const PING_MS = 150;
const SCOPES_PER_MESSAGE = 40;
const GREETING_ROUNDS = 30;

export class InvalidationBus {
  readonly #kv: Kv;
  readonly #members: Members;
  readonly #logger: Logger;
  readonly #id: string;
  readonly #listeners = new Set<ScopeListener>();
  readonly #resets = new Set<() => void>();
  readonly #pending = new Map<number, Pending>();
  /** Processes that answered a greeting or greeted; those of the member list are added at use. */
  readonly #peers = new Set<string>();
  readonly #gone = new Set<string>();
  readonly #subscriptions: Subscription[] = [];
  readonly #pinger: NodeJS.Timeout;
  #seq = 0;
  #isGreeted = false;
  #isConnected = false;
  #isClosed = false;
  /** When the last own message that came back was sent, by the monotonic clock. */
  #confirmedAt = Number.NEGATIVE_INFINITY;
  #published = 0;
  #unacknowledged = 0;
  #resetCount = 0;
  #received = 0;

  private constructor(options: InvalidationBusOptions) {
    this.#kv = options.kv;
    this.#members = options.members;
    this.#logger = options.logger;
    this.#id = options.members.bootId;
    this.#pinger = setInterval(() => this.#ping(), PING_MS);
    this.#pinger.unref();
  }

  static async open(options: InvalidationBusOptions): Promise<InvalidationBus> {
    const bus = new InvalidationBus(options);
    await bus.#subscribe();
    await bus.#greet();
    return bus;
  }

  /** Whether what is cached may be used; asked at each use, so it is one comparison of numbers. */
  trusted(): boolean {
    return this.#isConnected && this.#isGreeted && performance.now() - this.#confirmedAt < TRUST_MS;
  }

  /** Applied here before it returns its promise; elsewhere when that resolves. */
  async publish(scopes: readonly string[]): Promise<void> {
    this.#apply(scopes);
    this.#published += 1;
    const peers = this.#livePeers();
    if (peers.length === 0) return;
    const parts: (readonly string[])[] = [];
    for (let start = 0; start < scopes.length; start += SCOPES_PER_MESSAGE) parts.push(scopes.slice(start, start + SCOPES_PER_MESSAGE));
    await Promise.all(parts.map((part) => this.#broadcast({ scopes: part }, peers)));
  }

  /** Told of scopes invalidated here or elsewhere. Returns how to stop. */
  subscribe(listener: ScopeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Told when messages may have been missed: drop everything. Returns how to stop. */
  onReset(listener: () => void): () => void {
    this.#resets.add(listener);
    return () => this.#resets.delete(listener);
  }

  stats(): { published: number; received: number; unacknowledged: number; resets: number; peers: number; trusted: boolean } {
    return {
      published: this.#published,
      received: this.#received,
      unacknowledged: this.#unacknowledged,
      resets: this.#resetCount,
      peers: this.#livePeers().length,
      trusted: this.trusted(),
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#pinger);
    this.#isConnected = false;
    await this.#send(CHANNEL, { from: this.#id, seq: 0, bye: true }).catch(() => undefined);
    for (const subscription of this.#subscriptions) await subscription.close();
  }

  async #subscribe(): Promise<void> {
    const ready = [CHANNEL, `ack:${this.#id}`, `ping:${this.#id}`].map(
      (channel) =>
        new Promise<void>((resolve, reject) => {
          this.#kv
            .subscribe(channel, {
              onMessage: (message) => this.#receive(channel, message),
              onLost: () => this.#lost(),
              onReady: () => {
                this.#reconnected();
                resolve();
              },
            })
            .then((subscription) => this.#subscriptions.push(subscription), reject);
        }),
    );
    // Without the channel the process serves all the same, from the database.
    await Promise.race([Promise.all(ready), sleep(2_000)]);
  }

  /** From now on the others wait for this process. Those that do not answer are either dead soon, or hear of it when they do. */
  async #greet(): Promise<void> {
    for (let round = 0; round < GREETING_ROUNDS && !this.#isClosed; round += 1) {
      const members = await this.#members.list().catch(() => null);
      const missing = members
        ?.map((member) => member.bootId)
        .filter((id) => id !== this.#id && !this.#peers.has(id) && !this.#gone.has(id));
      if (missing?.length === 0) {
        this.#isGreeted = true;
        this.#reset();
        this.#ping();
        return;
      }
      await (missing ? this.#broadcast({}, missing) : sleep(ACK_MS));
    }
    this.#isGreeted = true;
    this.#reset();
  }

  async #broadcast(content: { scopes?: readonly string[] }, peers: readonly string[]): Promise<void> {
    this.#seq += 1;
    const seq = this.#seq;
    const timer = new AbortController();
    const acknowledged = new Promise<void>((resolve) => this.#pending.set(seq, { waiting: new Set(peers), done: resolve }));
    try {
      const late = sleep(ACK_MS, timer.signal).catch(() => undefined);
      await this.#send(CHANNEL, { from: this.#id, seq, ...content }).catch((error: unknown) => {
        this.#logger.warn({ error }, "an invalidation could not be sent; processes that cannot hear do not trust their caches");
      });
      await Promise.race([acknowledged, late]);
    } finally {
      timer.abort();
      const waiting = this.#pending.get(seq)?.waiting.size ?? 0;
      if (waiting > 0 && content.scopes) this.#unacknowledged += 1;
      this.#pending.delete(seq);
    }
  }

  #livePeers(): string[] {
    const listed = new Set(this.#members.known().map((member) => member.bootId));
    // A peer that greeted just now is not in the last list yet; one that is in no list any more is dead.
    for (const peer of this.#peers) if (!listed.has(peer) && this.#isOld(peer)) this.#peers.delete(peer);
    const peers = new Set([...this.#peers, ...listed]);
    peers.delete(this.#id);
    for (const gone of this.#gone) peers.delete(gone);
    return [...peers];
  }

  readonly #greetedAt = new Map<string, number>();

  #isOld(peer: string): boolean {
    const isOld = performance.now() - (this.#greetedAt.get(peer) ?? 0) > 10_000;
    if (isOld) this.#greetedAt.delete(peer);
    return isOld;
  }

  #receive(channel: string, message: string): void {
    if (channel === CHANNEL) this.#receiveBroadcast(JSON.parse(message) as Broadcast);
    else if (channel.startsWith("ping:")) this.#confirmedAt = Math.max(this.#confirmedAt, Number(message));
    else this.#receiveAck(JSON.parse(message) as { seq: number; by: string });
  }

  #receiveBroadcast(broadcast: Broadcast): void {
    if (broadcast.from === this.#id) return;
    if (broadcast.bye) {
      this.#peers.delete(broadcast.from);
      this.#gone.add(broadcast.from);
      for (const pending of this.#pending.values()) this.#settle(pending, broadcast.from);
      return;
    }
    if (broadcast.scopes) {
      this.#received += 1;
      this.#apply(broadcast.scopes);
    } else {
      this.#peers.add(broadcast.from);
      this.#greetedAt.set(broadcast.from, performance.now());
    }
    this.#send(`ack:${broadcast.from}`, { seq: broadcast.seq, by: this.#id }).catch((error: unknown) => {
      this.#logger.debug({ error }, "an acknowledgement could not be sent");
    });
  }

  #receiveAck({ seq, by }: { seq: number; by: string }): void {
    this.#peers.add(by);
    this.#greetedAt.set(by, performance.now());
    const pending = this.#pending.get(seq);
    if (pending) this.#settle(pending, by);
  }

  #settle(pending: Pending, by: string): void {
    pending.waiting.delete(by);
    if (pending.waiting.size === 0) pending.done();
  }

  #ping(): void {
    if (!this.#isConnected) return;
    const sentAt = performance.now();
    this.#kv.publish(`ping:${this.#id}`, String(sentAt)).catch(() => undefined);
  }

  #lost(): void {
    if (this.#isClosed) return;
    this.#isConnected = false;
    this.#confirmedAt = Number.NEGATIVE_INFINITY;
  }

  #reconnected(): void {
    if (this.#isClosed) return;
    this.#isConnected = true;
    this.#confirmedAt = Number.NEGATIVE_INFINITY;
    this.#reset();
    this.#ping();
  }

  #apply(scopes: readonly string[]): void {
    for (const listener of this.#listeners) listener(scopes);
  }

  #reset(): void {
    this.#resetCount += 1;
    for (const listener of this.#resets) listener();
  }

  #send(channel: string, message: object): Promise<void> {
    return this.#kv.publish(channel, JSON.stringify(message));
  }
}
