/**
 * A TCP proxy that makes a network bad: latency, a shared rate, cut and stalled answers, refused and hanging connections. It counts what
 * passes. Every setting may change while it runs and holds from the next chunk on.
 */
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface Faults {
  /** Added to every chunk on its way to the target: one latency for each request. */
  delayMs: number;
  /** Of all connections together, for answers; 0 is unlimited. */
  bytesPerSecond: number;
  /** Destroys a connection after so many bytes of answers. */
  cutAfterBytes: number | null;
  /** How many connections are still cut; each cut takes one. */
  cuts: number;
  /** Stops answering on a connection after so many bytes, and keeps it open. */
  stallAfterBytes: number | null;
  /** Closes connections as soon as they are made. */
  refuse: boolean;
  /** Takes connections and requests and never answers. */
  hang: boolean;
}

const NO_FAULTS: Faults = {
  delayMs: 0,
  bytesPerSecond: 0,
  cutAfterBytes: null,
  cuts: Number.POSITIVE_INFINITY,
  stallAfterBytes: null,
  refuse: false,
  hang: false,
};

const REQUEST_LINE = /^(?:GET|HEAD|POST|PUT|PATCH|DELETE) [^\r\n]* HTTP\/1\.1\r\n/;

export class FaultProxy {
  readonly #target: { host: string; port: number };
  readonly #server;
  readonly #sockets = new Set<Socket>();
  #freeAt = 0;
  readonly faults: Faults = { ...NO_FAULTS };
  readonly counts = { connections: 0, requests: 0, bytesUp: 0, bytesDown: 0 };

  constructor(target: { readonly address?: string; readonly port: number }) {
    this.#target = { host: target.address ?? "127.0.0.1", port: target.port };
    this.#server = createServer((client) => this.#accept(client));
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return this;
  }

  async stop(): Promise<void> {
    this.dropConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  set(faults: Partial<Faults>): void {
    Object.assign(this.faults, faults);
  }

  heal(): void {
    Object.assign(this.faults, NO_FAULTS);
  }

  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #accept(client: Socket): void {
    this.counts.connections += 1;
    this.#keep(client);
    if (this.faults.refuse) {
      client.destroy();
      return;
    }
    const target = connect(this.#target);
    this.#keep(target);
    client.on("close", () => target.destroy());
    target.on("close", () => client.end());
    this.#upstream(client, target);
    this.#downstream(client, target);
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
  }

  #upstream(client: Socket, target: Socket): void {
    client.on("data", (chunk: Buffer) => {
      if (REQUEST_LINE.test(chunk.subarray(0, 16 * 1024).toString("latin1"))) this.counts.requests += 1;
      if (this.faults.hang) return;
      this.counts.bytesUp += chunk.length;
      const forward = (): void => {
        if (target.destroyed) return;
        if (!target.write(chunk)) {
          client.pause();
          target.once("drain", () => client.resume());
        }
      };
      if (this.faults.delayMs > 0) setTimeout(forward, this.faults.delayMs);
      else forward();
    });
    client.on("end", () => target.end());
  }

  #downstream(client: Socket, target: Socket): void {
    let passed = 0;
    // Bytes were lost, so this connection must never speak again, whatever the settings say later.
    let stalled = false;
    target.on("data", (chunk: Buffer) => {
      const { cutAfterBytes, stallAfterBytes } = this.faults;
      if (stalled) return;
      if (stallAfterBytes !== null && passed + chunk.length > stallAfterBytes) {
        this.#pass(client, target, chunk.subarray(0, Math.max(0, stallAfterBytes - passed)));
        stalled = true;
        return;
      }
      if (cutAfterBytes !== null && this.faults.cuts > 0 && passed + chunk.length > cutAfterBytes) {
        this.faults.cuts -= 1;
        this.counts.bytesDown += cutAfterBytes - passed;
        client.end(chunk.subarray(0, Math.max(0, cutAfterBytes - passed)), () => client.destroy());
        target.destroy();
        return;
      }
      passed += chunk.length;
      this.#pass(client, target, chunk);
    });
  }

  #pass(client: Socket, target: Socket, chunk: Buffer): void {
    if (client.destroyed || chunk.length === 0) return;
    this.counts.bytesDown += chunk.length;
    const rate = this.faults.bytesPerSecond;
    const room = client.write(chunk);
    if (rate > 0) {
      // One bucket for all connections: each chunk pushes the moment when the next may be read.
      const now = Date.now();
      this.#freeAt = Math.max(now, this.#freeAt) + (chunk.length / rate) * 1000;
      target.pause();
      setTimeout(() => target.resume(), this.#freeAt - now);
    } else if (!room) {
      target.pause();
      client.once("drain", () => target.resume());
    }
  }
}

export async function startFaultProxy(t: Cleanable, target: { readonly address?: string; readonly port: number }): Promise<FaultProxy> {
  const proxy = await new FaultProxy(target).start();
  t.after(() => proxy.stop());
  return proxy;
}
