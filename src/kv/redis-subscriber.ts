/**
 * The connection that listens. It is apart from the one for commands, pings the server (a connection whose other end has vanished stays
 * silent for ever), and says when messages may have been missed.
 */
import type { Redis } from "ioredis";
import { withDeadline } from "./deadline.ts";
import type { SubscribeHandlers, Subscription } from "./kv.ts";
import { SubscriptionHub } from "./subscriptions.ts";

export interface RedisSubscriberOptions {
  readonly redis: Redis;
  readonly pingIntervalMs: number;
  readonly timeoutMs: number;
  readonly onError: (error: unknown) => void;
}

export class RedisSubscriber {
  readonly #redis: Redis;
  readonly #hub: SubscriptionHub;
  readonly #timeoutMs: number;
  readonly #pinger: NodeJS.Timeout;

  constructor(options: RedisSubscriberOptions) {
    const redis = options.redis;
    this.#redis = redis;
    this.#timeoutMs = options.timeoutMs;
    this.#hub = new SubscriptionHub(
      {
        listen: (channel) => withDeadline(redis.subscribe(channel), options.timeoutMs).then(() => undefined),
        unlisten: (channel) => withDeadline(redis.unsubscribe(channel), options.timeoutMs).then(() => undefined),
        reset: () => redis.disconnect(true),
      },
      options.onError,
    );
    redis.on("ready", () => void this.#hub.connected());
    redis.on("close", () => this.#hub.lost());
    redis.on("message", (channel: string, message: string) => this.#hub.deliver(channel, message));
    this.#pinger = setInterval(() => void this.#ping(), options.pingIntervalMs);
    this.#pinger.unref();
  }

  subscribe(channel: string, handlers: SubscribeHandlers): Promise<Subscription> {
    return this.#hub.subscribe(channel, handlers);
  }

  close(): void {
    clearInterval(this.#pinger);
    this.#redis.disconnect();
  }

  async #ping(): Promise<void> {
    if (this.#redis.status !== "ready") return;
    try {
      await withDeadline(this.#redis.ping(), this.#timeoutMs);
    } catch {
      // The handlers must not wait for the kernel to find out.
      this.#hub.lost();
      this.#redis.disconnect(true);
    }
  }
}
