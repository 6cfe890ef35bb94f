/** Load for the HTTP benches: wrk when it is on the PATH, else a generator of our own on raw sockets. */
import { spawn, spawnSync } from "node:child_process";
import { connect } from "node:net";

/** The environment that the bootstrap gives to a server. */
export const STARTED_AS = { MALLOC_ARENA_MAX: "2", MALLOC_MMAP_THRESHOLD_: "262144" } as const;

/** And the flags of Node. */
export const STARTED_WITH = ["--max-semi-space-size=8"];

export interface LoadRequest {
  readonly port: number;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly connections: number;
  readonly seconds: number;
}

export interface LoadResult {
  readonly rate: number;
  readonly p50: number;
  readonly p99: number;
  readonly errors: number;
}

export const hasWrk = spawnSync("wrk", ["-v"]).error === undefined;

export function load(request: LoadRequest): Promise<LoadResult> {
  return hasWrk ? loadByWrk(request) : loadBySockets(request);
}

function loadByWrk(request: LoadRequest): Promise<LoadResult> {
  const headers = Object.entries(request.headers).flatMap(([name, value]) => ["-H", `${name}: ${value}`]);
  const url = `http://127.0.0.1:${request.port}${request.path}`;
  const child = spawn("wrk", ["-t1", `-c${request.connections}`, `-d${request.seconds}s`, "--latency", ...headers, url]);
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", () => resolve(parseWrk(output)));
  });
}

function parseWrk(output: string): LoadResult {
  const rate = Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1] ?? Number.NaN);
  const bad = Number(/Non-2xx or 3xx responses: (\d+)/.exec(output)?.[1] ?? 0);
  const socket = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(output);
  const broken = socket ? socket.slice(1).reduce((sum, count) => sum + Number(count), 0) : 0;
  return { rate, p50: latency(output, "50%"), p99: latency(output, "99%"), errors: bad + broken };
}

function latency(output: string, row: string): number {
  const match = new RegExp(`\\s${row}\\s+([\\d.]+)(us|ms|s)`).exec(output);
  const factor = match?.[2] === "us" ? 0.001 : match?.[2] === "s" ? 1000 : 1;
  return Number(match?.[1] ?? Number.NaN) * factor;
}

async function loadBySockets(request: LoadRequest): Promise<LoadResult> {
  const head = Object.entries(request.headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
  const bytes = Buffer.from(`GET ${request.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${head}\r\n`);
  const latencies: number[] = [];
  let errors = 0;
  const end = performance.now() + request.seconds * 1000;
  const one = (): Promise<void> =>
    new Promise((resolve) => {
      const socket = connect(request.port, "127.0.0.1");
      let sentAt = 0;
      let size = 0;
      let left = 0;
      const send = (): void => {
        sentAt = performance.now();
        left = size;
        socket.write(bytes);
      };
      socket.once("connect", send);
      socket.on("data", (chunk: Buffer) => {
        if (size === 0) {
          // The first answer tells the size of all of them.
          const text = chunk.toString("latin1");
          size = text.indexOf("\r\n\r\n") + 4 + Number(/content-length: (\d+)/i.exec(text)?.[1]);
          left = size;
          if (!text.startsWith("HTTP/1.1 200")) errors += 1;
        }
        left -= chunk.length;
        if (left > 0) return;
        const now = performance.now();
        latencies.push(now - sentAt);
        if (now >= end) {
          socket.destroy();
          resolve();
        } else send();
      });
      socket.once("error", () => {
        errors += 1;
        resolve();
      });
    });
  await Promise.all(Array.from({ length: request.connections }, one));
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.floor((latencies.length - 1) * share)] ?? Number.NaN;
  return { rate: latencies.length / request.seconds, p50: at(0.5), p99: at(0.99), errors };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? (sorted[middle] ?? Number.NaN) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

/** CPU seconds of a process so far. */
export function cpuSeconds(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
