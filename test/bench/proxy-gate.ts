/**
 * What stands between the cache and its upstream in the proxy benches: a process that counts requests and bytes by kind, delays each request, limits the rate of all
 * answers together, and can refuse, hang or answer with an error. It splices sockets and looks at request lines only, so that it costs little
 * beside what is measured. Told what to do by messages of the parent.
 */
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";

export interface GateFaults {
  /** Added to every request. */
  readonly delayMs: number;
  /** Of all answers together; 0 is unlimited. */
  readonly bytesPerSecond: number;
  /** Nothing listens. */
  readonly refuse: boolean;
  /** Requests are read and never answered. */
  readonly hang: boolean;
  /** Answered instead of the upstream. */
  readonly status: 0 | 429 | 503;
  readonly retryAfterSeconds: number;
}

export interface GateCounts {
  /** By "METHOD kind", such as "GET blob". */
  readonly requests: Record<string, number>;
  /** GETs by digest. */
  readonly blobs: Record<string, number>;
  readonly bytesDown: number;
}

export const NO_GATE_FAULTS: GateFaults = { delayMs: 0, bytesPerSecond: 0, refuse: false, hang: false, status: 0, retryAfterSeconds: 7 };

export interface GateMessage {
  readonly id: number;
  readonly faults?: Partial<GateFaults>;
  /** Answer with the counts and begin again from zero. */
  readonly take?: boolean;
}

const REQUEST_LINE = /^([A-Z]+) (\S+) HTTP\/1\.1\r\n/;
/** Timers are coarse: so much may pass at once after a pause, or a limited rate would never be reached. */
const BURST_MS = 5;

function kindOf(path: string): string {
  if (path === "/v2/") return "ping";
  if (path.startsWith("/token")) return "token";
  return /\/(manifests|blobs|tags|referrers)\//.exec(path)?.[1]?.replace(/s$/, "") ?? "other";
}

class Gate {
  readonly #target: number;
  readonly #sockets = new Set<Socket>();
  #faults = NO_GATE_FAULTS;
  #server: Server | null = null;
  #port = 0;
  #freeAt = 0;
  #requests: Record<string, number> = {};
  #blobs: Record<string, number> = {};
  #bytesDown = 0;

  constructor(target: number) {
    this.#target = target;
  }

  async listen(): Promise<number> {
    const server = createServer((client) => this.#accept(client));
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.#port, "127.0.0.1", resolve));
    this.#port = (server.address() as AddressInfo).port;
    return this.#port;
  }

  async set(faults: Partial<GateFaults>): Promise<void> {
    this.#faults = { ...this.#faults, ...faults };
    // What was under way belongs to the former condition.
    for (const socket of this.#sockets) socket.destroy();
    if (this.#faults.refuse && this.#server) {
      const server = this.#server;
      this.#server = null;
      await new Promise<void>((resolve) => server.close(() => resolve()));
    }
    if (!this.#faults.refuse && !this.#server) await this.listen();
  }

  take(): GateCounts {
    const counts = { requests: this.#requests, blobs: this.#blobs, bytesDown: this.#bytesDown };
    this.#requests = {};
    this.#blobs = {};
    this.#bytesDown = 0;
    return counts;
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
  }

  #accept(client: Socket): void {
    this.#keep(client);
    const target = connect(this.#target, "127.0.0.1");
    this.#keep(target);
    client.on("close", () => target.destroy());
    target.on("close", () => client.end());
    client.on("data", (chunk: Buffer) => this.#request(chunk, { client, target }));
    target.on("data", (chunk: Buffer) => this.#answer(chunk, { client, target }));
  }

  #request(chunk: Buffer, { client, target }: { client: Socket; target: Socket }): void {
    const line = REQUEST_LINE.exec(chunk.toString("latin1", 0, 2_048));
    if (line) this.#count(line[1] ?? "", line[2] ?? "");
    const { hang, status, delayMs, retryAfterSeconds } = this.#faults;
    if (hang) return;
    const pass = (): void => {
      if (status !== 0 && line) client.write(refusal(status, retryAfterSeconds, line[1] === "HEAD"));
      else if (!target.destroyed) target.write(chunk);
    };
    if (delayMs > 0) setTimeout(pass, delayMs);
    else pass();
  }

  #count(method: string, path: string): void {
    const kind = `${method} ${kindOf(path)}`;
    this.#requests[kind] = (this.#requests[kind] ?? 0) + 1;
    if (kind !== "GET blob") return;
    const digest = path.slice(path.lastIndexOf("/") + 1);
    this.#blobs[digest] = (this.#blobs[digest] ?? 0) + 1;
  }

  #answer(chunk: Buffer, { client, target }: { client: Socket; target: Socket }): void {
    if (client.destroyed) return;
    this.#bytesDown += chunk.length;
    const hasRoom = client.write(chunk);
    const rate = this.#faults.bytesPerSecond;
    if (rate > 0) {
      const now = performance.now();
      this.#freeAt = Math.max(now - BURST_MS, this.#freeAt) + (chunk.length / rate) * 1000;
      if (this.#freeAt > now) {
        target.pause();
        setTimeout(() => target.resume(), this.#freeAt - now);
        return;
      }
    }
    if (hasRoom) return;
    target.pause();
    client.once("drain", () => target.resume());
  }
}

function refusal(status: 429 | 503, retryAfterSeconds: number, isHead: boolean): string {
  const body = JSON.stringify({ errors: [{ code: status === 429 ? "TOOMANYREQUESTS" : "UNAVAILABLE", message: "later" }] });
  const head = `HTTP/1.1 ${status} Later\r\nContent-Type: application/json\r\nRetry-After: ${retryAfterSeconds}\r\nContent-Length: ${body.length}\r\n\r\n`;
  return isHead ? head : head + body;
}

const gate = new Gate(Number(process.env["SLIPWAY_BENCH_TARGET"]));
process.on("message", ({ id, faults, take }: GateMessage) => {
  void (async () => {
    if (faults) await gate.set(faults);
    process.send?.({ id, ...(take ? { counts: gate.take() } : {}) });
  })();
});
process.once("disconnect", () => process.exit(0));
process.send?.({ port: await gate.listen() });
