/**
 * The least that a cache in Node has to do, as a measure beside the real one: passes the bytes of two sockets on as they come, in large reads into memory that is used again, and has another
 * thread hash them and write them to a file. It knows no HTTP, names, rights, database, joining readers or held-back bytes. What it costs is the floor on the machine at hand, where client,
 * upstream and cache share the cores.
 */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

/** As large as the cache reads. */
const READ_BYTES = 512 * 1024;

interface Piece {
  readonly file: number;
  readonly memory: SharedArrayBuffer;
  readonly count: number;
}

/** To the other thread; without bytes at the end of a file. */
type Order = Piece | { readonly file: number; readonly memory: null };

function work(folder: string): void {
  const files = new Map<number, { readonly fd: number; readonly path: string; readonly hash: Hash }>();
  const begin = (file: number): { fd: number; path: string; hash: Hash } => {
    const path = join(folder, String(file));
    const begun = { fd: openSync(path, "w"), path, hash: createHash("sha256") };
    files.set(file, begun);
    return begun;
  };
  parentPort?.on("message", (order: Order) => {
    const { fd, path, hash } = files.get(order.file) ?? begin(order.file);
    if (order.memory !== null) {
      const bytes = Buffer.from(order.memory, 0, order.count);
      hash.update(bytes);
      writeSync(fd, bytes);
      parentPort?.postMessage(order.memory);
      return;
    }
    hash.digest();
    closeSync(fd);
    rmSync(path);
    files.delete(order.file);
  });
}

class Relay {
  readonly #target: number;
  readonly #worker: Worker;
  readonly #spare: Buffer[] = [];
  #files = 0;
  /** Who still needs the memory: the client's socket and the other thread. */
  readonly #users = new WeakMap<SharedArrayBuffer, number>();

  constructor(target: number, folder: string) {
    this.#target = target;
    this.#worker = new Worker(new URL(import.meta.url), { workerData: folder });
    this.#worker.on("message", (memory: SharedArrayBuffer) => this.#release(memory));
  }

  accept(client: Socket): void {
    const file = (this.#files += 1);
    const upstream = connect({
      port: this.#target,
      host: "127.0.0.1",
      onread: {
        buffer: () => this.#spare.pop() ?? Buffer.from(new SharedArrayBuffer(READ_BYTES)),
        callback: (count, buffer) => this.#pass(client, file, { count, buffer }),
      },
    });
    client.on("data", (chunk: Buffer) => upstream.write(chunk));
    client.on("drain", () => upstream.resume());
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.setNoDelay(true);
      one.on("error", () => one.destroy());
      one.on("close", () => other.destroy());
    }
    upstream.on("close", () => this.#order({ file, memory: null }));
  }

  #pass(client: Socket, file: number, { count, buffer }: { count: number; buffer: Uint8Array }): boolean {
    const memory = buffer.buffer as unknown as SharedArrayBuffer;
    this.#users.set(memory, 2);
    this.#order({ file, memory, count });
    return client.write(Buffer.from(memory, 0, count), () => this.#release(memory));
  }

  #order(order: Order): void {
    this.#worker.postMessage(order);
  }

  #release(memory: SharedArrayBuffer): void {
    const left = (this.#users.get(memory) ?? 1) - 1;
    this.#users.set(memory, left);
    if (left === 0) this.#spare.push(Buffer.from(memory));
  }
}

if (isMainThread) {
  const folder = mkdtempSync(join(tmpdir(), "slipway-bench-bare-"));
  const relay = new Relay(Number(process.env["SLIPWAY_BENCH_TARGET"]), folder);
  const server = createServer((client) => relay.accept(client));
  server.listen(0, "127.0.0.1", () => process.send?.({ port: (server.address() as AddressInfo).port }));
  process.once("disconnect", () => {
    rmSync(folder, { recursive: true, force: true });
    process.exit(0);
  });
} else {
  work(workerData as string);
}
