/**
 * Drops what every live process has cached, and says when that is done.
 *
 * A publisher waits for the acknowledgement of every peer, at most 500 ms. So a process may trust its cache only as long as it would have
 * heard of everything that somebody waited for:
 * - It sends beacons to itself through the channel. The channel keeps the order, so a beacon that comes back proves that every message from
 *   before it was heard. Trust ends 350 ms after the last proven moment, before a publisher who got no answer (stopped process, stuck
 *   connection) gives up waiting. `trusted` compares clocks when asked: a stopped process cannot fool itself.
 * - A peer is waited for from its hello until its heartbeat has expired in the list of members. A process that has not written its own
 *   heartbeat for nearly that long may have been struck off, so it stops trusting first and joins again.
 * - Who joins (at start, after a lost channel, after a gap in its heartbeats) registers, reads the list, says hello, and trusts once all in
 *   the list have said that they know it; then it drops everything it has. What others changed before they knew it was changed before that
 *   moment; what they change later waits for it. Of two that join at once, the later to register sees the other in the list.
 * - A list that was read before a hello came does not strike off who said it.
 * - Alone there is nobody to wait for and beacons are rare, with trust as long as the heartbeat's; a hello shortens the trust before it is
 *   answered. Messages are sent all the same: a list that was lost with the service's memory may hide a peer.
 * - What could not be sent is sent when the channel is back.
 * Left open: a process that is alone and stuck, while another has just started and is not joined yet, may trust its cache for up to five
 * seconds against the newcomer's first writes.
 */
import { sleep } from "../../core/clock.ts";
import type { Kv, Subscription } from "../../kv/kv.ts";
import type { Beat, Members } from "../../kv/members.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { Acknowledgements } from "./acknowledgements.ts";
import { BROADCAST, inboxOf, parseBusMessage, splitScopes } from "./bus-messages.ts";
import type { BusMessage } from "./bus-messages.ts";
import { Generations } from "./generations.ts";

export interface InvalidationBusOptions {
  readonly kv: Kv;
  readonly members: Members;
  readonly logger: Pick<Logger, "warn">;
  /** Longest wait for the first join; it goes on afterwards. */
  readonly openWaitMs?: number;
}

export interface InvalidationBusStats {
  readonly trusted: boolean;
  readonly peers: number;
  readonly published: number;
  readonly received: number;
  /** Peers that did not answer a publisher in time. */
  readonly unacknowledged: number;
  readonly channelLosses: number;
  readonly joins: number;
  readonly sendFailures: number;
  readonly scopes: number;
}

interface Batch {
  readonly scopes: Set<string>;
  readonly done: Promise<void>;
  readonly resolve: () => void;
}

const ACK_LIMIT_MS = 500;
const TRUST_MS = 350;
const BEACON_MS = 100;
const ALONE_BEACON_MS = 2_000;
const HELLO_AGAIN_MS = 250;
const OPEN_WAIT_MS = 1_000;
const MAX_UNSENT = 10_000;
const FEATURE = "invalidation";

export class InvalidationBus {
  /** Shared by the caches that this bus guards. */
  readonly generations = new Generations();
  readonly #kv: Kv;
  readonly #members: Members;
  readonly #logger: Pick<Logger, "warn">;
  readonly #id: string;
  /** A heartbeat older than this may have expired for the others. */
  readonly #aliveMs: number;
  /** Peers, with the moment of the last sign of life that did not come from the list. */
  readonly #peers = new Map<string, number>();
  readonly #acks: Acknowledgements;
  readonly #scopeListeners = new Set<(scopes: readonly string[]) => void>();
  readonly #resetListeners = new Set<() => void>();
  readonly #subscriptions: Subscription[] = [];
  readonly #unsent = new Set<string>();
  readonly #readyChannels = new Set<string>();
  #stopBeats: () => void = () => undefined;
  #batch: Batch | null = null;
  /** Joining: the number of the attempt, and who answered its hello. */
  #attempt = 0;
  #registered = false;
  readonly #knownBy = new Set<string>();
  #joined = false;
  #wakeJoin: () => void = () => undefined;
  #confirmedAt = Number.NEGATIVE_INFINITY;
  #trustedUntil = Number.NEGATIVE_INFINITY;
  #beaconTimer: NodeJS.Timeout | undefined;
  #closed = false;
  #unsentAll = false;
  #published = 0;
  #received = 0;
  #unacknowledged = 0;
  #losses = 0;
  #joins = 0;
  #sendFailures = 0;

  private constructor(options: InvalidationBusOptions) {
    this.#kv = options.kv;
    this.#members = options.members;
    this.#logger = options.logger;
    this.#id = options.members.bootId;
    this.#aliveMs = (options.members.deadMs * 5) / 6;
    this.#acks = new Acknowledgements(ACK_LIMIT_MS, (missing) => {
      this.#unacknowledged += missing;
      // Perhaps the list knows by now that they are dead; the next publisher need not wait for them.
      void this.#members.beat().catch(() => undefined);
    });
  }

  /** Resolves when joined, or when the wait is over; until joined nothing cached is trusted. */
  static async open(options: InvalidationBusOptions): Promise<InvalidationBus> {
    const bus = new InvalidationBus(options);
    bus.#stopBeats = options.members.onBeat((beat) => bus.#onBeat(beat));
    for (const channel of [BROADCAST, inboxOf(bus.#id)]) {
      const handlers = {
        onMessage: (text: string) => bus.#onMessage(text),
        onLost: () => bus.#onLost(channel),
        onReady: () => bus.#onReady(channel),
      };
      bus.#subscriptions.push(await options.kv.subscribe(channel, handlers));
    }
    const until = performance.now() + (options.openWaitMs ?? OPEN_WAIT_MS);
    while (!bus.trusted() && performance.now() < until) await sleep(2);
    return bus;
  }

  /** Whether everything that somebody waited for has been heard here. */
  trusted(now: number = performance.now()): boolean {
    return now < this.#trustedUntil;
  }

  /**
   * Drops the scopes here at once, and resolves when every live process has dropped them or 500 ms are over. Calls of one turn of the
   * event loop travel together.
   */
  publish(scopes: readonly string[]): Promise<void> {
    this.#apply(scopes);
    if (this.#closed || scopes.length === 0) return Promise.resolve();
    this.#published += 1;
    if (!this.#batch) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#batch = { scopes: new Set(), done: promise, resolve };
      queueMicrotask(() => this.#flush());
    }
    for (const scope of scopes) this.#batch.scopes.add(scope);
    return this.#batch.done;
  }

  /** Told of every invalidation, from here or elsewhere. Returns how to stop. */
  subscribe(listener: (scopes: readonly string[]) => void): () => void {
    this.#scopeListeners.add(listener);
    return () => void this.#scopeListeners.delete(listener);
  }

  /** Told when everything known from before may be outdated. Returns how to stop. */
  onReset(listener: () => void): () => void {
    this.#resetListeners.add(listener);
    return () => void this.#resetListeners.delete(listener);
  }

  stats(): InvalidationBusStats {
    return {
      trusted: this.trusted(),
      peers: this.#peers.size,
      published: this.#published,
      received: this.#received,
      unacknowledged: this.#unacknowledged,
      channelLosses: this.#losses,
      joins: this.#joins,
      sendFailures: this.#sendFailures,
      scopes: this.generations.size,
    };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#joined = false;
    this.#refreshTrust();
    clearTimeout(this.#beaconTimer);
    this.#stopBeats();
    this.#wakeJoin();
    this.#acks.finishAll();
    await this.#send(BROADCAST, { t: "bye", from: this.#id });
    await this.#members.withdrawFeature(FEATURE).catch(() => undefined);
    for (const subscription of this.#subscriptions) await subscription.close();
  }

  #flush(): void {
    const batch = this.#batch;
    this.#batch = null;
    if (batch) void Promise.all(splitScopes(batch.scopes).map((scopes) => this.#deliver(scopes))).then(batch.resolve);
  }

  #deliver(scopes: string[] | null): Promise<void> {
    const wait = this.#acks.expect(this.#joined ? this.#peers.keys() : null);
    void this.#send(BROADCAST, { t: "drop", from: this.#id, n: wait.n, scopes }).then((sent) => {
      if (sent) wait.sent();
      else this.#keepUnsent(scopes);
    });
    if (this.#peers.size === 0 && this.trusted()) wait.finish();
    return wait.done;
  }

  #keepUnsent(scopes: readonly string[] | null): void {
    if (scopes === null || this.#unsent.size + scopes.length > MAX_UNSENT) this.#unsentAll = true;
    else for (const scope of scopes) this.#unsent.add(scope);
  }

  #sendUnsent(): void {
    if (this.#unsent.size === 0 && !this.#unsentAll) return;
    const parts = this.#unsentAll ? [null] : splitScopes(this.#unsent);
    this.#unsentAll = false;
    this.#unsent.clear();
    for (const scopes of parts) void this.#deliver(scopes);
  }

  #onMessage(text: string): void {
    const message = parseBusMessage(text);
    if (!message || this.#closed) return;
    if (message.t === "beacon") this.#onBeacon(message.at);
    if (message.from === this.#id) return;
    if (message.t === "bye") this.#removePeer(message.from);
    else this.#seePeer(message.from);
    switch (message.t) {
      case "drop":
        this.#received += 1;
        if (message.scopes === null) this.#reset();
        else this.#apply(message.scopes);
        void this.#send(inboxOf(message.from), { t: "ack", from: this.#id, n: message.n });
        break;
      case "hello":
        void this.#send(inboxOf(message.from), { t: "known", from: this.#id, n: message.n });
        break;
      case "ack":
        this.#acks.answer(message.from, message.n);
        break;
      case "known":
        if (message.n === this.#attempt) this.#knownBy.add(message.from);
        this.#tryFinishJoin();
        break;
      case "bye":
      case "beacon":
        break;
    }
  }

  #onBeacon(at: number): void {
    this.#confirmedAt = Math.max(this.#confirmedAt, at);
    this.#refreshTrust();
    this.#sendUnsent();
  }

  #onLost(channel: string): void {
    this.#readyChannels.delete(channel);
    this.#losses += 1;
    this.#attempt += 1;
    this.#joined = false;
    this.#refreshTrust();
    this.#wakeJoin();
  }

  #onReady(channel: string): void {
    this.#readyChannels.add(channel);
    this.#startJoin();
  }

  #onBeat(beat: Beat): void {
    const live = new Set(beat.members.flatMap((member) => (member.features.includes(FEATURE) ? [member.bootId] : [])));
    for (const id of live) if (id !== this.#id && !this.#peers.has(id)) this.#seePeer(id, Number.NEGATIVE_INFINITY);
    for (const [id, seenAt] of this.#peers) if (!live.has(id) && seenAt < beat.startedAt) this.#removePeer(id);
    if (this.#joined && beat.gapMs > this.#aliveMs) this.#startJoin();
    this.#refreshTrust();
    this.#tryFinishJoin();
  }

  /** The first peer ends the long trust of a process alone, before that peer can hear that it is known. */
  #seePeer(id: string, seenAt: number = performance.now()): void {
    const isNew = !this.#peers.has(id);
    this.#peers.set(id, seenAt);
    if (!isNew) return;
    this.#refreshTrust();
    this.#beacon();
  }

  #removePeer(id: string): void {
    this.#peers.delete(id);
    this.#acks.gone(id);
    this.#tryFinishJoin();
  }

  #startJoin(): void {
    if (this.#readyChannels.size < 2 || this.#closed) return;
    this.#attempt += 1;
    this.#joined = false;
    this.#registered = false;
    this.#knownBy.clear();
    this.#refreshTrust();
    void this.#join(this.#attempt);
  }

  /** Says hello until all have answered, this attempt is outdated, or the bus is closed. */
  async #join(attempt: number): Promise<void> {
    while (attempt === this.#attempt && !this.#joined && !this.#closed) {
      const pause = new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, HELLO_AGAIN_MS);
        this.#wakeJoin = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      const registered = await this.#members.announceFeature(FEATURE).then(
        () => true,
        () => false,
      );
      if (attempt !== this.#attempt) return;
      if (registered) {
        this.#registered = true;
        await this.#send(BROADCAST, { t: "hello", from: this.#id, n: attempt });
        this.#tryFinishJoin();
      }
      await pause;
    }
  }

  #tryFinishJoin(): void {
    if (this.#joined || !this.#registered || this.#readyChannels.size < 2 || this.#closed) return;
    for (const id of this.#peers.keys()) if (!this.#knownBy.has(id)) return;
    this.#joins += 1;
    this.#reset();
    this.#joined = true;
    this.#wakeJoin();
    this.#acks.know(this.#peers.keys());
    this.#beacon();
  }

  #refreshTrust(): void {
    if (!this.#joined) {
      this.#trustedUntil = Number.NEGATIVE_INFINITY;
      return;
    }
    const trustMs = this.#peers.size === 0 ? this.#aliveMs : TRUST_MS;
    this.#trustedUntil = Math.min(this.#confirmedAt + trustMs, this.#members.lastBeatAt + this.#aliveMs);
  }

  #beacon(): void {
    clearTimeout(this.#beaconTimer);
    if (this.#closed) return;
    this.#beaconTimer = setTimeout(() => this.#beacon(), this.#peers.size === 0 ? ALONE_BEACON_MS : BEACON_MS);
    this.#beaconTimer.unref();
    if (this.#readyChannels.size === 2) void this.#send(inboxOf(this.#id), { t: "beacon", from: this.#id, at: performance.now() });
  }

  #apply(scopes: readonly string[]): void {
    for (const scope of scopes) this.generations.bump(scope);
    for (const listener of this.#scopeListeners) this.#call(() => listener(scopes));
  }

  #reset(): void {
    this.generations.bumpAll();
    for (const listener of this.#resetListeners) this.#call(listener);
  }

  #call(listener: () => void): void {
    try {
      listener();
    } catch (error) {
      this.#logger.warn({ error }, "a listener of invalidations failed");
    }
  }

  async #send(channel: string, message: BusMessage): Promise<boolean> {
    try {
      await this.#kv.publish(channel, JSON.stringify(message));
      return true;
    } catch {
      this.#sendFailures += 1;
      return false;
    }
  }
}
