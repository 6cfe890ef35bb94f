/**
 * Who listens to which channel, over connections that come and go. The driver says when its connection is up or lost; this keeps the
 * promise of the contract: after onLost nothing counts until onReady, and every connection that is up listens to every wanted channel.
 */
import type { SubscribeHandlers, Subscription } from "./kv.ts";

export interface ChannelTransport {
  listen(channel: string): Promise<void>;
  unlisten(channel: string): Promise<void>;
  /** The connection cannot be used: drop it and make another. */
  reset(): void;
}

interface Channel {
  readonly handlers: Set<SubscribeHandlers>;
  live: boolean;
}

export class SubscriptionHub {
  readonly #transport: ChannelTransport;
  readonly #onError: (error: unknown) => void;
  readonly #channels = new Map<string, Channel>();
  #up = false;
  /** Counts connections, so that what belongs to a lost one is not taken for the next one's. */
  #epoch = 0;

  constructor(transport: ChannelTransport, onError: (error: unknown) => void) {
    this.#transport = transport;
    this.#onError = onError;
  }

  async subscribe(name: string, handlers: SubscribeHandlers): Promise<Subscription> {
    let channel = this.#channels.get(name);
    if (!channel) {
      channel = { handlers: new Set(), live: false };
      this.#channels.set(name, channel);
    }
    channel.handlers.add(handlers);
    if (channel.live) this.#call(() => handlers.onReady());
    else if (this.#up) await this.#listen(name, channel);
    return { close: () => this.#unsubscribe(name, handlers) };
  }

  /** The connection is up: listens to everything that is wanted. */
  async connected(): Promise<void> {
    this.#up = true;
    this.#epoch += 1;
    await Promise.all([...this.#channels].map(([name, channel]) => this.#listen(name, channel)));
  }

  lost(): void {
    if (!this.#up) return;
    this.#up = false;
    this.#epoch += 1;
    for (const channel of this.#channels.values()) {
      if (!channel.live) continue;
      channel.live = false;
      for (const handlers of channel.handlers) this.#call(() => handlers.onLost());
    }
  }

  deliver(name: string, message: string): void {
    for (const handlers of this.#channels.get(name)?.handlers ?? []) this.#call(() => handlers.onMessage(message));
  }

  async #listen(name: string, channel: Channel): Promise<void> {
    const epoch = this.#epoch;
    try {
      await this.#transport.listen(name);
    } catch (error) {
      this.#onError(error);
      if (epoch === this.#epoch) this.#transport.reset();
      return;
    }
    if (epoch !== this.#epoch || channel.live) return;
    channel.live = true;
    for (const handlers of channel.handlers) this.#call(() => handlers.onReady());
  }

  async #unsubscribe(name: string, handlers: SubscribeHandlers): Promise<void> {
    const channel = this.#channels.get(name);
    if (!channel?.handlers.delete(handlers) || channel.handlers.size > 0) return;
    this.#channels.delete(name);
    if (this.#up) await this.#transport.unlisten(name).catch(this.#onError);
  }

  /** A listener that throws must not take the connection, the other listeners or the process with it. */
  #call(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#onError(error);
    }
  }
}
