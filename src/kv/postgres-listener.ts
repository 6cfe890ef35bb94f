/**
 * LISTEN and NOTIFY on a connection of their own, made again whenever it is lost. Messages are sent over it too: one connection keeps
 * their order, and its commits need not wait for the disk.
 */
import { createHash } from "node:crypto";
import pg from "pg";
import { backoffDelay } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import { gathered } from "../db/gathered.ts";
import { checkMessageSize, withDeadline } from "./deadline.ts";
import type { SubscribeHandlers, Subscription } from "./kv.ts";
import { SubscriptionHub } from "./subscriptions.ts";

export interface PostgresListenerOptions {
  readonly url: string;
  readonly prefix: string;
  readonly name: string;
  readonly onError: (error: unknown) => void;
}

interface Notification {
  readonly channel: string;
  readonly payload: string;
}

const MAX_NOTIFICATIONS = 100;
const STATEMENT_TIMEOUT_MS = 2_000;
const PING_INTERVAL_MS = 2_000;
const MAX_QUEUED = 10_000;
const NOTIFY =
  "SELECT pg_notify(m.channel, m.payload) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS m (channel, payload, place) ORDER BY m.place";
const RECONNECT = { baseMs: 50, capMs: 1_000 } as const;

export class PostgresListener {
  readonly #options: PostgresListenerOptions;
  readonly #notify = gathered<Notification, void>({
    run: (notifications) => this.#send(notifications),
    // In one statement, the same message twice would be sent once.
    identityOf: ({ channel, payload }) => `${channel} ${payload}`,
    max: MAX_NOTIFICATIONS,
  });
  readonly #hub: SubscriptionHub;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #client: pg.Client | null = null;
  /** The connection takes one statement at a time: the next waits for the end of this. */
  #tail: Promise<void> = Promise.resolve();
  #queued = 0;
  #drop: () => void = () => undefined;

  constructor(options: PostgresListenerOptions) {
    this.#options = options;
    this.#hub = new SubscriptionHub(
      {
        listen: (channel) => this.#execute(`LISTEN ${channel}`),
        unlisten: (channel) => this.#execute(`UNLISTEN ${channel}`),
        reset: () => this.#drop(),
      },
      options.onError,
    );
    this.#running = this.#run();
  }

  /** For the start: resolves when the connection is up or the wait is over. */
  async connected(waitMs: number): Promise<void> {
    const until = performance.now() + waitMs;
    while (!this.#client && performance.now() < until && !this.#stop.signal.aborted) await sleep(5);
  }

  subscribe(channel: string, handlers: SubscribeHandlers): Promise<Subscription> {
    return this.#hub.subscribe(this.physicalName(channel), handlers);
  }

  async publish(channel: string, message: string): Promise<void> {
    checkMessageSize(message);
    // The mark in front: NOTIFY cannot carry an empty payload apart from none.
    await this.#notify({ channel: this.physicalName(channel), payload: `+${message}` });
  }

  async #send(notifications: readonly Notification[]): Promise<readonly void[]> {
    const channels = notifications.map(({ channel }) => channel);
    const payloads = notifications.map(({ payload }) => payload);
    await this.#execute(NOTIFY, [channels, payloads]);
    return notifications.map(() => undefined);
  }

  async close(): Promise<void> {
    this.#stop.abort(new SlipwayError("DRAINING"));
    this.#drop();
    await this.#running;
  }

  async #execute(text: string, values: readonly unknown[] = []): Promise<void> {
    const client = this.#client;
    if (!client) throw new SlipwayError("KV_UNAVAILABLE");
    if (this.#queued >= MAX_QUEUED) throw new SlipwayError("KV_UNAVAILABLE", { message: "too many messages wait to be sent" });
    this.#queued += 1;
    const run = this.#tail.then(() => client.query(text, [...values]));
    this.#tail = run.then(
      () => void (this.#queued -= 1),
      () => void (this.#queued -= 1),
    );
    await withDeadline(run, STATEMENT_TIMEOUT_MS);
  }

  async #run(): Promise<void> {
    for (let attempt = 1; !this.#stop.signal.aborted; attempt += 1) {
      try {
        await this.#session(() => {
          attempt = 0;
        });
      } catch (error) {
        this.#options.onError(error);
      }
      if (!this.#stop.signal.aborted) await sleep(backoffDelay(attempt, RECONNECT), this.#stop.signal).catch(() => undefined);
    }
  }

  /** One connection, from its making to its end. */
  async #session(onUp: () => void): Promise<void> {
    const client = new pg.Client({
      connectionString: this.#options.url,
      application_name: this.#options.name,
      keepAlive: true,
      connectionTimeoutMillis: STATEMENT_TIMEOUT_MS,
    });
    const ended = new Promise<void>((resolve) => {
      this.#drop = resolve;
      client.once("end", resolve);
    });
    client.on("error", (error) => {
      this.#options.onError(error);
      this.#drop();
    });
    client.on("notification", (message) => this.#hub.deliver(message.channel, (message.payload ?? "").slice(1)));
    let pinger: NodeJS.Timeout | undefined;
    try {
      await client.connect();
      await withDeadline(client.query("SET synchronous_commit = off"), STATEMENT_TIMEOUT_MS);
      this.#client = client;
      pinger = setInterval(() => void this.#execute("SELECT 1").catch(() => this.#drop()), PING_INTERVAL_MS);
      pinger.unref();
      onUp();
      if (this.#stop.signal.aborted) return;
      void this.#hub.connected();
      await ended;
    } finally {
      clearInterval(pinger);
      this.#client = null;
      this.#hub.lost();
      // A server that does not answer would keep a polite end waiting.
      const destroy = setTimeout(() => client.connection.stream.destroy(), 200);
      await client.end().catch(() => undefined);
      clearTimeout(destroy);
    }
  }

  /** A name that Postgres takes, 63 bytes at most, from any text. Messages under it begin with a plus sign. */
  physicalName(channel: string): string {
    return `kv_${createHash("sha256").update(`${this.#options.prefix}${channel}`).digest("hex").slice(0, 40)}`;
  }
}
